"""The teacher: a frozen model, one scorer of which gives the score matrix that a student learns.

``objectives.distillation`` compares that matrix with the student's.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from bagformer_cli.config import RunConfig, load_config
from bagformer_cli.data.batches import Batch
from bagformer_cli.encoders.backbone import own_size
from bagformer_cli.errors import CheckpointError, ConfigError
from bagformer_cli.messages import tr
from bagformer_cli.models.build import RetrievalModel
from bagformer_cli.models.checkpoint import check_model_folder, load_model, trained_in
from bagformer_cli.models.dual import Encoded
from bagformer_cli.models.runs import find_checkpoint
from bagformer_cli.models.scorers import ScoreMatrix, Scorer, own_scorer, score_matrix
from bagformer_cli.models.trained import trained_scorers
from bagformer_cli.text.tokenizer import Tokenizer


class Teacher:
    """A frozen model and the scorer that is distilled.

    It is not a ``Module``, so that no ``train()``, optimizer or checkpoint of the student reaches
    its weights.

    Args:
        model: The model; it is set to evaluation mode and its weights are frozen.
        scorer: The scorer that teaches.
    """

    def __init__(self, model: RetrievalModel, scorer: Scorer) -> None:
        self.model = model.eval().requires_grad_(False)
        self.scorer = scorer

    @classmethod
    def load(cls, config: RunConfig, device: torch.device) -> Teacher | None:
        """Load the teacher that a configuration names.

        Returns:
            None without distillation, or if the model's own late interaction teaches.

        Raises:
            CheckpointError: The teacher's folder cannot be read.
        """
        distill = config.distill
        if distill is None or distill.teacher is None or not distill.weight:
            return None
        model = load_model(find_checkpoint(distill.teacher), device)
        scorer: Scorer = "slow" if distill.scorer == "slow" else own_scorer(model.config)
        return cls(model, scorer)

    @torch.no_grad()
    def encode(self, batch: Batch) -> tuple[Encoded, Encoded]:
        """Encode titles and images, with encoder states if the cross-encoder teaches."""
        slow = self.scorer == "slow"
        return (
            self.model.encode_texts(batch.text, states=slow),
            self.model.encode_images(batch.pixels(), states=slow),
        )

    @torch.no_grad()
    def scores(self, texts: Encoded, images: Encoded, known: Tensor | None) -> ScoreMatrix:
        """Score encoded titles and images; the cross-encoder scores the ``known`` pairs only."""
        return score_matrix(self.model, self.scorer, texts, images, known)


@dataclass(frozen=True)
class ModelFacts:
    """Facts about a model that need no weights; it may not be trained yet.

    Attributes:
        config: Its configuration.
        trained: The scorers that are trained.
        vocabulary: The word pieces of its tokenizer.
    """

    config: RunConfig
    trained: frozenset[str]
    vocabulary: tuple[str, ...]

    @classmethod
    def of(cls, folder: Path) -> ModelFacts:
        """Read a model folder.

        Raises:
            CheckpointError: It is no model folder.
        """
        check_model_folder(folder)
        config = load_config(folder / "config.yaml")
        vocabulary = Tokenizer.load(folder / "vocab.txt").vocabulary
        return cls(config, trained_in(folder, config), vocabulary)

    @classmethod
    def after(cls, config: RunConfig, before: ModelFacts | None) -> ModelFacts:
        """Return those of the model that a run will train.

        Args:
            config: The run's configuration.
            before: The model whose weights it starts from; None: none.
        """
        trained = trained_scorers(config)
        if before is not None:
            trained |= inherited_scorers(config, before.config, before.trained)
        return cls(config, trained, tuple(Tokenizer.load(config.text.vocabulary).vocabulary))


def inherited_scorers(
    config: RunConfig, theirs: RunConfig, trained: frozenset[str]
) -> frozenset[str]:
    """Name the scorers that a run takes over from its checkpoint as they are.

    With frozen towers and projections these are the checkpoint's vectors, unless a new head makes
    the single vector; and its cross-encoder, which still reads the states it was trained on.
    """
    if not config.model.freeze_towers:
        return frozenset()
    found = {"late"} if config.model.head is not None else {"late", "cls"}
    if theirs.model.cross is not None and config.model.cross == theirs.model.cross:
        found |= {"slow"}
    return trained & found


def check_teacher(config: RunConfig, teacher: ModelFacts | None = None) -> None:
    """Check the teacher of a configuration without loading its weights.

    Args:
        config: The student's configuration.
        teacher: The model that ``distill.teacher`` will hold when the run starts; None: it is
            there now.

    Raises:
        ConfigError: A teacher is needed and none is named.
        CheckpointError: It is no model folder, or its inputs or vocabulary differ from the
            student's.
    """
    distill = config.distill
    if distill is None or not distill.weight:
        return
    if distill.teacher is None:
        if config.model.alignment is None:
            raise ConfigError(
                tr("Distillation needs a teacher model."),
                where="distill.teacher",
                hint=tr("Pass a trained model: --teacher runs/NAME/best"),
            )
        return
    folder = find_checkpoint(distill.teacher)
    wrong = _unsuitable(config, teacher or ModelFacts.of(folder))
    if wrong is not None:
        found, expected = wrong
        raise CheckpointError(
            tr("This model cannot be the teacher of this student."),
            where=folder,
            found=found,
            expected=expected,
        )


def _unsuitable(student: RunConfig, facts: ModelFacts) -> tuple[str, str] | None:
    """Return what the teacher has and what it should have; None if it is suitable."""
    assert student.distill is not None
    teacher = facts.config
    # Both read the same batch of token ids and pixels, so sizes and vocabulary must be equal.
    if student.distill.scorer == "slow" and "slow" not in facts.trained:
        return (
            tr("no trained cross-encoder"),
            tr("a model with a trained cross-encoder (distill.scorer: slow)"),
        )
    if student.image.regions != teacher.image.regions:
        return (
            f"image.regions: {teacher.image.regions}",
            f"image.regions: {student.image.regions}",
        )
    size = student.image.size or own_size(student.image.backbone)
    if student.image.regions is None and size != teacher.image.size:
        return f"image.size: {teacher.image.size}", f"image.size: {size}"
    for name in ("max_tokens", "add_sep"):
        own, theirs = getattr(student.text, name), getattr(teacher.text, name)
        if own != theirs:
            return f"text.{name}: {theirs}", f"text.{name}: {own}"
    if facts.vocabulary != tuple(Tokenizer.load(student.text.vocabulary).vocabulary):
        return tr("another vocabulary"), f"text.tokenizer: {student.text.tokenizer}"
    return None
