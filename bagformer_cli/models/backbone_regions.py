"""Regions from the patch grid of a trained image encoder, in place of a detector's regions.

Shapes: B batch, P patches, W width, R regions.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from bagformer_cli.data.batches import image_batches
from bagformer_cli.data.regions import Regions
from bagformer_cli.data.store.split import Split
from bagformer_cli.encoders.pooling import grid_shape, pool_grid
from bagformer_cli.encoders.vision import VisionEncoder
from bagformer_cli.errors import InputError
from bagformer_cli.messages import tr
from bagformer_cli.models.build import RetrievalModel
from bagformer_cli.progress import SILENT, Progress

REGIONS = 32
"""Cells of the pooled grid, 4 × 8: as many as Inflate and Shrink keeps. The class vector is left
out: a detector has none, and a vector trained to stand for the whole image would leave a student
nothing to learn."""


@torch.inference_mode()
def grid_regions(
    model: RetrievalModel, split: Split, batch_size: int = 64, progress: Progress = SILENT
) -> Iterator[tuple[int, Regions]]:
    """Make regions of every image of a split: its average-pooled grid cells, row by row.

    Args:
        model: The model whose image encoder is used.
        split: The split.
        batch_size: Images per forward pass.
        progress: Where progress is reported.

    Yields:
        Image id and its regions, whose boxes are the cells.

    Raises:
        InputError: The model reads regions and has no image encoder.
    """
    vision = model.dual.vision_encoder
    if not isinstance(vision, VisionEncoder):
        raise InputError(tr("This model reads regions and has no image encoder to make them."))
    ids = iter(split.image_ids.tolist())
    size = model.config.image.size
    batches = image_batches(split, size, batch_size, as_original=model.as_original)
    with progress.task(
        tr("Regions of {split}", split=split.name), len(split.image_ids), tr("{n} images", n="{n}")
    ) as task:
        for pixels in batches:
            states = vision(pixels.to(model.device))
            cells = pool_grid(states[:, 1:], REGIONS).float().cpu().numpy()
            boxes = _boxes(cells.shape[1])
            for features in cells:
                yield next(ids), Regions(features, boxes)
            task.advance(len(cells))


def _boxes(cells: int) -> np.ndarray:
    """Return the box (x1, y1, x2, y2, each 0 to 1) of each cell, row by row: [R, 4]."""
    rows, columns = grid_shape(cells)
    edges = [
        (column / columns, row / rows, (column + 1) / columns, (row + 1) / rows)
        for row in range(rows)
        for column in range(columns)
    ]
    return np.array(edges, np.float32)
