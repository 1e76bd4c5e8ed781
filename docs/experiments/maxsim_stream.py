"""Score a whole catalogue in both directions in one pass over a file, in bounded memory.

The image vectors (random, unit length, bfloat16) are written once and memory-mapped. Every title
is scored against every image; the ten best of each title and of each image are kept. The default
sizes are those of MUGE's validation split: 3.9 GB on disk. Prints a Markdown table.

    python docs/experiments/maxsim_stream.py build/vectors

Shapes: Q titles, N images × P patches, D dimensions, G bags of all titles.
"""

from __future__ import annotations

import argparse
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from bagformer_cli.bench import plain_maxsim as plain
from bagformer_cli.bench.cpu_clock import matrix_peak, status_bytes
from bagformer_cli.bench.maxsim import Workload
from bagformer_cli.files import atomic_file
from bagformer_cli.interaction.maxsim import maxsim_blocks
from bagformer_cli.vectors.multi_vectors import MultiVectors
from trials import markdown_table

TOP = 10  # scores kept per title and per image


class Sizes(NamedTuple):
    """Q, N, P and D of a pass."""

    titles: int = 5008
    images: int = 29806
    patches: int = 257
    dim: int = 256


class Pass(NamedTuple):
    """What one pass measured.

    Attributes:
        seconds: Wall time, reading included.
        cpu_seconds: Processor time of all threads.
        gflops: 10⁹ operations per second; a pass takes 2·G·N·P·D.
        peak_share: ``gflops`` as a share of the fastest plain matrix product of the same type.
        extra_bytes: Highest anonymous memory during the pass minus that before it, so without the
            mapped file; None: the system has no ``/proc`` to read it from.
        original_seconds: Time the two loops of the original code would take, extrapolated from
            32 titles × 32 images.
        title_best: [Q, ≤ 10] best scores of each title, highest first.
        image_best: [N, ≤ 10] best scores of each image, highest first.
    """

    seconds: float
    cpu_seconds: float
    gflops: float
    peak_share: float
    extra_bytes: int | None
    original_seconds: float
    title_best: Tensor
    image_best: Tensor


def make_catalogue(folder: Path, sizes: Sizes, seed: int = 0) -> MultiVectors:
    """Map the images' vectors from ``folder``, writing them first if they are not there."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"maxsim-{sizes.images}x{sizes.patches}x{sizes.dim}-{seed}.bf16"
    count = sizes.images * sizes.patches
    if not path.exists():
        generator = torch.Generator().manual_seed(seed)
        block = max(1, (64 << 20) // (sizes.dim * 4))
        with atomic_file(path) as temporary, temporary.open("wb") as stream:
            for first in range(0, count, block):
                vectors = torch.randn(min(block, count - first), sizes.dim, generator=generator)
                rounded = F.normalize(vectors, dim=-1).bfloat16()
                stream.write(rounded.view(torch.uint8).numpy().data)
    values = torch.from_file(str(path), shared=False, size=count * sizes.dim, dtype=torch.bfloat16)
    return MultiVectors.from_dense(values.view(sizes.images, sizes.patches, sizes.dim))


def measure_pass(
    folder: Path, sizes: Sizes | None = None, *, dtype: torch.dtype = torch.bfloat16, seed: int = 0
) -> Pass:
    """Score every title against every image and keep the best ten of each.

    Args:
        folder: Folder of the image vectors.
        sizes: Q, N, P and D; None: MUGE's validation split.
        dtype: Type in which vectors are multiplied.
        seed: Random seed of the vectors.
    """
    sizes = sizes or Sizes()
    catalogue = make_catalogue(folder, sizes, seed)
    load = Workload.make(sizes.titles, 1, sizes.patches, sizes.dim, seed)
    texts = load.texts.to(dtype=dtype)
    with _AnonymousMemory() as memory:
        start, cpu_start = time.perf_counter(), time.process_time()
        title_best = torch.empty(sizes.titles, 0)
        image_best = torch.empty(sizes.images, min(TOP, sizes.titles))
        for first, end, t2i, i2t in maxsim_blocks(texts, catalogue, dtype=dtype):
            scores = torch.cat([title_best, t2i], 1)
            title_best = scores.topk(min(TOP, scores.shape[1]), dim=1).values
            image_best[first:end] = i2t.topk(min(TOP, sizes.titles), dim=1).values
        seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu_start
    operations = 2.0 * len(texts.values) * len(catalogue.values) * sizes.dim
    gflops = operations / seconds / 1e9
    return Pass(
        seconds=seconds,
        cpu_seconds=cpu_seconds,
        gflops=gflops,
        peak_share=gflops / matrix_peak(dtype),
        extra_bytes=memory.extra_bytes,
        original_seconds=_original_seconds(sizes, seed),
        title_best=title_best,
        image_best=image_best,
    )


def _original_seconds(sizes: Sizes, seed: int) -> float:
    """Time the original's two loops on at most 32 × 32 pairs and extrapolate to all pairs."""
    part = Workload.make(
        min(sizes.titles, 32), min(sizes.images, 32), sizes.patches, sizes.dim, seed
    )
    padded = plain.pad(part.texts, 25)
    dense: Tensor = part.images.values.view(len(part.images), sizes.patches, sizes.dim)
    fastest = float("inf")
    for _ in range(3):
        start = time.perf_counter()
        plain.original_t2i(padded, dense)
        plain.original_i2t(padded, dense)
        fastest = min(fastest, time.perf_counter() - start)
    return fastest * (sizes.titles / len(part.texts)) * (sizes.images / len(part.images))


class _AnonymousMemory:
    """A context manager that watches this process's anonymous memory.

    Attributes:
        extra_bytes: Highest memory in the ``with`` block minus that before it; None: not known.
    """

    def __init__(self) -> None:
        self.extra_bytes: int | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> _AnonymousMemory:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        before = status_bytes("RssAnon")
        while before is not None and not self._stop.wait(0.01):
            now = status_bytes("RssAnon") or before
            self.extra_bytes = max(self.extra_bytes or 0, now - before)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure one pass and print the table."""
    default = Sizes()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="folder of the image vectors; made if missing")
    for name, meaning in (
        ("titles", "number of titles"),
        ("images", "number of images"),
        ("patches", "vectors per image"),
        ("dim", "dimensions of a vector"),
    ):
        value = getattr(default, name)
        parser.add_argument(
            f"--{name}", type=int, default=value, help=f"{meaning} (default: {value})"
        )
    parser.add_argument(
        "--dtype", choices=["float32", "bfloat16", "int8"], default="bfloat16",
        help="type in which vectors are multiplied (default: bfloat16)",
    )  # fmt: skip
    options = parser.parse_args(arguments)
    sizes = Sizes(options.titles, options.images, options.patches, options.dim)
    found = measure_pass(options.folder, sizes, dtype=getattr(torch, options.dtype))
    memory = "?" if found.extra_bytes is None else f"{found.extra_bytes / 1e6:.0f}"
    figures = {
        "wall, s": f"{found.seconds:.1f}",
        "processor, s": f"{found.cpu_seconds:.1f}",
        "GFLOP/s": f"{found.gflops:.0f}",
        "of the peak": f"{found.peak_share:.0%}",
        "memory, MB": memory,
        "original loops, s": f"{found.original_seconds:.0f}",
    }
    print("\n".join(markdown_table(list(figures), [list(figures.values())])))


if __name__ == "__main__":
    main()
