"""One encoded batch: the only argument of every objective's ``loss``.

Shapes: B images and Q titles of this process, N images of all processes (N = B on one process).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor

from bagformer_cli.config import RunConfig
from bagformer_cli.data.batches import Batch
from bagformer_cli.data.positives import Positives
from bagformer_cli.encoders.states import States
from bagformer_cli.models.build import RetrievalModel
from bagformer_cli.models.dual import Encoded
from bagformer_cli.models.momentum import MomentumEncoder
from bagformer_cli.models.scorers import ScoreMatrix, Scorer, score_matrix
from bagformer_cli.training.distributed import SINGLE_PROCESS, Processes
from bagformer_cli.training.teacher import Teacher
from bagformer_cli.transfer import to_device

Figure = float | Tensor
"""A number for the log; a scalar tensor is not read before it is needed."""


@dataclass
class Context:
    """The part of an objective's input that stays the same over a run.

    Attributes:
        model: The model that is trained.
        config: The run's configuration.
        teacher: Frozen model whose scores are distilled; None: no outside teacher.
        positives: Decides which titles and images match, also beyond one process's batch. None is
            enough on one process without a momentum queue: a batch brings its own matrix.
        processes: The processes that share each batch.
        score: Scores titles against images; a benchmark replaces it.
    """

    model: RetrievalModel
    config: RunConfig
    teacher: Teacher | None = None
    positives: Positives | None = None
    processes: Processes = SINGLE_PROCESS
    score: Callable[[RetrievalModel, Scorer, Encoded, Encoded], ScoreMatrix] = score_matrix

    @cached_property
    def momentum(self) -> MomentumEncoder | None:
        """The momentum encoder; None: the configuration has none.

        Made on first use, so that memory can be checked before.
        """
        settings = self.config.objectives.momentum
        return None if settings is None else MomentumEncoder(self.model, settings.rate)


@dataclass
class EncodedBatch:
    """A batch of this process, or a chunk of it, encoded.

    Attributes:
        context: The run.
        batch: The titles and images before encoding, of the whole batch or of the chunk.
        texts: [Q] encoded titles.
        images: [B] encoded images.
        epoch: Epochs done, with a fraction during an epoch.
        momentum: The same titles and images by the momentum encoder; None: no active objective
            uses it.
        start: Position of the chunk's first image in the batch.
        batch_size: Images of the whole batch of this process; ``len(batch)`` unless it is a chunk.
        report: Figures to log next to the losses; objectives add to it. A tensor of the device is
            read only when the log is written.
    """

    context: Context
    batch: Batch
    texts: Encoded
    images: Encoded
    epoch: float
    momentum: tuple[Encoded, Encoded] | None = None
    start: int = 0
    batch_size: int = 0
    report: dict[str, Figure] = field(default_factory=dict)
    _matrices: dict[Scorer, ScoreMatrix] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self.batch_size = self.batch_size or len(self.batch)

    @property
    def share(self) -> float:
        """Images of this chunk divided by those of the whole batch; 1.0 for a whole batch.

        Losses of chunks are added up, so a mean over a chunk must be multiplied by its share.
        """
        return len(self.batch) / self.batch_size

    @property
    def soft_target_weight(self) -> float:
        """Weight α of the momentum encoder's soft targets: rises to its value over one epoch."""
        settings = self.context.config.objectives.momentum
        return 0.0 if settings is None else settings.alpha * min(1.0, self.epoch)

    def scores(self, scorer: Scorer) -> ScoreMatrix:
        """Score the titles of all processes against the images of all processes.

        Computed on the first call and kept: two objectives on one scorer share it.
        """
        if scorer not in self._matrices:
            context = self.context
            rows = context.score(context.model, scorer, self.texts, self._all_images)
            self._matrices[scorer] = gather_rows(context.processes, rows)
        return self._matrices[scorer]

    @cached_property
    def _all_images(self) -> Encoded:
        return gather_images(self.context.processes, self.images)

    @cached_property
    def positives_on_device(self) -> Tensor:
        """Copy of :meth:`positives` on the device of the vectors."""
        return to_device(self.positives, self.texts.cls.device)

    @cached_property
    def positives(self) -> Tensor:
        """Pairs of :meth:`scores` that match: [Q, N] bool on the host, titles of all processes."""
        processes = self.context.processes
        if processes.world_size == 1:
            return self.own_positives()
        if self.context.config.objectives.share_positives:
            # Equal titles may be on different processes: decide again from the gathered groups.
            gather = processes.all_gather
            return self.match(gather(self.batch.text_groups), gather(self.batch.image_groups))
        return processes.all_gather(self.own_pairs())

    def own_positives(self) -> Tensor:
        """Say which pairs of this process's titles and images match: [Q, B] bool, on the host."""
        if self.context.config.objectives.share_positives:
            return self.batch.positives
        images = torch.arange(len(self.batch))
        return self.batch.own[:, None] == images

    def own_pairs(self) -> Tensor:
        """Mark each title's own image among the images of all processes: [Q, N] bool, host."""
        batch, processes = self.batch, self.context.processes
        columns = torch.arange(len(batch) * processes.world_size)
        return (batch.own[:, None] + processes.rank * len(batch)) == columns

    def match(self, text_groups: Tensor, image_groups: Tensor) -> Tensor:
        """Say which of any titles [Q] and images [N] match, by their groups: [Q, N] bool, host."""
        assert self.context.positives is not None, "Context.positives is needed here"
        found = self.context.positives.matrix(text_groups.numpy(), image_groups.numpy())
        return torch.from_numpy(found)


def gather_images(processes: Processes, images: Encoded, *, states: bool = False) -> Encoded:
    """Concatenate the images of all processes, so that each scores its own titles with them.

    Args:
        processes: The processes.
        images: The images of this process.
        states: Gather what the cross-encoder reads as well; it is much larger than the vectors.
    """
    if processes.world_size == 1:
        return images
    gather = processes.all_gather
    mask = images.states.mask
    if states:
        gathered = States(gather(images.states.values), None if mask is None else gather(mask))
    else:
        gathered = images.states
    return replace(
        images,
        cls=gather(images.cls),
        late=None if images.late is None else processes.all_gather_vectors(images.late),
        states=gathered,
        maps=[],
        features=None,
    )


def gather_rows(processes: Processes, rows: ScoreMatrix) -> ScoreMatrix:
    """Concatenate the score matrices of all processes, each of which has its own titles' rows."""
    if processes.world_size == 1:
        return rows
    gather = processes.all_gather
    known = None if rows.known is None else gather(rows.known)
    # The i2t matrix has the titles in its columns: gather its transpose.
    return ScoreMatrix(gather(rows.t2i), gather(rows.i2t.T.contiguous()).T, known)
