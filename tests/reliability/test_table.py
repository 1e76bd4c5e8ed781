"""The table of attacks counts what ran, and the page names tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.reliability.attacks import ATTACKS, Table, attack_of

FOLDER = Path(__file__).parent
PAGE = FOLDER.parents[1] / "docs/reliability.md"


def names_of_tests() -> set[str]:
    return {
        name
        for file in FOLDER.glob("test_*.py")
        for name in re.findall(r"^def (test_\w+)", file.read_text("utf-8"), re.MULTILINE)
    }


def test_every_finding_has_a_test_and_every_row_too() -> None:
    attacked = {attack_of(name) for name in names_of_tests()}
    assert {f"f{n:02}" for n in range(1, 31)} <= attacked
    assert set(ATTACKS) <= attacked


def test_the_page_lists_every_finding_and_names_attacks_that_exist() -> None:
    text = PAGE.read_text("utf-8")
    assert re.findall(r"^\| F(\d+) ", text, re.MULTILINE) == [str(n) for n in range(1, 31)]
    selected = re.findall(r"`-k \"?([^`\"]+)\"?`", text)
    names = names_of_tests()
    for key in {word for one in selected for word in one.split(" or ")} - {"NAME"}:
        assert any(key in name for name in names), key


def report(name: str, outcome: str, *counts: tuple[str, int, int]) -> pytest.TestReport:
    return pytest.TestReport(
        nodeid=f"tests/reliability/test_x.py::{name}", location=("", 0, ""), keywords={},
        outcome=outcome, longrepr=None, when="call",  # type: ignore[arg-type]
        user_properties=[("attack", one) for one in counts],
    )  # fmt: skip


def test_the_table_counts_tries_and_what_was_survived() -> None:
    table = Table()
    for one in (
        report("test_f08_a[1]", "passed"),
        report("test_f08_a[2]", "failed"),
        report("test_f08_b", "skipped"),
        report("test_kill_x[index add]", "passed", ("index add", 20, 20)),
        report("test_fuzz_y[JSONL]", "failed", ("JSONL", 5000, 4999)),
        report("test_other", "failed"),
    ):
        table.pytest_runtest_logreport(one)
    assert table.lines() == [
        "| attack | tries | survived |",
        "|---|---|---|",
        "| **1. Files of strangers** | | |",
        "| F08: pipes, devices, links and paths out of --root | 2 | 1 |",
        "| fuzz | 1 | 0 |",
        "| fuzz: JSONL | 5,000 | 4,999 |",
        "| **2. Kills, power cuts, full disks** | | |",
        "| kill -9: index add | 20 | 20 |",
        "",
        "Not tried here (skipped, with a reason: pytest -rs): f08 1",
    ]
