"""Output: tables, bags and JSON on stdout; progress and warnings on stderr."""

from __future__ import annotations

import io
import json
import re
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from bagformer_cli.cli import bars, console
from bagformer_cli.cli.formatting import duration
from bagformer_cli.cli.views import show_bag_legend, show_bags, show_recall
from bagformer_cli.wrapping import display_width, wrap


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    console.reset()
    monkeypatch.setattr(bars, "MIN_SECONDS", 0.0)


class Terminal(io.StringIO):
    """A stream that claims to be a terminal."""

    def isatty(self) -> bool:
        return True


def _terminal(monkeypatch: pytest.MonkeyPatch, name: str) -> Terminal:
    """Make ``sys.stdout`` or ``sys.stderr`` a terminal of 100 columns."""
    stream = Terminal()
    monkeypatch.setattr(sys, name, stream)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.delenv("NO_COLOR", raising=False)
    return stream


@dataclass
class Point:
    x: float
    path: Path


Out = pytest.CaptureFixture[str]


def test_json_converts_arrays_paths_dataclasses_and_nan(capsys: Out) -> None:
    console.print_json(
        {
            "题": np.array([[1, 2]], dtype=np.int64),
            "float32": np.float32(0.5),
            "nan": float("nan"),
            "inf": [float("inf")],
            "point": Point(1.0, Path("a/b")),
            "set": {3},
            "none": None,
            "true": True,
        }
    )
    line = capsys.readouterr().out
    assert line.count("\n") == 1
    assert "题" in line
    assert json.loads(line) == {
        "题": [[1, 2]],
        "float32": 0.5,
        "nan": None,
        "inf": [None],
        "point": {"x": 1.0, "path": "a/b"},
        "set": [3],
        "none": None,
        "true": True,
    }


def test_a_result_is_printed_as_text_or_as_json(capsys: Out) -> None:
    console.result({"a": 1}, lambda: console.say("one"))
    assert capsys.readouterr().out == "one\n"
    console.set_json(True)
    console.result({"a": 1}, lambda: console.say("one"))
    assert capsys.readouterr().out == '{"a": 1}\n'


def test_a_table_in_a_pipe_is_not_cropped_or_padded(capsys: Out) -> None:
    long = "长" * 60
    console.table(["name", "n", "score"], [["a", 1234, 0.5], [long, None, 12.25]], title="Runs")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].strip() == "Runs"
    assert lines[1].split() == ["name", "n", "score"]
    assert lines[3].split() == ["a", "1,234", "0.50"]
    assert lines[4].split() == [long, "–", "12.25"]
    assert not any(line != line.rstrip() for line in lines)


def test_a_long_cell_is_truncated(capsys: Out) -> None:
    console.table(["title"], [["长" * 10_000]])
    assert len(capsys.readouterr().out.splitlines()[2]) < 130


def test_recall_is_a_table_of_both_directions(capsys: Out) -> None:
    found = {"recall@1": 50.0, "recall@5": 75.0, "recall@10": 100.0, "mean_recall": 75.0}
    stages = {
        "recall": {"text_to_image": found, "image_to_text": found},
        "merged": {"text_to_image": found},
    }
    show_recall(stages)
    rows = [line.split("  ") for line in capsys.readouterr().out.splitlines()[2:]]
    cells = [[cell.strip() for cell in row if cell.strip()] for row in rows]
    assert cells == [
        ["text → image", "recall", "50.00", "75.00", "100.00", "75.00"],
        ["text → image", "merged", "50.00", "75.00", "100.00", "75.00"],
        ["image → text", "recall", "50.00", "75.00", "100.00", "75.00"],
    ]


@dataclass
class Bag:
    text: str
    source: str


def test_a_title_is_printed_as_its_bags(capsys: Out) -> None:
    bags = [Bag("红色", "lexicon"), Bag("[b]", "token"), Bag("2件", "pattern")]
    show_bags(bags)
    show_bag_legend()  # prints nothing: the stream has no colours
    assert capsys.readouterr().out == "红色│[b]│2件\n"


def test_bags_are_coloured_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = _terminal(monkeypatch, "stdout")
    show_bags([Bag("红色", "lexicon"), Bag("裙", "token")])
    show_bag_legend()
    shown = terminal.getvalue()
    assert "\x1b[1;32m红色" in shown
    assert "dictionary entry" in shown


def test_next_steps_are_commands_with_comments(capsys: Out) -> None:
    console.next_steps([("xmr score image.jpg", "score it")])
    assert capsys.readouterr().out == "\nNext\n  xmr score image.jpg   # score it\n"


def test_notes_and_warnings_go_to_stderr(capsys: Out) -> None:
    console.info("[1] a note")
    console.warn("look here", where="a.txt:3")
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "[1] a note\nWarning  a.txt:3: look here\n"


def test_long_lines_are_not_broken(capsys: Out) -> None:
    console.warn("word " * 200)
    assert capsys.readouterr().err.count("\n") == 1


def test_progress_in_a_log_is_plain_lines(capsys: Out, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 1000, 4))
    monkeypatch.setattr(time, "monotonic", lambda: float(next(clock)))
    with bars.progress() as progress, progress.task("Reading", 10, "{n} images") as task:
        for _ in range(10):
            task.advance(1, loss=0.5)
        progress.warn("one is odd")
    out, err = capsys.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert re.fullmatch(r"Reading: 3/10 images  \d+ s left  loss 0.50", lines[0])
    assert lines[-2] == "Warning  one is odd"
    assert lines[-1].startswith("Reading: 10 images, ")
    assert "\x1b" not in err


def test_bytes_of_a_file_are_shown_as_a_share(capsys: Out, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 1000, 11))
    monkeypatch.setattr(time, "monotonic", lambda: float(next(clock)))
    with bars.progress() as progress, progress.task("Cutting", 554, "{n} bytes") as task:
        task.advance(277)
        task.advance(277)
    err = capsys.readouterr().err
    assert "Cutting: 50%" in err
    assert re.fullmatch(r"Cutting: 1 min \d+ s", err.splitlines()[-1])
    assert "554" not in err


def test_a_short_task_leaves_no_line(capsys: Out, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bars, "MIN_SECONDS", 0.5)
    with bars.progress() as progress, progress.task("Reading", 1) as task:
        task.advance()
    assert capsys.readouterr().err == ""


def test_a_task_inside_a_task_leaves_no_line(capsys: Out) -> None:
    with bars.progress() as progress, progress.task("Training", 2) as outer:
        for _ in range(2):
            with progress.task("Evaluating", 1) as inner:
                inner.advance()
            outer.advance()
    assert "Evaluating" not in capsys.readouterr().err


def test_a_task_on_a_terminal_is_a_bar_and_leaves_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = _terminal(monkeypatch, "stderr")
    with bars.progress() as progress:
        with progress.task("Reading [x]", 3, "{n} images") as task:
            for loss in (0.5, 0.25, 0.125):
                task.advance(1, loss=loss)
        with progress.task("Counting") as task:
            task.advance()
    shown = terminal.getvalue()
    assert "0/3 images" in shown
    assert "━" in shown
    shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown)
    assert "✓ Reading [x]: 3 images, " in shown


def test_a_task_that_fails_leaves_no_line(capsys: Out) -> None:
    def work() -> None:
        with bars.progress() as progress, progress.task("Reading", 3):
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        work()
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (12.4, "12 s"),
        (59.8, "1 min 00 s"),
        (185, "3 min 05 s"),
        (3599.7, "1 h 00 min"),
        (7800, "2 h 10 min"),
    ],
)
def test_durations_have_one_or_two_units(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_chinese_character_takes_two_columns() -> None:
    assert display_width("红色ab，") == 8
    assert display_width("e\u0301") == 1


@pytest.mark.parametrize(
    ("text", "width", "lines"),
    [
        ("one two three", 7, ["one two", "three"]),
        ("one  two\n three", 20, ["one two three"]),
        ("红色碎花连衣裙", 6, ["红色碎", "花连衣", "裙"]),
        ("红色碎。花", 6, ["红色", "碎。花"]),
        ("用 xmr train 训练", 10, ["用 xmr", "train 训练"]),
        ("红色（碎花）裙", 7, ["红色", "（碎", "花）裙"]),
        ("红色（abc", 6, ["红色", "（abc"]),
        ("unbreakable", 4, ["unbreakable"]),
        ("", 4, []),
        ("四个汉字 [默认：int8]", 11, ["四个汉字", "[默认：", "int8]"]),
        ("三个字 [必填]", 13, ["三个字 [必填]"]),
    ],
)
def test_lines_break_between_words_or_wide_characters(
    text: str, width: int, lines: list[str]
) -> None:
    assert wrap(text, width) == lines
