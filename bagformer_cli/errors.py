"""The errors that this project raises on purpose.

Each says what is wrong, where, what was found, what was expected and what to do. Code below the
command line raises them and never prints; ``cli/console.py`` prints them as one short block, and
the process exits with :attr:`XmrError.exit_code`.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from functools import reduce
from pathlib import Path
from shlex import quote

from bagformer_cli.messages import tr


class XmrError(Exception):
    """The base class, raised itself for failures that are not the user's (exit code 1).

    Args:
        message: One sentence that says what is wrong, already translated.
        where: A file, ``file:line``, or a dotted config key.
        found: The wrong value.
        expected: The values that would be right.
        hint: The next step for the user.
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
        """Return everything in one line, for a warning or a list."""
        line = with_place(self.message, self.where)
        details = []
        if self.found is not None:
            details.append(tr("found: {value}", value=self.found))
        if self.expected is not None:
            details.append(tr("expected: {value}", value=self.expected))
        if details:
            line = tr("{message} ({details})", message=line, details=joined(details))
        return line if self.hint is None else tr("{sentence} {hint}", sentence=line, hint=self.hint)


def joined(parts: Iterable[str]) -> str:
    """Join texts with the language's semicolon.

    >>> joined(["found: 1", "expected: 2"])
    'found: 1; expected: 2'
    """
    texts = list(parts)
    if not texts:
        return ""
    return reduce(lambda one, other: tr("{one}; {other}", one=one, other=other), texts)


def listed(parts: Iterable[object]) -> str:
    """Join names with the language's comma: ``, `` or ``、``.

    >>> listed(["image", "title"])
    'image, title'
    """
    return tr("{one}, {other}", one="", other="").join(map(str, parts))


def first_few(names: Sequence[object], most: int = 5) -> str:
    """Join the first names of a list that may be long.

    >>> first_few(["a", "b", "c"], 2)
    'a, b …'
    """
    return listed(names[:most]) + (" …" if len(names) > most else "")


def with_place(message: str, where: object) -> str:
    """Prefix a message with the place it is about, unless that is None or empty.

    >>> with_place("No such file.", "a.txt")
    'a.txt: No such file.'
    """
    return message if not where else tr("{place}: {message}", place=where, message=message)


class InputError(XmrError):
    """A wrong input of the user: a missing file, an empty title, an impossible option."""

    exit_code = 2
    product: str | None = None
    """Id of the product that this error leaves out, where it is known."""


class PathError(InputError):
    """A file or folder that is missing, of the wrong kind, or must not be opened.

    ``cli/failures.py`` adds the hint when it is printed: only then the disk is searched for a
    similar name.

    Args:
        message: See :class:`XmrError`.
        where: The path.
        reason: ``missing``, ``folder`` (a file was expected), ``file`` (a folder was expected),
            ``denied``, ``exists`` or ``long``.
        expected: The paths that would be right.
    """

    def __init__(
        self,
        message: str,
        where: str | Path | None = None,
        reason: str = "missing",
        expected: str | None = None,
    ) -> None:
        super().__init__(message, where=where, expected=expected)
        self.reason = reason


class DataError(InputError):
    """A broken data file; :attr:`where` names file and line."""


class ConfigError(InputError):
    """A config key that is unknown, has a wrong value, or contradicts another key."""


class CheckpointError(InputError):
    """A model folder or weight file that cannot be used."""


class NotFiniteError(CheckpointError):
    """A model that gives NaN or infinity instead of vectors."""


class DiskFullError(InputError):
    """A full disk, a quota or a limit of file sizes. Unfinished files have been removed."""


class MissingDependencyError(InputError):
    """A missing optional package; :attr:`hint` gives the command that installs it."""


class TrainingError(XmrError):
    """A training that cannot continue, for example because the loss is not a number."""


SIMILAR = 0.65
"""Similarity (0 to 1, of ``difflib``) from which a name may be meant; "nope" is 0.5 like "mine"."""


def cannot_read(path: str | Path, error: OSError | UnicodeDecodeError) -> InputError:
    """Make the error for a file that cannot be opened or is not UTF-8 text."""
    if isinstance(error, UnicodeDecodeError):
        found = error.object[error.start : error.start + 8].hex(" ").upper()
        return InputError(
            tr("The file is not UTF-8 text."),
            where=path,
            found=found,
            hint=tr("Save the file as UTF-8."),
        )
    if isinstance(error, (FileNotFoundError, NotADirectoryError)):
        return PathError(tr("No such file."), path, "missing")
    return path_error(path, error) or InputError(
        tr("The file cannot be read."), where=path, found=error.strerror
    )


def path_error(path: str | Path, error: OSError) -> PathError | None:
    """Make the error for a path that cannot be opened, made or replaced; None: another cause."""
    if isinstance(error, FileNotFoundError):
        return PathError(tr("No such file or folder."), path, "missing")
    if isinstance(error, PermissionError) or error.errno == errno.EROFS:
        message = tr("This file or folder cannot be opened: permission denied.")
        return PathError(message, path, "denied")
    if isinstance(error, IsADirectoryError):
        return PathError(tr("This is a folder; a file was expected."), path, "folder")
    if isinstance(error, NotADirectoryError):
        return PathError(tr("This is a file; a folder was expected."), path, "file")
    if isinstance(error, FileExistsError):
        return PathError(tr("A file or folder of this name already exists."), path, "exists")
    if error.errno == errno.ENAMETOOLONG:
        return PathError(tr("No file or folder can have so long a name."), path, "long")
    return None


def shell_word(name: str) -> str:
    """Write a heading as one word of a command line.

    >>> shell_word("价格"), shell_word("价格 (元)")
    ('价格', "'价格 (元)'")
    """
    return name if name.isidentifier() else quote(name)


def shortened(value: object, most: int = 60) -> str:
    r"""Write a value on one line for a message, at most ``most`` characters of it.

    >>> shortened("红色碎花连衣裙", 4), shortened("a\tb")
    ("'红色碎花…'", "'a\\tb'")
    """
    text = value if isinstance(value, str) else repr(value)
    text = text if len(text) <= most else text[:most] + "…"
    return repr(text) if isinstance(value, str) else text


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Find the known name that is most similar to ``name``; None if none is similar.

    >>> nearest("trian", ["train", "eval"])
    'train'
    """
    matches = get_close_matches(name, list(known), n=1, cutoff=SIMILAR)
    return matches[0] if matches else None
