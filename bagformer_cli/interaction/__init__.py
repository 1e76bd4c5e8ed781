"""Lists of vectors and the late interaction (MaxSim) between them."""

from bagformer_cli.interaction.maxsim import maxsim
from bagformer_cli.vectors.multi_vectors import MultiVectors

__all__ = ["MultiVectors", "maxsim"]
