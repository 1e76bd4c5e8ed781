"""MaxSim on CUDA as fused Triton kernels: tensor cores, and no dot product reaches memory.

The files, in the order in which to read them::

    planes.py           bags of titles as dense tiles, without masks and exchanges between threads
    tiles.py            loads, products and maxima that all kernels share
    score_tiles.py      kernel: many titles against many images, one or both directions, argmax
    gradient_tiles.py   kernels: gradients from the argmax, as products with sparse tiles
    scan_tiles.py       kernel: few titles against a large catalogue, at the speed of memory
    settings.py         tile sizes per architecture
    launch.py           chooses sizes, allocates, starts the kernels
    scan.py             the same for the scan

This module is a path of ``maxsim.py`` (``scores``, ``forward``, ``backward``).
``TRITON_INTERPRET=1``, set before Triton is imported, runs all of it on the CPU.
"""

from bagformer_cli.interaction.kernels.cuda.launch import (
    ARGMAX_BYTES,
    backward,
    forward,
    scores,
    works,
)

__all__ = ["ARGMAX_BYTES", "backward", "forward", "scores", "works"]
