"""Write the files that a user names as the output of a command, such as ``--output results.html``.

An output appears whole, or not at all, and it never destroys anything but an older output:

- a file that the command reads is refused;
- a folder is refused;
- a link stays, and the file that it leads to is replaced;
- a device or a pipe (``/dev/stdout``, ``/dev/null``, ``mkfifo``) stays, and is written to.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import stat
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bagformer_cli.errors import InputError, PathError
from bagformer_cli.files import atomic_file, disk_errors, is_empty, is_writable
from bagformer_cli.messages import tr
from bagformer_cli.temporary import scratch_folder

_STANDARD = {"/dev/stdin": 0, "/dev/stdout": 1, "/dev/stderr": 2}
_DESCRIPTOR = re.compile(r"/(?:dev|proc/self|proc/thread-self)/fd/(\d+)")
_MOST_LINKS = 40  # more of them are a circle


def require_empty(out: Path, older: str | None = None) -> None:
    """Refuse a folder to write that holds anything.

    Args:
        out: The folder.
        older: A file by which an older output of the same kind is known; that is replaced.

    Raises:
        InputError: It is a file, or a folder with other files; or it cannot be made or written.
    """
    check_output_folder(out)
    if out.is_dir() and not is_empty(out) and not (older and (out / older).is_file()):
        raise InputError(
            tr("The output folder is not empty."),
            where=out,
            hint=tr("Give a folder that does not exist yet."),
        )


def check_output(path: str | Path, inputs: Iterable[str | Path] = ()) -> None:
    """Refuse an output that cannot be written or would overwrite an input, before long work.

    Args:
        path: The output.
        inputs: Files that the command reads, and folders of which it reads the files.

    Raises:
        InputError: The output is a folder, or the same file as an input, by whatever name; or its
            folder cannot be made or written.
    """
    if os.path.isdir(path):
        raise PathError(tr("This is a folder; a file was expected."), path, "folder")
    target = _followed(Path(path))  # a circle of links is refused before the system follows it
    if _keeps_content(path):
        check_output_folder(target.parent)
    if not os.path.exists(path):
        return
    for given in inputs:
        folder = Path(given)
        for one in folder.iterdir() if folder.is_dir() else [folder]:
            if one.exists() and os.path.samefile(one, path) and _keeps_content(path):
                raise InputError(
                    tr("The output would overwrite a file that this command reads."),
                    where=path,
                    found=None if os.path.abspath(one) == os.path.abspath(path) else one,
                    hint=tr("Choose another name for the output."),
                )


def check_output_folder(path: str | Path) -> None:
    """Check that a folder exists or can be made, and can be written; call it before long work.

    Raises:
        InputError: It or a folder above it is a file, or permissions forbid it.
    """
    known = Path(path)
    while not known.exists() and known != known.parent:
        known = known.parent
    if not known.is_dir():
        raise PathError(tr("This is a file; a folder was expected."), known, "file")
    if not is_writable(known):
        raise PathError(tr("This folder cannot be written: permission denied."), known, "denied")


@contextmanager
def output_file(path: str | Path, inputs: Iterable[str | Path] = ()) -> Iterator[Path]:
    """Yield a temporary path; its content becomes the output when the block succeeds.

    Args:
        path: The output.
        inputs: See :func:`check_output`.

    Raises:
        InputError: See :func:`check_output`.
        DiskFullError: The disk is full.
    """
    check_output(path, inputs)
    target = _followed(Path(path))
    if _keeps_content(target) and _descriptor(target) is None:
        if target.exists() and not os.access(target, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        with atomic_file(target) as temporary:
            yield temporary
        return
    with scratch_folder() as folder, disk_errors(Path(path)):
        temporary = folder / "output"
        temporary.touch()
        yield temporary
        _pour(temporary, target)


def write_output(path: str | Path, content: str | bytes, inputs: Iterable[str | Path] = ()) -> None:
    """Write content, text as UTF-8, to an output; see :func:`output_file`."""
    with output_file(path, inputs) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


def _followed(path: Path) -> Path:
    """Follow the links of a path's last part, but not into the links of open files in ``/dev``."""
    for _ in range(_MOST_LINKS):
        if _descriptor(path) is not None or not path.is_symlink():
            return path
        path = path.parent / os.readlink(path)
    raise InputError(tr("This link leads back to itself."), where=path)


def _descriptor(path: Path) -> int | None:
    """Return the number of the open file that a path such as ``/dev/stdout`` names, or None."""
    name = os.path.normpath(path)
    found = _DESCRIPTOR.fullmatch(name)
    return int(found[1]) if found else _STANDARD.get(name)


def _keeps_content(path: str | Path) -> bool:
    """Say whether a path is a regular file or nothing yet: neither a device nor a pipe."""
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return True


def _pour(source: Path, target: Path) -> None:
    """Copy a file into a device, a pipe or an open file."""
    number = _descriptor(target)
    if number is not None:
        sys.stdout.flush()
        sys.stderr.flush()
        into = os.dup(number)
    else:
        into = os.open(target, os.O_WRONLY)
    with open(source, "rb") as stream, os.fdopen(into, "wb") as sink:
        shutil.copyfileobj(stream, sink)
