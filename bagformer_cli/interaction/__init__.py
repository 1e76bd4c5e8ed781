"""Late interaction (MaxSim) of multi-vector embeddings: scores, top-k search, explanations.

``maxsim.py``, ``topk.py`` and ``explain.py`` are the method; ``kernels/`` makes it fast.
"""

from bagformer_cli.interaction.maxsim import maxsim
from bagformer_cli.vectors.multi_vectors import MultiVectors

__all__ = ["MultiVectors", "maxsim"]
