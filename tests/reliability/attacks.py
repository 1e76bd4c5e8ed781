"""The table "attack | tries | survived": which test belongs to which attack, and the counting.

A test is one try of the attack that its name begins with (``test_f08_…``), or as many as it counts
with the fixture ``count``. A test that fails adds a try that was not survived.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from typing import Any

import pytest

SECTIONS = {
    1: "Files of strangers",
    2: "Kills, power cuts, full disks",
    3: "Several processes",
    4: "Containers and services",
    5: "Proportionate answers",
}
ATTACKS: dict[str, tuple[int, str]] = {
    "f01": (2, "resume compared with the run that never stopped"),
    "f02": (1, "options and models that load code or other files"),
    "f03": (1, "names and links in an index that lead out of its folder"),
    "f04": (3, "five first commands at once"),
    "f05": (2, "the first drawing of the demo interrupted"),
    "f06": (2, "fsync of what an index write acknowledges"),
    "f07": (4, "no user name, no HOME, nothing that can be written"),
    "f08": (1, "pipes, devices, links and paths out of --root"),
    "f09": (5, "odd names and characters"),
    "f10": (5, "images broken inside"),
    "f11": (1, "image formats that start programs"),
    "f12": (1, "control characters for the terminal"),
    "f13": (2, "temporary files of dead processes"),
    "f14": (2, "full disk, limit of file sizes"),
    "f15": (4, "an output folder that is a mount"),
    "f16": (2, "outputs on devices, links and inputs"),
    "f17": (2, "damaged derived data"),
    "f18": (3, "several trainings in one folder"),
    "f19": (5, "training that diverges"),
    "f20": (5, "lone quotes, huge cells"),
    "f21": (5, "'damaged' said of what is not"),
    "f22": (1, "configuration files that grow, nest or load"),
    "f23": (1, "filters that grow, nest or leave their brackets"),
    "f24": (5, "blank lines, lines of 300 MB, titles of a million characters"),
    "f25": (1, "arrays that lie"),
    "f26": (3, "searches during writes"),
    "f27": (3, "builds on object storage killed"),
    "f28": (4, "extreme options, killed workers"),
    "f29": (2, "SIGTERM and SIGHUP during training"),
    "f30": (5, "numbers, types and shapes out of range"),
    "unpacks": (1, "workbooks that unpack to more than memory or disk"),
    "vectors": (1, "files of vectors that lie"),
    "exports": (1, "exported models that load files, loop or lie"),
    "learned": (1, "learned boundaries that lie"),
    "negatives": (1, "files of hard negatives that lie"),
    "uploads": (1, "folders to upload with links to other files"),
    "kill": (2, "kill -9"),
    "stop": (2, "SIGTERM and SIGHUP in commands that write"),
    "writers": (3, "add, remove, build and search at once"),
    "fuzz": (1, "fuzz"),
    "soak": (3, "30 s of searches, memory and results"),
}
"""Section and description by the first word of a test's name."""

Count = tuple[str, int, int]
"""Details that follow the description, tries, survived."""


def attack_of(name: str) -> str | None:
    """Return the key of ``ATTACKS`` for the name of a test; None: it is no attack.

    >>> attack_of("test_f08_a_cell_that_names_no_regular_file[fifo]"), attack_of("test_rows")
    ('f08', None)
    """
    words = re.match(r"test_([a-z]+\d*)_", name)
    return words[1] if words and words[1] in ATTACKS else None


class Table:
    """A pytest plugin that counts attacks and prints the table at the end."""

    def __init__(self) -> None:
        self.tries: Counter[tuple[str, str]] = Counter()
        self.survived: Counter[tuple[str, str]] = Counter()
        self.skipped: Counter[str] = Counter()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count a test when it was called, or when its preparation failed."""
        path, _, name = report.nodeid.partition("::")
        attack = attack_of(name) if "reliability" in path else None
        if attack is None or (report.when != "call" and report.outcome == "passed"):
            return
        if report.outcome == "skipped":
            self.skipped[attack] += 1
            return
        counts = [value for key, value in report.user_properties if key == "attack"]
        if report.outcome == "failed":
            counts.append(("", 1, 0))
        for detail, tries, survived in counts or [("", 1, 1)]:
            self.tries[attack, detail] += tries
            self.survived[attack, detail] += survived

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Print the table."""
        if self.tries:
            terminalreporter.section("attacks")
            terminalreporter.write_line("\n".join(self.lines()))

    def lines(self) -> list[str]:
        """Return the table as lines of Markdown."""
        found = ["| attack | tries | survived |", "|---|---|---|"]
        for section, title in SECTIONS.items():
            rows = list(self._rows(section))
            if rows:
                found += [f"| **{section}. {title}** | | |", *rows]
        if self.skipped:
            left = ", ".join(f"{key} {n}" for key, n in sorted(self.skipped.items()))
            found += ["", f"Not tried here (skipped, with a reason: pytest -rs): {left}"]
        return found

    def _rows(self, section: int) -> Iterable[str]:
        for attack, (place, text) in ATTACKS.items():
            for key, detail in sorted(self.tries):
                if key != attack or place != section:
                    continue
                name = f"{attack.upper()}: " if attack[1:].isdigit() else ""
                more = f": {detail}" if detail else ""
                yield (
                    f"| {name}{text}{more} | {self.tries[key, detail]:,} "
                    f"| {self.survived[key, detail]:,} |"
                )
