"""Encode pre-extracted image regions, and adapt image states to the text encoder.

Shapes: B batch, R regions, F features of a region, P positions, W width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bagformer_cli.config import RegionsConfig
from bagformer_cli.encoders.pooling import pool_grid

BOX = 4


class RegionEncoder(nn.Module):
    """Encode regions of a detector in place of pixels: Linear, box embedding, LayerNorm.

    An input row is a region's F features, its box (x1, y1, x2, y2, each 0 to 1 of the image's
    sides) and 1. Rows of zeros pad an image with fewer regions.

    Args:
        config: Width of the features; whether the box is embedded.
        width: W.
    """

    has_class = False
    """No position stands for the whole image."""
    takes_codes = False
    """There is no sequence that code tokens could be appended to."""

    def __init__(self, config: RegionsConfig, width: int) -> None:
        super().__init__()
        self.width = width
        self.features = config.width
        self.project = nn.Linear(config.width, width)
        self.box = nn.Linear(BOX, width) if config.boxes else None
        self.norm = nn.LayerNorm(width)

    def forward(self, regions: Tensor) -> Tensor:
        """Encode [B, R, F + 5] to [B, R, W]."""
        states = self.project(regions[..., : self.features])
        if self.box is not None:
            states = states + self.box(regions[..., self.features : self.features + BOX])
        normed: Tensor = self.norm(states)
        return normed

    def mask(self, regions: Tensor) -> Tensor:
        """Return [B, R] bool, False for padding."""
        return regions[..., -1] > 0.5

    def forward_maps(self, regions: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Encode; regions have no finer feature maps."""
        return self(regions), []

    def checkpoint_gradients(self) -> None:
        """Do nothing: the activations of one linear layer are small."""


class SharedInput(nn.Module):
    """Adapt image states to a text encoder that reads both sides: Linear, LayerNorm.

    Args:
        width: Width of the states of a patch grid; None: the states are regions, which already
            have the text encoder's width and pass unchanged.
        text_width: W.
        cells: A larger patch grid is average-pooled to this many cells first.
    """

    def __init__(self, width: int | None, text_width: int, cells: int) -> None:
        super().__init__()
        self.cells = cells
        self.adapt: nn.Module = nn.Identity()
        if width is not None:
            self.adapt = nn.Sequential(nn.Linear(width, text_width), nn.LayerNorm(text_width))
        self.is_grid = width is not None

    def forward(self, states: Tensor) -> Tensor:
        """Adapt [B, P, W'] to [B, P, W]; of a grid, to [B, 1 + cells, W]."""
        if self.is_grid:
            pooled = pool_grid(states[:, 1:], self.cells)
            states = torch.cat([states[:, :1], pooled], dim=1)
        adapted: Tensor = self.adapt(states)
        return adapted
