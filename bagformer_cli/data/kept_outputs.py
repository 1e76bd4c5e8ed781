"""Outputs of frozen towers for a whole split, kept in memory: a batch reads rows of them.

A frozen tower gives the same states for the same title or image at every step, so it encodes the
split once (``training/frozen_towers.py``) and no batch encodes it again::

    titles   0 1 2            values   [t0 t0 t0 t1 t2 t2]     packed, L differs
                              offsets  [0, 3, 4, 6]
    batch of titles (2, 1)  →  [t2 t2]                          padded with zeros to its longest
                               [t1 0 ]

Shapes: Q titles and N images of the split, B of a batch, L positions of a title, P positions of an
image, W width of the tower.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from bagformer_cli.data.batches import TowerOutputs


@dataclass(frozen=True)
class KeptOutputs:
    """The outputs of one or both towers for a split.

    Attributes:
        titles: [sum of L, W], the states of all titles; None: the text tower is trained.
        title_offsets: [Q + 1], title i owns ``titles[title_offsets[i]:title_offsets[i + 1]]``.
        images: [N, P, W], the states of all images; None: the image tower is trained.
        image_mask: [N, P] bool, False for padding; None: every position counts.
    """

    titles: Tensor | None = None
    title_offsets: NDArray[np.int64] | None = None
    images: Tensor | None = None
    image_mask: Tensor | None = None

    def rows(self, titles: NDArray[np.int64], images: NDArray[np.int64]) -> TowerOutputs:
        """Take the outputs for some titles and images, by their positions in the split."""
        return TowerOutputs(self.title_rows(titles), *self.image_rows(images))

    def title_rows(self, titles: NDArray[np.int64]) -> Tensor | None:
        """Take the states of at least one title, padded with zeros: [B, L, W]."""
        if self.titles is None or self.title_offsets is None:
            return None
        starts, ends = self.title_offsets[titles], self.title_offsets[titles + 1]
        parts = [self.titles[start:end] for start, end in zip(starts, ends, strict=True)]
        return pad_sequence(parts, batch_first=True)

    def image_rows(self, images: NDArray[np.int64]) -> tuple[Tensor | None, Tensor | None]:
        """Take the states of images, [B, P, W], and which positions count, [B, P]."""
        chosen = torch.from_numpy(images)
        return (
            None if self.images is None else self.images[chosen],
            None if self.image_mask is None else self.image_mask[chosen],
        )

    @property
    def megabytes(self) -> float:
        """Memory that the outputs take, in MB."""
        kept = [part for part in (self.titles, self.images) if part is not None]
        return sum(part.numel() * part.element_size() for part in kept) / 1e6
