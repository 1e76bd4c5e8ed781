"""The result of a training, as ``xmr train`` prints it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass
class TrainResult:
    """The state of a run when training returned.

    Attributes:
        run: The run folder.
        steps: Optimizer steps done, including those before a resume.
        total_steps: Steps of the whole run.
        resumed_at: Steps that were done when this training began; 0: a new run.
        interrupted: Whether Ctrl-C or a signal stopped it before its end.
        best: Best validation mean recall, in [0, 1]; None without a validation split.
        best_step: The step of ``best``.
        seconds: Time spent in training steps, including those before a resume.
        pairs_per_second: Titles with their images trained on in a second of ``seconds``; None: no
            step was taken.
        data_wait_share: Share of ``seconds`` in which a step waited for its batch, in [0, 1].
        parameters: Numbers that are trained, and all numbers of the model.
        start: Validation mean recall before the first step, in [0, 1]; None: not measured.
        stopped_early: Whether ``training.early_stopping`` ended it.
    """

    run: Path
    steps: int
    total_steps: int
    resumed_at: int
    interrupted: bool
    best: float | None
    best_step: int | None
    seconds: float
    pairs_per_second: float | None = None
    data_wait_share: float | None = None
    parameters: tuple[int, int] = (0, 0)
    start: float | None = None
    stopped_early: bool = False
