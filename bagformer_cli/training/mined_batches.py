"""Mined batches: each holds images that are hard to tell apart, for a slow teacher to compare.

A cross-encoder teaches only a few candidates of each title (``distill.candidates``), because it is
slow. In a random batch few of them are similar to the title. With ``distill.mined`` every batch is
made of groups: an image and the K - 1 other images that the student finds nearest to its title, in
the whole training set (Thinking Fast and Slow, section 3.3). They are mined at the start of each
epoch.

The images are those of ``training.hard_negatives``, without a margin. These are not ITM's hard
negatives, which are drawn within a batch (``objectives.matching``,
``losses.matching.hard_negatives``).
"""

from __future__ import annotations

from pathlib import Path

import torch

from bagformer_cli.data.train_batches import TrainBatches
from bagformer_cli.encoders.weight_files import load_tensors, save_tensors
from bagformer_cli.models.build import RetrievalModel
from bagformer_cli.progress import SILENT, Progress
from bagformer_cli.training.distributed import Processes
from bagformer_cli.training.hard_negatives import mine
from bagformer_cli.training.resume import TrainState

FILE = "mined.safetensors"


class BatchMiner:
    """Mines the batches of each epoch and keeps them with a run, for a resume in mid-epoch.

    Args:
        model: The student.
        batches: Its ``neighbours`` are set.
        candidates: K, at least 2 to mine anything; None: batches stay as they are.
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
            found = mine(
                self.model, self.batches.split, self.candidates - 1, progress=self.progress
            )
            self.batches.neighbours = found.positions
        self.batches.neighbours = self.processes.broadcast_object(self.batches.neighbours)
        state.mined = epoch
        return True

    def save(self, last: Path) -> None:
        """Write the mined images into ``last/``."""
        if self.candidates is not None and self.batches.neighbours is not None:
            save_tensors({"neighbours": torch.from_numpy(self.batches.neighbours)}, last / FILE)
