"""Temporary files and folders: their names, their locks, and the removal of dead ones.

A temporary lies in the folder of the file or folder that it becomes::

    runs/demo/.last.5f3c9e2a.xmr.part     will become runs/demo/last

Its process holds a lock (``flock``) on it, which the kernel releases when the process ends, however
it ends. So a temporary whose lock is free was left by a dead process: :func:`clean` removes it.
Process ids would not do: in a container, or in a folder that several share, they say nothing.

On a file system without such locks, temporaries are made without them and never removed by others.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

SUFFIX = ".xmr.part"
_PATTERN = re.compile(r"\..*\.[0-9a-f]{8}\.xmr\.part", re.DOTALL)
_MAX_NAME = 255 - len(".") - len(".01234567") - len(SUFFIX)  # bytes; a name may have 255

_cleaned: set[str] = set()


@contextmanager
def temporary_file(path: Path) -> Iterator[Path]:
    """Make an empty temporary file next to ``path``; it is removed at the end if still there."""
    clean(path.parent)

    def make(temporary: Path) -> int:
        return os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)

    with _claimed(path, path, make) as temporary:
        yield temporary


@contextmanager
def temporary_folder(path: Path, inside: bool = False) -> Iterator[Path]:
    """Make a temporary folder; it is removed at the end if it is still there.

    Args:
        path: The file or folder that it will become.
        inside: Make it in ``path``, a folder, instead of next to it: nothing can be renamed across
            the border of a mount.
    """
    parent = path if inside else path.parent
    clean(parent)

    def make(temporary: Path) -> int:
        temporary.mkdir(0o700)
        return os.open(temporary, os.O_RDONLY)

    with _claimed(parent / path.name, path, make) as temporary:
        yield temporary


@contextmanager
def _claimed(place: Path, path: Path, make: Callable[[Path], int]) -> Iterator[Path]:
    """Make a temporary and hold its lock until the end of the block, which removes it.

    Args:
        place: Where it is made, and the beginning of its name.
        path: The file or folder that an error names.
        make: Makes it under a name that is not taken, and opens it.
    """
    while True:
        temporary = _name(place)
        with suppress(FileExistsError), _about(path):
            handle = make(temporary)
            if _claim(handle, temporary):
                break
            os.close(handle)  # another process removed it before it was locked
    try:
        yield temporary
    finally:
        remove(temporary)
        os.close(handle)


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Make a temporary folder in the system's folder of temporary files (``TMPDIR``)."""
    with temporary_folder(Path(tempfile.gettempdir()) / "xmr") as folder:
        yield folder


def clean(folder: Path) -> None:
    """Remove the temporaries that dead processes left in a folder; once for each process."""
    key = os.path.realpath(folder)
    if key in _cleaned:
        return
    _cleaned.add(key)
    try:
        names = [name for name in os.listdir(folder) if _PATTERN.fullmatch(name)]
    except OSError:
        return
    for name in names:
        _remove_dead(folder / name)


def is_temporary(path: Path) -> bool:
    """Say whether a path has the name of a temporary."""
    return _PATTERN.fullmatch(path.name) is not None


@contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Keep other processes and threads out of a folder that is being changed in several steps.

    Without locks on this file system, the block runs all the same.
    """
    handle = None
    # A folder inside a temporary is this process's alone, and the temporary is locked already.
    if not any(part.endswith(SUFFIX) for part in folder.absolute().parts):
        with suppress(OSError):
            handle = os.open(folder, os.O_RDONLY)
            fcntl.flock(handle, fcntl.LOCK_EX)
    try:
        yield
    finally:
        if handle is not None:
            os.close(handle)


def remove(path: Path) -> None:
    """Remove a file, a link or a whole folder; as far as this is allowed."""
    with suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def short_name(path: Path) -> str:
    """Return the name of a path, cut so that a temporary's name is not too long for the disk."""
    name = os.fsencode(path.name)
    if len(name) <= _MAX_NAME:
        return path.name
    digest = hashlib.sha256(name).hexdigest()[:16]
    return name[: _MAX_NAME - 17].decode("utf-8", "ignore") + "~" + digest


def _name(path: Path) -> Path:
    return path.parent / f".{short_name(path)}.{secrets.token_hex(4)}{SUFFIX}"


@contextmanager
def _about(path: Path) -> Iterator[None]:
    """Let an error name the path that the user knows, not the temporary."""
    try:
        yield
    except OSError as error:
        error.filename = str(path)
        raise


def _claim(handle: int, path: Path) -> bool:
    """Lock a new temporary; False if a cleaner removed it before it was locked."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
    except OSError:
        return True
    try:
        return os.path.samestat(os.stat(path, follow_symlinks=False), os.fstat(handle))
    except FileNotFoundError:
        return False


def _remove_dead(path: Path) -> None:
    """Remove a temporary if nobody holds its lock."""
    try:
        is_folder = path.is_dir() and not path.is_symlink()
        flags = os.O_RDONLY if is_folder else os.O_RDWR
        handle = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        remove(path)
    except OSError:  # a living process holds it, or there are no locks here
        pass
    finally:
        os.close(handle)
