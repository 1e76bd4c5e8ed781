"""The fields of an error, and how each kind of failure is printed by the command line."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bagformer_cli import errors, messages
from bagformer_cli.cli import console, doctor
from bagformer_cli.cli.failures import to_error
from bagformer_cli.errors import DataError, DiskFullError, InputError, XmrError, nearest


def test_an_error_fits_into_one_line() -> None:
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


def test_an_error_in_one_line_uses_chinese_punctuation(monkeypatch: pytest.MonkeyPatch) -> None:
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
def test_unreadable_files_are_input_errors(
    failure: OSError | UnicodeDecodeError, says: str
) -> None:
    error = errors.cannot_read("a.txt", failure)
    assert says in str(error)
    assert error.exit_code == 2


def test_only_two_errors_are_not_the_users_fault() -> None:
    kinds = [k for k in vars(errors).values() if isinstance(k, type) and issubclass(k, XmrError)]
    codes = {kind.__name__: kind.exit_code for kind in kinds}
    assert {name for name, code in codes.items() if code == 1} == {"XmrError", "TrainingError"}
    assert set(codes.values()) == {1, 2}


def test_the_most_similar_name_is_suggested() -> None:
    assert nearest("trian", ["train", "eval"]) == "train"
    assert nearest("learning_rat", ["learning_rate", "rate"]) == "learning_rate"
    assert nearest("xyz", ["train", "eval"]) is None


@pytest.fixture
def failing(xmr: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Run a command that raises ``failure``."""

    def run(failure: BaseException, *options: str) -> Any:
        def fail(*_: object) -> None:
            raise failure

        monkeypatch.setattr(doctor, "_inspect", fail)
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


def test_brackets_are_not_markup(failing: Callable[..., Any]) -> None:
    run = failing(InputError("[bold]x[/bold] :smile:", found="[/red]"))
    assert "[bold]x[/bold] :smile:" in run.err
    assert "[/red]" in run.err


def test_a_long_value_is_truncated(failing: Callable[..., Any]) -> None:
    run = failing(InputError("Too long.", found="a" * 100_000))
    assert len(run.err) < 1000
    assert "a…" in run.err


def test_an_unexpected_error_shows_no_traceback(failing: Callable[..., Any]) -> None:
    run = failing(KeyError("x"))
    assert run.code == 1
    assert "this is a bug in xmr" in run.err
    assert "KeyError: 'x'" in run.err
    assert "--debug" in run.err
    assert "Traceback" not in run.err


def test_debug_shows_the_traceback(failing: Callable[..., Any]) -> None:
    for failure in (KeyError("x"), InputError("Wrong.")):
        run = failing(failure, "--debug")
        assert "Traceback" in run.err
        assert type(failure).__name__ in run.err


def test_debug_ends_with_its_run(failing: Callable[..., Any]) -> None:
    failing(InputError("Wrong."), "--debug")
    assert "Traceback" not in failing(InputError("Wrong.")).err


def test_ctrl_c_prints_one_line(failing: Callable[..., Any]) -> None:
    run = failing(KeyboardInterrupt())
    assert (run.code, run.out, run.err) == (130, "", "Stopped.\n")


def test_running_out_of_memory_gets_a_hint(failing: Callable[..., Any]) -> None:
    run = failing(MemoryError())
    assert run.code == 1
    assert run.err.startswith("Error  Out of memory.\n")

    class OutOfMemoryError(RuntimeError):  # the name of torch's
        pass

    assert "smaller batch" in failing(OutOfMemoryError("CUDA out of memory")).err


@pytest.mark.parametrize(
    ("failure", "says"),
    [
        (FileNotFoundError(errno.ENOENT, "No such file", "a.txt"), "No such file or folder"),
        (PermissionError(errno.EACCES, "Permission denied", "a.txt"), "permission denied"),
        (OSError(errno.EROFS, "Read-only file system", "a.txt"), "permission denied"),
        (IsADirectoryError(errno.EISDIR, "Is a directory", "a.txt"), "This is a folder"),
        (NotADirectoryError(errno.ENOTDIR, "Not a directory", "a.txt"), "This is a file"),
        (FileExistsError(errno.EEXIST, "File exists", "a.txt"), "of this name already"),
        (OSError(errno.ENOSPC, "No space left on device", "a.txt"), "The disk is full"),
    ],
)
def test_errors_of_the_system_are_input_errors(failure: OSError, says: str) -> None:
    error = to_error(failure)
    assert error.exit_code == 2
    assert says in error.message
    assert error.where == "a.txt"


def test_a_full_disk_is_recognised_without_a_file_name() -> None:
    assert isinstance(to_error(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))), DiskFullError)


def test_an_unknown_system_error_is_a_bug() -> None:
    assert "bug" in to_error(OSError("odd")).message


def test_too_many_open_files_names_the_limit() -> None:
    error = to_error(OSError(errno.EMFILE, os.strerror(errno.EMFILE)))
    assert "ulimit" in str(error)


def test_our_own_errors_stay_unchanged() -> None:
    error = InputError("Wrong.")
    assert to_error(error) is error


def test_an_error_can_be_shown_without_details(capsys: pytest.CaptureFixture[str]) -> None:
    console.reset()
    console.error(InputError("Wrong."))
    assert capsys.readouterr().err == "Error  Wrong.\n"
