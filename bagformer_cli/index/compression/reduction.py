"""Settings to keep fewer vectors per image: truncation, pruning, token pooling.

torch is imported when vectors are reduced (``token_pooling.py``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from bagformer_cli.vectors.multi_vectors import MultiVectors


@dataclass(frozen=True)
class VectorReduction:
    """Keep fewer vectors of each item: truncation, then pruning, then token pooling.

    >>> import torch
    >>> from bagformer_cli.vectors.multi_vectors import MultiVectors
    >>> items = MultiVectors.from_list([torch.nn.functional.normalize(torch.randn(33, 8), dim=1)])
    >>> VectorReduction(pool=4)(items).lengths
    tensor([9])

    Args:
        keep: Truncation: keep the first ``keep`` vectors. None: all.
        prune: Pruning: the share to keep, in (0, 1]; those most similar to the item's first vector
            (its class token). None: all.
        pool: Token pooling: vectors that are merged into one, on average. None: none.
    """

    keep: int | None = None
    prune: float | None = None
    pool: int | None = None

    def __call__(self, vectors: MultiVectors) -> MultiVectors:
        """Return the items with fewer vectors, in the same type."""
        from bagformer_cli.index.compression.token_pooling import pool_clusters, prune_by_similarity

        if self.keep is not None:
            vectors = vectors.truncate(self.keep)
        if self.prune is not None and self.prune < 1:
            vectors = prune_by_similarity(vectors, self.prune)
        if self.pool is not None and self.pool > 1:
            vectors = pool_clusters(vectors, self.pool)
        return vectors

    @classmethod
    def from_json(cls, values: Mapping[str, float]) -> Self:
        """Read the output of :meth:`to_json`."""
        whole = {name: int(values[name]) for name in ("keep", "pool") if name in values}
        return cls(prune=values.get("prune"), **whole)

    def to_json(self) -> dict[str, float]:
        """Return the steps that are not None."""
        values = {"keep": self.keep, "prune": self.prune, "pool": self.pool}
        return {name: value for name, value in values.items() if value is not None}
