"""The record of a run: ``metrics.jsonl``, and TensorBoard files made from the same figures.

``metrics.jsonl`` has one JSON object per line, ``{"step": 20, "kind": "train", "loss": 3.1, …}``.
``kind`` is ``train`` (means over the steps since the previous ``train`` line) or ``valid``
(recall). The ``valid`` line of step 0 is the recall before training; ``above_start`` of the later
ones is the difference from it in mean recall, text to image, in percentage points. The object
``chance`` of a ``train`` line holds the random-guess losses; ``samples_per_second`` counts images,
``pairs_per_second`` titles with their images, ``data_wait_share`` is the share of the time in which
a step waited for its batch, ``memory_mb`` the most memory used so far (of the GPU, if there is
one).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from bagformer_cli.files import write_text
from bagformer_cli.messages import tr
from bagformer_cli.training.run_loggers import RunLogger, figures_for_loggers

FILE = "metrics.jsonl"
SPEED = ("samples_per_second", "pairs_per_second", "data_wait_share", "memory_mb", "seconds")
LOSS_NAMES = {
    "itc_loss": "ITC",
    "late_interaction_loss": tr("late interaction"),
    "itm_loss": "ITM",
    "mlm_loss": "MLM",
    "mfm_loss": "MFM",
    "caption_loss": tr("captioning"),
    "distill_loss": tr("distillation"),
}
"""Names of the losses for people; ``metrics.jsonl`` has the keys."""


class MetricsLog:
    """A context manager that appends figures to the record of a run.

    Args:
        folder: The run folder.
        step: The step that a resumed run continues from; -1: it starts from the beginning. Lines
            of later steps, which a killed run may have written after its last save, are removed:
            the run will write them again.
        loggers: Further receivers of the figures; closed at the end.
    """

    def __init__(self, folder: Path, step: int = -1, loggers: Sequence[RunLogger] = ()) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._loggers = loggers
        self._path = folder / FILE
        if self._path.exists():
            lines = _lines_up_to(self._path, step)
            write_text(self._path, "".join(f"{line}\n" for line in lines))
        self._stream = self._path.open("a", encoding="utf-8")
        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)

    def write(self, kind: str, step: int, values: Mapping[str, Any]) -> None:
        """Append the figures of a step."""
        self._stream.write(json.dumps({"step": step, "kind": kind, **values}) + "\n")
        self._stream.flush()
        for name, value in board_scalars(kind, values):
            self._board.add_scalar(name, value, step)
        for logger in self._loggers:
            logger.write(figures_for_loggers(kind, values), step)

    def __enter__(self) -> MetricsLog:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stream.close()
        self._board.close()
        for logger in self._loggers:
            logger.close(failed=error is not None)


class NoLog(MetricsLog):
    """A log that writes nothing, for processes other than the main process."""

    def __init__(self) -> None:
        pass

    def write(self, kind: str, step: int, values: Mapping[str, Any]) -> None:
        """Do nothing."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        pass


def read_metrics(folder: str | Path, kind: str | None = None) -> list[dict[str, Any]]:
    """Read the lines of a run folder's ``metrics.jsonl``.

    Args:
        folder: The run folder.
        kind: ``train`` or ``valid``; None: all lines.
    """
    path = Path(folder) / FILE
    records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [record for record in records if kind in (None, record["kind"])]


def _lines_up_to(path: Path, step: int) -> list[str]:
    """Read the lines up to ``step``, without a last line that was cut off."""
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line)
        except (ValueError, KeyError):
            continue
    return kept


def board_scalars(kind: str, values: Mapping[str, Any]) -> list[tuple[str, float]]:
    """Name the figures of a line for TensorBoard, which sorts its cards by name.

    Recall comes first, then losses, then speed. Constants (random-guess losses, weights, sizes of
    the split) have no card.

    >>> board_scalars("train", {"loss": 3.1, "itm_loss_weight": 0.5, "memory_mb": 900})
    [('2_loss/loss', 3.1), ('3_speed/memory_mb', 900.0)]
    """
    if kind == "valid":
        recall = _flat(values.get("stages", {}))
        recall += [(name, values[name]) for name in ("above_start",) if name in values]
        return [(f"1_recall/{name.replace('/', '_')}", value) for name, value in recall]
    found = []
    for name, value in _flat({k: v for k, v in values.items() if k != "chance"}):
        if name.endswith("_weight"):
            continue
        group = "2_loss" if name.endswith("loss") else "4_details"
        if name in SPEED:
            group = "3_speed"
        found.append((f"{group}/{name}", value))
    return found


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, float]]:
    """Return nested figures as (path, number)."""
    rows: list[tuple[str, float]] = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            rows += _flat(value, f"{prefix}{name}/")
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            rows.append((f"{prefix}{name}", float(value)))
    return rows
