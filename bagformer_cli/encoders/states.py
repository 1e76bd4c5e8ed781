"""One side of a batch as a cross-encoder reads it: padded states and which of them count.

Shapes: B items, L positions, W width, m selected items.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from bagformer_cli.data.batches import TextBatch
from bagformer_cli.transfer import to_device


@dataclass(frozen=True)
class States:
    """Padded sequences of B items.

    Args:
        values: [B, L, W] floating, states of an encoder; or [B, L] int64, token ids, if the
            cross-encoder embeds them itself.
        mask: [B, L] bool, False for padding; None: every position counts.
    """

    values: Tensor
    mask: Tensor | None = None

    def __len__(self) -> int:
        return len(self.values)

    @property
    def kept(self) -> Tensor:
        """[B, L] bool: the mask, or True everywhere."""
        if self.mask is not None:
            return self.mask
        return torch.ones(self.values.shape[:2], dtype=torch.bool, device=self.values.device)

    def select(self, rows: Tensor) -> States:
        """Take the items at ``rows`` [m] int64, in that order; repeats are allowed."""
        # index_select instead of values[rows]: the backward pass of indexing adds gradients up in
        # no fixed order on a CPU, so that a resumed run would differ from an unbroken one.
        rows = to_device(rows, self.values.device)
        mask = None if self.mask is None else self.mask.index_select(0, rows)
        return States(self.values.index_select(0, rows), mask)

    def without_first(self) -> States:
        """Drop position 0 of every item."""
        return States(self.values[:, 1:], None if self.mask is None else self.mask[:, 1:])

    def to(self, device: torch.device, dtype: torch.dtype | None = None) -> States:
        """Move to ``device``; convert floating values to ``dtype``, ids stay integers."""
        kind = dtype if self.values.is_floating_point() else None
        mask = None if self.mask is None else self.mask.to(device)
        return States(self.values.to(device, kind), mask)

    @staticmethod
    def concatenate(parts: Sequence[States]) -> States:
        """Concatenate items, padding shorter parts with zeros to the longest L."""
        longest = max(part.values.shape[1] for part in parts)
        masks = [_padded(part.mask, longest) for part in parts if part.mask is not None]
        values = torch.cat([_padded(part.values, longest) for part in parts])
        return States(values, torch.cat(masks) if masks else None)


class TitleStates(NamedTuple):
    """Titles that the text tower has read already: a frozen tower gives the same each time.

    Attributes:
        text: The titles.
        values: Its output, [B, L, W]; [B, 1, W] if only position 0 is read.
    """

    text: TextBatch
    values: Tensor

    def __len__(self) -> int:
        return len(self.values)

    def to(self, device: torch.device | str) -> TitleStates:
        """Move all tensors to a device."""
        return TitleStates(self.text.to(device), self.values.to(device))


def _padded(values: Tensor, length: int) -> Tensor:
    """Append zeros (False) to [b, l, …] up to [b, length, …]."""
    missing = length - values.shape[1]
    if not missing:
        return values
    zeros = values.new_zeros(len(values), missing, *values.shape[2:])
    return torch.cat([values, zeros], dim=1)
