"""Pre-extracted regions as image states, and an image's way into the encoder of titles.

Shapes: B batch, R regions, F features of a region, P positions, W width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bagformer_cli.config import RegionsConfig
from bagformer_cli.encoders.pooling import pooled_cells

BOX = 4


class RegionEncoder(nn.Module):
    """Regions to states: Linear, (box embedding,) LayerNorm; in place of a ``VisionEncoder``.

    An input row holds a region's F features, its box (x1, y1, x2, y2 as shares of the picture) and
    1; the rows that fill up a batch are zeros.

    Args:
        config: Width of the features, and whether boxes count.
        width: W.
    """

    has_class = False
    takes_codes = False

    def __init__(self, config: RegionsConfig, width: int) -> None:
        super().__init__()
        self.width = width
        self.features = config.width
        self.project = nn.Linear(config.width, width)
        self.box = nn.Linear(BOX, width) if config.boxes else None
        self.norm = nn.LayerNorm(width)

    def forward(self, regions: Tensor) -> Tensor:
        """[B, R, F + 5] to [B, R, W]."""
        states = self.project(regions[..., : self.features])
        if self.box is not None:
            states = states + self.box(regions[..., self.features : self.features + BOX])
        normed: Tensor = self.norm(states)
        return normed

    def mask(self, regions: Tensor) -> Tensor:
        """[B, R] bool, True where there is a region."""
        return regions[..., -1] > 0.5

    def forward_maps(self, regions: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Regions have no finer maps."""
        return self(regions), []

    def checkpoint_gradients(self) -> None:
        """Nothing here is worth recomputing."""


class IntoText(nn.Module):
    """Image states as a sequence that the encoder of titles reads: Linear, LayerNorm.

    Regions had theirs already and pass as they are.

    Args:
        width: W' of the image states; None: they are regions.
        text_width: W.
        cells: A patch grid is pooled to so many first.
    """

    def __init__(self, width: int | None, text_width: int, cells: int) -> None:
        super().__init__()
        self.cells = cells
        self.adapt: nn.Module = nn.Identity()
        if width is not None:
            self.adapt = nn.Sequential(nn.Linear(width, text_width), nn.LayerNorm(text_width))
        self.grid = width is not None

    def forward(self, states: Tensor) -> Tensor:
        """[B, P, W'] to [B, P or 1 + cells, W]."""
        if self.grid:
            cells = pooled_cells(states[:, 1:], self.cells)
            states = torch.cat([states[:, :1], cells], dim=1)
        adapted: Tensor = self.adapt(states)
        return adapted
