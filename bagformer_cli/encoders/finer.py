"""Finer image features for the slow scorer's attention (Thinking Fast and Slow, section 3.2).

Shapes: B batch, C channels of a map, W width of the result, h, w a map's sides.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn


class ConvStem(nn.Module):
    """Maps at strides 8 and 4 for a vision transformer, which has only its patches' stride.

    Args:
        width: Channels of both maps.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.channels = [width, width]
        self.to_4 = nn.Sequential(
            nn.Conv2d(3, width // 2, 3, 2, 1), nn.GELU(), nn.Conv2d(width // 2, width, 3, 2, 1)
        )
        self.to_8 = nn.Sequential(nn.GELU(), nn.Conv2d(width, width, 3, 2, 1))

    def forward(self, pixels: Tensor) -> list[Tensor]:
        """[B, 3, S, S] to [B, W, S / 8, S / 8] and [B, W, S / 4, S / 4]."""
        at_4 = self.to_4(pixels)
        return [self.to_8(at_4), at_4]


class FinerFeatures(nn.Module):
    """Upsamples the last map step by step, merging it with an earlier, finer one at each.

    Args:
        width: W' of the last map.
        channels: Channels of the finer maps, the coarsest first, one a step.
        out: W.
    """

    def __init__(self, width: int, channels: Sequence[int], out: int) -> None:
        super().__init__()
        self.top = nn.Conv2d(width, out, 1)
        self.lateral = nn.ModuleList(nn.Conv2d(count, out, 1) for count in channels)
        self.smooth = nn.ModuleList(nn.Conv2d(out, out, 3, padding=1) for _ in channels)

    def forward(self, patches: Tensor, finer: Sequence[Tensor]) -> Tensor:
        """Merge.

        Args:
            patches: [B, h * h, W'] the last map's cells.
            finer: Maps [B, C, h', w'], the coarsest first; as many as steps are used.

        Returns:
            [B, P, W], the cells of the finest grid.
        """
        side = math.isqrt(patches.shape[1])
        cells = patches.transpose(1, 2)
        merged = self.top(cells.reshape(*cells.shape[:2], side, -1))
        for lateral, smooth, earlier in zip(self.lateral, self.smooth, finer, strict=False):
            upsampled = F.interpolate(merged, size=earlier.shape[-2:], mode="nearest")
            merged = smooth(F.gelu(upsampled + lateral(earlier)))
        finest: Tensor = merged.flatten(2).transpose(1, 2)
        return finest
