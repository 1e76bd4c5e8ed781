"""The result of ``xmr bench gpu``, and the times that it is compared with."""

from __future__ import annotations

from dataclasses import dataclass, field

from bagformer_cli.bench.gpu_checks import Check
from bagformer_cli.bench.gpu_training import Step


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table.

    Attributes:
        work: The measured work, with its sizes.
        name: Implementation.
        dtype: Type in which vectors are multiplied or stored.
        milliseconds: Median wall time.
        rate: 10¹² operations, or for the search 10¹² bytes of vectors read, a second.
        share: ``rate`` divided by the peak, about 0 to 1.
        target: Milliseconds that issue 16 asks for; None where it names none.
        error: Largest error relative to the largest score, against float64; None for peers.
        extra_bytes: Memory on the device besides vectors and gradients; None where not measured.
        failure: Why it could not be measured.
    """

    work: str
    name: str
    dtype: str
    milliseconds: float | None
    rate: float | None
    share: float | None
    target: float | None = None
    error: float | None = None
    extra_bytes: int | None = None
    failure: str = ""

    @property
    def shown_time(self) -> str:
        """The time and its share of the peak, or the failure."""
        if self.milliseconds is None or self.share is None:
            return self.failure
        return f"{self.milliseconds:.3g} ms  {self.share:.0%}"


@dataclass
class Report:
    """The result of a run.

    Attributes:
        machine: Card and versions.
        peaks: 10¹² operations (bytes for ``copy``) a second.
        checks: Comparisons with float64.
        rows: The table.
        steps: The table of training steps.
        tiles: Milliseconds of each entry of the kernels' tables of tiles, by kernel and entry.
    """

    machine: dict[str, str]
    peaks: dict[str, float]
    checks: list[Check]
    rows: list[Row] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    tiles: dict[str, dict[str, float]] = field(default_factory=dict)

    @property
    def correct(self) -> bool:
        """True if all checks passed."""
        return all(check.passed for check in self.checks)


TARGETS: dict[tuple[object, ...], float] = {
    ("scores", 1024, 2048, "bfloat16"): 9.0,
    ("scores", 64, 4096, "bfloat16"): 2.0,
    ("loss", 256, "bfloat16"): 3.0,
    ("loss", 1024, "bfloat16"): 35.0,
    ("loss", 256, "float32"): 4.1,
    ("loss", 1024, "float32"): 68.0,
    ("search", 1, "bfloat16"): 1.0,
    ("search", 1, "int8"): 0.55,
    ("search", 16, "bfloat16"): 1.5,
    ("search", 16, "int8"): 0.83,
}
"""Milliseconds that issue 16 asks for on an H100 or H200."""
