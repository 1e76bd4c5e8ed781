"""A feature pyramid: finer image features for the captioner (Thinking Fast and Slow, section 3.2).

::

    last map, stride 16 ─ top ─▶ ×2 ─┬─ smooth ─▶ ×2 ─┬─ smooth ─▶ cells of the finest grid
    map at stride 8  ── lateral ─────┘                 │
    map at stride 4  ── lateral ───────────────────────┘

A convolutional backbone has the finer maps itself. A vision transformer has one stride only: a
:class:`ConvStem` computes them from the pixels.

Shapes: B batch, S pixels a side, C channels of a map, W width of the result, h and w a map's sides.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn


class ConvStem(nn.Module):
    """Convolutions that give feature maps at strides 8 and 4.

    Args:
        width: W, channels of both maps.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.channels = [width, width]
        self.to_4 = nn.Sequential(
            nn.Conv2d(3, width // 2, 3, 2, 1), nn.GELU(), nn.Conv2d(width // 2, width, 3, 2, 1)
        )
        self.to_8 = nn.Sequential(nn.GELU(), nn.Conv2d(width, width, 3, 2, 1))

    def forward(self, pixels: Tensor) -> list[Tensor]:
        """Compute [B, W, S / 8, S / 8] and [B, W, S / 4, S / 4] from [B, 3, S, S]."""
        at_4 = self.to_4(pixels)
        return [self.to_8(at_4), at_4]


class FeaturePyramid(nn.Module):
    """Upsample the last feature map step by step and merge a finer map at each step.

    Args:
        width: Channels of the last map.
        channels: Channels of the finer maps, coarsest first; one step for each.
        out: W.
    """

    def __init__(self, width: int, channels: Sequence[int], out: int) -> None:
        super().__init__()
        self.top = nn.Conv2d(width, out, 1)
        self.lateral = nn.ModuleList(nn.Conv2d(count, out, 1) for count in channels)
        self.smooth = nn.ModuleList(nn.Conv2d(out, out, 3, padding=1) for _ in channels)

    def forward(self, patches: Tensor, finer: Sequence[Tensor]) -> Tensor:
        """Merge feature maps.

        Args:
            patches: [B, h * h, W'] cells of the last map, row by row.
            finer: Maps [B, C, h, w], coarsest first. Maps beyond the number of steps are unused.

        Returns:
            [B, h * w, W], the cells of the finest map, row by row.
        """
        side = math.isqrt(patches.shape[1])
        cells = patches.transpose(1, 2)
        merged = self.top(cells.reshape(*cells.shape[:2], side, -1))
        for lateral, smooth, earlier in zip(self.lateral, self.smooth, finer, strict=False):
            upsampled = F.interpolate(merged, size=earlier.shape[-2:], mode="nearest")
            merged = smooth(F.gelu(upsampled + lateral(earlier)))
        finest: Tensor = merged.flatten(2).transpose(1, 2)
        return finest
