"""Generated catalogues for ``xmr bench index``: vectors only, as large as wanted.

Shapes: N items × L vectors, D dimensions.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F

from bagformer_cli.bench.exact_search import clustered
from bagformer_cli.messages import tr
from bagformer_cli.progress import SILENT, Progress
from bagformer_cli.vectors.multi_vectors import MultiVectors

Products = Literal["parts", "kinds"]
WORDS, KINDS, WORDS_PER_KIND = 4096, 1000, 96
NOISE = 0.5  # length of the noise in each vector, next to its visual word of length 1


@dataclass(frozen=True)
class GeneratedCatalogue:
    """The size and kind of a generated catalogue.

    Args:
        items: N.
        length: L.
        dim: D.
        products: ``parts``: see :func:`composed`. ``kinds``: the harder set of ``xmr bench
            search``: products of a kind differ only by noise, so a first stage can find the kind
            and nothing more.
        seed: Random seed.
    """

    items: int = 50_000
    length: int = 32
    dim: int = 256
    products: Products = "parts"
    seed: int = 0

    @property
    def name(self) -> str:
        """A folder name that no other catalogue has."""
        return f"{self.products}-{self.items}x{self.length}x{self.dim}-{self.seed}"

    def blocks(self, progress: Progress) -> Iterator[MultiVectors]:
        """Yield the vectors, a block at a time."""
        make = composed if self.products == "parts" else clustered
        return make(self.items, self.length, self.dim, self.seed, progress)


def composed(
    items: int, length: int, dim: int, seed: int = 0, progress: Progress = SILENT
) -> Iterator[MultiVectors]:
    """Generate products that share visual parts.

    There are 4,096 visual words (a sleeve, a buckle, a white background). A kind of product has 96
    of them, a product 32 of its kind's; each of its vectors is one word plus noise. The largest
    kind has a hundred times as many products as the median one.

    Args:
        items: N.
        length: L, at most 96.
        dim: D.
        seed: Random seed.
        progress: Where to report.

    Yields:
        int8 vectors, a block at a time.
    """
    generator = torch.Generator().manual_seed(seed)
    words = F.normalize(torch.randn(WORDS, dim, generator=generator), dim=-1)
    noise = F.normalize(torch.randn(1 << 16, dim, generator=generator), dim=-1) * NOISE
    kinds = torch.stack(
        [torch.randperm(WORDS, generator=generator)[:WORDS_PER_KIND] for _ in range(KINDS)]
    )
    weights = 1 / torch.arange(1, KINDS + 1).float()
    with progress.task(tr("Writing"), total=items) as task:
        for first in range(0, items, 2048):
            n = min(2048, items - first)
            kind = torch.multinomial(weights, n, replacement=True, generator=generator)
            order = torch.rand(n, WORDS_PER_KIND, generator=generator).argsort(1)
            chosen = words[torch.gather(kinds[kind], 1, order[:, :length])]
            own = torch.randint(len(noise), (n, length), generator=generator)
            yield MultiVectors.from_dense(F.normalize(chosen + noise[own], dim=-1)).quantize()
            task.advance(n)
