"""What an error carries, and how every kind of failure ends at the command line."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bagformer_cli import errors, messages
from bagformer_cli.cli import console, doctor
from bagformer_cli.cli.failures import explain
from bagformer_cli.errors import DataError, DiskFullError, InputError, XmrError, nearest


def test_an_error_in_one_line() -> None:
    error = DataError(
        "The line has no tab.",
        where=Path("a.tsv"),
        found="abc",
        expected="id, tab, base64",
        hint="Mend it.",
    )
    assert str(error) == (
        "a.tsv: The line has no tab. (found: abc; expected: id, tab, base64) Mend it."
    )
    assert str(DataError("It is empty.", found=0)) == "It is empty. (found: 0)"
    assert str(XmrError("Alone.")) == "Alone."
    assert XmrError("Nothing there.", found=0).found == "0"


def test_an_error_in_one_line_of_chinese(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messages, "language", lambda: "zh")
    error = DataError("没有制表符。", where="a.tsv", found="abc", expected="id", hint="请修正。")
    assert str(error) == "a.tsv：没有制表符。（实际：abc；应为：id）请修正。"


@pytest.mark.parametrize(
    ("failure", "says"),
    [
        (FileNotFoundError(errno.ENOENT, "x"), "a.txt: No such file."),
        (NotADirectoryError(errno.ENOTDIR, "x"), "a.txt: No such file."),
        (IsADirectoryError(errno.EISDIR, "x"), "a.txt: This is a folder; a file was expected."),
        (PermissionError(errno.EACCES, "x"), "a.txt: This file or folder cannot be opened"),
        (OSError(errno.EIO, "I/O error"), "a.txt: The file cannot be read. (found: I/O error)"),
        (UnicodeDecodeError("utf-8", b"ab\xff\xfe", 2, 3, "x"), "not UTF-8 text. (found: FF FE)"),
    ],
)
def test_a_file_that_cannot_be_read(failure: OSError | UnicodeDecodeError, says: str) -> None:
    error = errors.cannot_read("a.txt", failure)
    assert says in str(error)
    assert error.exit_code == 2


def test_exit_codes() -> None:
    kinds = [k for k in vars(errors).values() if isinstance(k, type) and issubclass(k, XmrError)]
    codes = {kind.__name__: kind.exit_code for kind in kinds}
    assert {name for name, code in codes.items() if code == 1} == {"XmrError", "TrainingError"}
    assert set(codes.values()) == {1, 2}


def test_the_nearest_name() -> None:
    assert nearest("trian", ["train", "eval"]) == "train"
    assert nearest("learning_rat", ["learning_rate", "rate"]) == "learning_rate"
    assert nearest("xyz", ["train", "eval"]) is None


@pytest.fixture
def failing(xmr: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Run a command that raises ``failure`` in its middle."""

    def run(failure: BaseException, *options: str) -> Any:
        def fail(*_: object) -> None:
            raise failure

        monkeypatch.setattr(doctor, "_look", fail)
        return xmr("doctor", *options)

    return run


def test_an_error_is_one_block(failing: Callable[..., Any]) -> None:
    run = failing(
        DataError(
            "The line has no tab.",
            where="a.tsv:3",
            found="abc",
            expected="id, tab, base64",
            hint="Mend the line.",
        )
    )
    assert run.code == 2
    assert run.out == ""
    assert run.err == (
        "Error  The line has no tab.\n"
        "  where     a.tsv:3\n"
        "  found     abc\n"
        "  expected  id, tab, base64\n"
        "  → Mend the line.\n"
    )


def test_an_error_of_one_sentence(failing: Callable[..., Any]) -> None:
    run = failing(XmrError("It broke."))
    assert (run.code, run.err) == (1, "Error  It broke.\n")


def test_brackets_are_text_and_no_markup(failing: Callable[..., Any]) -> None:
    run = failing(InputError("[bold]x[/bold] :smile:", found="[/red]"))
    assert "[bold]x[/bold] :smile:" in run.err
    assert "[/red]" in run.err


def test_a_long_value_is_cut(failing: Callable[..., Any]) -> None:
    run = failing(InputError("Too long.", found="a" * 100_000))
    assert len(run.err) < 1000
    assert "a…" in run.err


def test_a_bug_shows_no_traceback(failing: Callable[..., Any]) -> None:
    run = failing(KeyError("x"))
    assert run.code == 1
    assert "it is a bug" in run.err
    assert "KeyError: 'x'" in run.err
    assert "--debug" in run.err
    assert "Traceback" not in run.err


def test_debug_shows_the_traceback(failing: Callable[..., Any]) -> None:
    for failure in (KeyError("x"), InputError("Wrong.")):
        run = failing(failure, "--debug")
        assert "Traceback" in run.err
        assert type(failure).__name__ in run.err


def test_debug_does_not_outlive_its_run(failing: Callable[..., Any]) -> None:
    failing(InputError("Wrong."), "--debug")
    assert "Traceback" not in failing(InputError("Wrong.")).err


def test_ctrl_c_is_one_line(failing: Callable[..., Any]) -> None:
    run = failing(KeyboardInterrupt())
    assert (run.code, run.out, run.err) == (130, "", "Stopped.\n")


def test_no_memory(failing: Callable[..., Any]) -> None:
    run = failing(MemoryError())
    assert run.code == 1
    assert run.err.startswith("Error  There is not enough memory.\n")

    class OutOfMemoryError(RuntimeError):  # the name of torch's
        pass

    assert "smaller batch" in failing(OutOfMemoryError("CUDA out of memory")).err


@pytest.mark.parametrize(
    ("failure", "says"),
    [
        (FileNotFoundError(errno.ENOENT, "No such file", "a.txt"), "no such file or folder"),
        (PermissionError(errno.EACCES, "Permission denied", "a.txt"), "permission denied"),
        (OSError(errno.EROFS, "Read-only file system", "a.txt"), "permission denied"),
        (IsADirectoryError(errno.EISDIR, "Is a directory", "a.txt"), "This is a folder"),
        (NotADirectoryError(errno.ENOTDIR, "Not a directory", "a.txt"), "This is a file"),
        (FileExistsError(errno.EEXIST, "File exists", "a.txt"), "of this name already"),
        (OSError(errno.ENOSPC, "No space left on device", "a.txt"), "The disk is full"),
    ],
)
def test_what_the_system_refuses_is_the_users_to_mend(failure: OSError, says: str) -> None:
    error = explain(failure)
    assert error.exit_code == 2
    assert says in error.message
    assert error.where == "a.txt"


def test_a_full_disk_without_a_name_is_one_too() -> None:
    assert isinstance(explain(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))), DiskFullError)


def test_a_system_error_that_says_nothing_is_a_bug() -> None:
    assert "bug" in explain(OSError("odd")).message


def test_too_many_open_files() -> None:
    error = explain(OSError(errno.EMFILE, os.strerror(errno.EMFILE)))
    assert "ulimit" in str(error)


def test_an_own_error_is_not_touched() -> None:
    error = InputError("Wrong.")
    assert explain(error) is error


def test_an_error_can_be_shown_without_details(capsys: pytest.CaptureFixture[str]) -> None:
    console.reset()
    console.error(InputError("Wrong."))
    assert capsys.readouterr().err == "Error  Wrong.\n"
