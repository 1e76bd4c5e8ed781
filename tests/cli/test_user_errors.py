"""Ordinary mistakes of a user, in every command: ``user_errors.txt`` lists them."""

from __future__ import annotations

import os
import re
import shlex
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.support.commands_page import commands
from tests.support.ordinary_user import permissions_count
from tests.support.workplace import write_workplace

RAW = re.compile(
    r"bug in xmr|Traceback|\b\w+(Error|Exception|Warning)\b|\[Errno|errno|\bNone\b|<class"
    r"|object at 0x|site-packages|\.py\b|\.rs:|DataFusion|[Ll]ance ?error|SchemaError|pydantic"
    r"|sqlglot|safetensors_rust|deserializ|torch\.(?!save)|PIL\.|huggingface_hub|\bretry|Arrow"
    r"|codec can't|invalid start byte|<stream end>|Commented|bytes not processed"
)
"""Words of libraries and of Python, which a user must never read."""


class Mistake(NamedTuple):
    """A command line and the words that its message must contain."""

    command: str
    words: tuple[str, ...]


def mistakes() -> list[Mistake]:
    """Read ``user_errors.txt``."""
    lines = Path(__file__).with_name("user_errors.txt").read_text("utf-8").splitlines()
    found = []
    for line in lines:
        if line.strip() and not line.startswith("#"):
            command, _, words = line.partition("=>")
            found.append(Mistake(command.strip(), tuple(word.strip() for word in words.split(";"))))
    return found


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Make the folder of a user once."""
    folder = tmp_path_factory.mktemp("workplace")
    before = Path.cwd()
    os.chdir(folder)
    write_workplace(folder)
    yield folder
    os.chdir(before)


@pytest.fixture(scope="module")
def here(pristine: Path) -> Path:
    os.chdir(pristine)
    return pristine


def tree(folder: Path) -> dict[str, bytes]:
    """List what is in a folder: path to content; a folder has none."""
    found = {}
    for path in folder.rglob("*"):
        found[str(path)] = path.read_bytes() if path.is_file() else b""
    return found


@pytest.mark.parametrize("mistake", mistakes(), ids=lambda mistake: mistake.command)
def test_a_mistake_gets_one_clear_message_and_changes_nothing(
    mistake: Mistake, here: Path, xmr: Callable[..., Any]
) -> None:
    before = tree(here)
    with permissions_count():
        run = xmr(*shlex.split(mistake.command))
    after = tree(here)
    for path in sorted(after.keys() - before.keys()):  # for the next test
        shutil.rmtree(path, ignore_errors=True)
        Path(path).unlink(missing_ok=True)

    assert run.code == 2, run
    assert run.out == ""
    errors = [i for i, line in enumerate(run.err.splitlines()) if line.startswith("Error  ")]
    assert len(errors) == 1, run.err
    block = run.err.splitlines()[errors[0] :]
    assert all(line.startswith("  ") for line in block[1:]), run.err
    assert any(line.startswith(("  expected", "  →")) for line in block), run.err
    assert not RAW.search(run.err), run.err
    missing = [word for word in mistake.words if word not in "\n".join(block)]
    assert missing == [], run.err
    assert changes(before, after) == []


def changes(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Name the paths that were made, changed or deleted."""
    return sorted(p for p in before.keys() | after.keys() if before.get(p) != after.get(p))


def test_every_command_is_in_the_list() -> None:
    listed = [mistake.command.split() for mistake in mistakes()]
    assert [path for path in commands() if not any(c[: len(path)] == [*path] for c in listed)] == []
    assert len(listed) >= 100
