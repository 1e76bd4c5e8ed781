"""A progress display that keeps what it is told."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from bagformer_cli.progress import SILENT, Task


@dataclass
class Remarks:
    """Shows nothing; ``warnings`` and ``notes`` hold what was said, in order."""

    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def warn(self, message: str) -> None:
        self.warnings.append(message)

    def info(self, message: str) -> None:
        self.notes.append(message)

    def task(
        self, description: str, total: int | None = None, amount: str = "{n}"
    ) -> AbstractContextManager[Task]:
        return SILENT.task(description, total, amount)
