"""The error family: what went wrong, where, what was found, what was expected, what to do next.

Code below the command line raises these and never prints; ``cli/console.py`` renders them as one
short block and exits with :attr:`XmrError.exit_code`.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path

from bagformer_cli.messages import tr


class XmrError(Exception):
    """Base of every error this project raises on purpose.

    Args:
        message: What went wrong, one sentence, already translated.
        where: The place: a file, ``file:line``, or a dotted config path.
        found: What was there.
        expected: What should have been there.
        hint: What to do next.
    """

    exit_code = 1

    def __init__(
        self,
        message: str,
        *,
        where: str | Path | None = None,
        found: object = None,
        expected: object = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.where = None if where is None else str(where)
        self.found = None if found is None else str(found)
        self.expected = None if expected is None else str(expected)
        self.hint = hint

    def __str__(self) -> str:
        """All of it in one line, for a warning or a list."""
        line = in_place(self.message, self.where)
        details = []
        if self.found is not None:
            details.append(tr("found: {value}", value=self.found))
        if self.expected is not None:
            details.append(tr("expected: {value}", value=self.expected))
        if details:
            both = details[0]
            if len(details) > 1:
                both = tr("{one}; {other}", one=details[0], other=details[1])
            line = tr("{message} ({details})", message=line, details=both)
        return line if self.hint is None else tr("{sentence} {hint}", sentence=line, hint=self.hint)


def in_place(message: str, where: object) -> str:
    """``message`` behind the place it is about, if there is one."""
    return message if not where else tr("{place}: {message}", place=where, message=message)


class InputError(XmrError):
    """The user's input is wrong: a missing file, an empty title, an impossible option."""

    exit_code = 2


class DataError(InputError):
    """A data file is broken; :attr:`where` names file and line."""


class ConfigError(InputError):
    """A setting is unknown, of the wrong type, or impossible beside another."""


class CheckpointError(InputError):
    """A model folder or weight file cannot be used."""


class DiskFullError(InputError):
    """There is no room left to write; nothing half-written was left behind."""


class MissingDependencyError(InputError):
    """An optional package is not installed; :attr:`hint` gives the command that installs it."""


class TrainingError(XmrError):
    """Training cannot go on, for example because a loss is not a number."""


def cannot_read(path: str | Path, error: OSError | UnicodeDecodeError) -> InputError:
    """The error for a file that cannot be opened, or is no text in UTF-8."""
    if isinstance(error, UnicodeDecodeError):
        found = error.object[error.start : error.start + 8].hex(" ").upper()
        return InputError(tr("The file is not UTF-8 text."), where=path, found=found)
    if isinstance(error, (FileNotFoundError, NotADirectoryError)):
        return InputError(tr("No such file."), where=path)
    if isinstance(error, IsADirectoryError):
        return InputError(tr("This is a folder; a file was expected."), where=path)
    if isinstance(error, PermissionError):
        message = tr("This file or folder cannot be opened: permission denied.")
        return InputError(message, where=path)
    return InputError(tr("The file cannot be read."), where=path, found=error.strerror)


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name closest to ``name``, or None where nothing is near."""
    matches = get_close_matches(name, list(known), n=1, cutoff=0.5)
    return matches[0] if matches else None
