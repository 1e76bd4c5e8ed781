"""A trained backbone's cells as pre-extracted regions, in place of a detector's.

Shapes: B batch, P patches, W width, R regions.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F

from bagformer_cli.data.batches import image_batches
from bagformer_cli.data.regions import Regions
from bagformer_cli.data.store.split import Split
from bagformer_cli.encoders.vision import VisionEncoder
from bagformer_cli.errors import InputError
from bagformer_cli.messages import tr
from bagformer_cli.models.build import RetrievalModel
from bagformer_cli.progress import SILENT, Progress

ROWS, COLUMNS = 4, 8
"""32 regions, what Inflate and Shrink keeps. The class vector is not among them: it was trained to
stand for the whole picture, a detector gives none, and one vector would have nothing to learn."""


@torch.inference_mode()
def cell_regions(
    model: RetrievalModel, split: Split, batch_size: int = 64, progress: Progress = SILENT
) -> Iterator[tuple[int, Regions]]:
    """Regions of every image of a split: 4 x 8 average-pooled cells, row by row.

    Raises:
        InputError: The model has no backbone.
    """
    vision = model.dual.vision_encoder
    if not isinstance(vision, VisionEncoder):
        raise InputError(tr("This model reads regions itself: it has no backbone to make them."))
    edges = [
        (column / COLUMNS, row / ROWS, (column + 1) / COLUMNS, (row + 1) / ROWS)
        for row in range(ROWS)
        for column in range(COLUMNS)
    ]
    boxes = np.array(edges, np.float32)
    ids = iter(split.image_ids.tolist())
    batches = image_batches(split, model.config.image.size, batch_size)
    with progress.task(tr("Regions of {split}", split=split.name), len(split.image_ids)) as task:
        for pixels in batches:
            states = vision(pixels.to(model.device))
            side = int((states.shape[1] - 1) ** 0.5)
            grid = states[:, 1:].transpose(1, 2).unflatten(2, (side, -1))
            cells = F.adaptive_avg_pool2d(grid, (ROWS, COLUMNS)).flatten(2).transpose(1, 2)
            rows = cells.float().cpu().numpy()
            for row in rows:
                yield next(ids), Regions(row, boxes)
            task.advance(len(rows))
