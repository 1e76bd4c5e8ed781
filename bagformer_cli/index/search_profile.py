"""The record of a search, for ``xmr search --profile``: its stages, and how long each took."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class SearchProfile:
    """The stages of one search; for several queries, those of all together.

    Attributes:
        plan: For each stage its name (``stage``), how it was done (``method``) and on how much
            (``note``), in the order in which they ended.
        seconds: Wall time by stage, and by step of a stage (``recall.scan``).
    """

    def __init__(self) -> None:
        self.plan: list[dict[str, Any]] = []
        self.seconds: dict[str, float] = {}

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Measure the time of a stage; a stage that runs twice has the sum."""
        start = time.perf_counter()
        yield
        self.add_seconds(name, time.perf_counter() - start)

    def add_seconds(self, name: str, seconds: float) -> None:
        """Add the time of a stage or a step."""
        self.seconds[name] = self.seconds.get(name, 0.0) + seconds

    def add(self, stage: str, method: str, note: str) -> None:
        """Add a stage to the plan."""
        self.plan.append({"stage": stage, "method": method, "note": note})

    def rounded_seconds(self) -> dict[str, float]:
        """Return the times in whole microseconds."""
        return {name: round(value, 6) for name, value in self.seconds.items()}
