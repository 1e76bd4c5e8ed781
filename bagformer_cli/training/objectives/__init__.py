"""Training objectives: one file each. ``base.py`` says what an objective is and how to add one."""

from bagformer_cli.training.encoded_batch import Context
from bagformer_cli.training.objectives.base import MatrixObjective, Objective, PairObjective
from bagformer_cli.training.objectives.captioning import CaptioningObjective
from bagformer_cli.training.objectives.contrastive import ContrastiveObjective
from bagformer_cli.training.objectives.distillation import DistillationObjective
from bagformer_cli.training.objectives.masked import MaskedPatchObjective, MaskedTokenObjective
from bagformer_cli.training.objectives.matching import MatchingObjective

OBJECTIVES: tuple[type[Objective], ...] = (
    ContrastiveObjective,
    MatchingObjective,
    MaskedTokenObjective,
    MaskedPatchObjective,
    CaptioningObjective,
    DistillationObjective,
)
"""Every objective. Their order is the order of the log and of ``objectives.task_sampling: one``."""


def build_objectives(context: Context) -> list[Objective]:
    """Return the objectives that the configuration trains (weight above 0)."""
    return [objective for kind in OBJECTIVES for objective in kind.build(context)]


__all__ = ["OBJECTIVES", "MatrixObjective", "Objective", "PairObjective", "build_objectives"]
