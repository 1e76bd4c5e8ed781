"""The run's record: ``metrics.jsonl`` (the truth) and TensorBoard (a view of it)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from bagformer_cli.files import write_text

FILE = "metrics.jsonl"


class MetricsLog:
    """Appends one JSON object a line; each has ``step`` and ``kind`` (``train`` or ``valid``).

    Args:
        folder: The run folder.
        step: Go on after this step: lines of later steps, which a killed run may have left,
            are dropped, since they will be written again.
    """

    def __init__(self, folder: Path, step: int = 0) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._path = folder / FILE
        if self._path.exists():
            write_text(self._path, "".join(f"{line}\n" for line in _kept(self._path, step)))
        self._stream = self._path.open("a", encoding="utf-8")
        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)

    def write(self, kind: str, step: int, values: Mapping[str, Any]) -> None:
        """Record figures of a step."""
        self._stream.write(json.dumps({"step": step, "kind": kind, **values}) + "\n")
        self._stream.flush()
        for name, value in _flat(values):
            self._board.add_scalar(f"{kind}/{name}", value, step)

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


class NoLog(MetricsLog):
    """For a process that is not the first of its run: keeps no record."""

    def __init__(self) -> None:
        pass

    def write(self, kind: str, step: int, values: Mapping[str, Any]) -> None:
        """Nothing."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        pass


def read_metrics(folder: str | Path, kind: str | None = None) -> list[dict[str, Any]]:
    """The records of a run folder, in order; only those of ``kind`` if given."""
    path = Path(folder) / FILE
    records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [record for record in records if kind in (None, record["kind"])]


def _kept(path: Path, step: int) -> list[str]:
    """The lines up to ``step``; a last line that was cut off goes as well."""
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line)
        except (ValueError, KeyError):
            continue
    return kept


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, float]]:
    """Nested figures as (path, number)."""
    rows: list[tuple[str, float]] = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            rows += _flat(value, f"{prefix}{name}/")
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            rows.append((f"{prefix}{name}", float(value)))
    return rows
