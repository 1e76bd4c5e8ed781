"""Mined batches: each holds images that are hard to tell apart, for a slow teacher to compare.

A cross-encoder teaches only a few candidates of each title (``distill.candidates``), because it is
slow. In a random batch few of them are similar to the title. With ``distill.mined`` every batch is
made of groups: an image and the K - 1 other images that the student finds nearest to its title, in
the whole training set (Thinking Fast and Slow, section 3.3). They are mined at the start of each
epoch.

These are not ITM's hard negatives, which are drawn within a batch
(``objectives.matching``, ``losses.matching.hard_negatives``).

Shapes: Q titles, N images, K candidates of a title, its own image among them.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from bagformer_cli.data.store.split import Split
from bagformer_cli.data.train_batches import TrainBatches
from bagformer_cli.encoders.weight_files import load_tensors, save_tensors
from bagformer_cli.evaluation.encoded_split import encode_split
from bagformer_cli.interaction.topk import topk
from bagformer_cli.models.build import RetrievalModel
from bagformer_cli.progress import SILENT, Progress
from bagformer_cli.training.distributed import Processes
from bagformer_cli.training.resume import TrainState

FILE = "mined.safetensors"
_SPARE = 8  # looked up in addition, because a title's own images are removed from the result


class BatchMiner:
    """Mines the batches of each epoch and keeps them with a run, for a resume in mid-epoch.

    Args:
        model: The student.
        batches: Its ``neighbours`` are set.
        candidates: K; None: batches stay random and nothing is done.
        processes: The main process mines for all.
        progress: Where to report.
    """

    def __init__(
        self,
        model: RetrievalModel,
        batches: TrainBatches,
        candidates: int | None,
        processes: Processes,
        progress: Progress = SILENT,
    ) -> None:
        self.model, self.batches, self.candidates = model, batches, candidates
        self.processes, self.progress = processes, progress

    def restore(self, last: Path, state: TrainState) -> None:
        """Read what :meth:`save` wrote into ``last/``, if anything."""
        if self.candidates is not None and state.mined >= 0 and (last / FILE).is_file():
            self.batches.neighbours = load_tensors(last / FILE)["neighbours"].numpy()

    def mine(self, epoch: int, state: TrainState) -> bool:
        """Mine the batches of ``epoch`` unless that was done.

        Returns:
            Whether the batches changed, so that those prepared ahead are out of date.
        """
        if self.candidates is None or state.mined == epoch:
            return False
        if self.processes.is_main:
            self.batches.neighbours = mine_neighbours(
                self.model, self.batches.split, self.candidates, self.progress
            )
        self.batches.neighbours = self.processes.broadcast_object(self.batches.neighbours)
        state.mined = epoch
        return True

    def save(self, last: Path) -> None:
        """Write the mined images into ``last/``."""
        if self.batches.neighbours is not None:
            save_tensors({"neighbours": torch.from_numpy(self.batches.neighbours)}, last / FILE)


@torch.inference_mode()
def mine_neighbours(
    model: RetrievalModel, split: Split, count: int, progress: Progress = SILENT
) -> NDArray[np.int64]:
    """Find the images nearest to each title by the model's own fast scorer, without its own images.

    Args:
        model: The student.
        split: The training split.
        count: K.
        progress: Where to report.

    Returns:
        [Q, K - 1] image positions, the nearest first. Images without any title are left out.
    """
    settings = model.config.evaluation
    images, texts = encode_split(model, split, settings.batch_size, states=False, progress=progress)
    titled = torch.from_numpy(np.unique(split.items).astype(np.int64))
    most = int(np.diff(split.item_offsets).max(initial=1))
    _, found = topk(texts.vectors, images.vectors, count - 1 + most + _SPARE, candidates=titled)
    found = found.cpu()
    own = torch.full((len(found), most), -1)  # [Q, most] each title's own images, -1: none
    for row, (begin, end) in enumerate(
        zip(split.item_offsets[:-1].tolist(), split.item_offsets[1:].tolist(), strict=True)
    ):
        own[row, : end - begin] = torch.from_numpy(split.items[begin:end])
    others = ~(found[:, :, None] == own[:, None, :]).any(dim=2)
    # A stable sort of True before False keeps the order of the scores.
    first = others.float().argsort(dim=1, descending=True, stable=True)[:, : count - 1]
    neighbours: NDArray[np.int64] = found.gather(1, first).numpy()
    return neighbours
