"""Mining: for each training title, the images that the student finds nearest.

A batch made of a title's own image and its nearest others is the subset on which a slow teacher and
its student are compared (Thinking Fast and Slow, section 3.3).

Shapes: Q titles, N images, K candidates of a title, its own image among them.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from bagformer_cli.data.store.split import Split
from bagformer_cli.evaluation.evaluate import encode_split
from bagformer_cli.interaction.topk import topk
from bagformer_cli.models.build import RetrievalModel
from bagformer_cli.progress import SILENT, Progress

SPARE = 8
"""How many more are looked up, since a title's own images are among the nearest."""


@torch.inference_mode()
def mine_neighbours(
    model: RetrievalModel, split: Split, count: int, progress: Progress = SILENT
) -> NDArray[np.int64]:
    """The images nearest to each title by the model's own fast score, without its own.

    Args:
        model: The student as it is now.
        split: The training split.
        count: K.
        progress: Where to report.

    Returns:
        [Q, K - 1] image positions, the nearest first. Only images that have a title are named.
    """
    settings = model.config.evaluation
    images, texts = encode_split(model, split, settings.batch_size, states=False, progress=progress)
    titled = torch.from_numpy(np.unique(split.items).astype(np.int64))
    most = int(np.diff(split.item_offsets).max(initial=1))
    _, found = topk(texts.vectors, images.vectors, count - 1 + most + SPARE, chosen=titled)
    found = found.cpu()
    own = torch.full((len(found), most), -1)
    for row, (begin, end) in enumerate(
        zip(split.item_offsets[:-1].tolist(), split.item_offsets[1:].tolist(), strict=True)
    ):
        own[row, : end - begin] = torch.from_numpy(split.items[begin:end])
    others = ~(found[:, :, None] == own[:, None, :]).any(dim=2)
    first = others.float().argsort(dim=1, descending=True, stable=True)[:, : count - 1]
    neighbours: NDArray[np.int64] = found.gather(1, first).numpy()
    return neighbours
