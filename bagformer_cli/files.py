"""Write files and folders that appear only when they are complete.

A file is written under a temporary name in the same folder (``temporary.py``), flushed to the disk,
and renamed. So a reader sees the old content or the new, never a part of it. A full disk becomes a
:class:`DiskFullError`, and the unfinished file is removed.

Paths that the user names as the output of a command go through ``outputs.py``.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import os
import re
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from bagformer_cli.errors import DiskFullError
from bagformer_cli.messages import tr
from bagformer_cli.temporary import (
    SUFFIX,
    folder_lock,
    is_temporary,
    remove,
    short_name,
    temporary_file,
    temporary_folder,
)

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_READ_ONLY = {errno.EROFS, errno.EACCES, errno.EPERM}
# Libraries written in Rust and numpy report a failed write as text.
_FULL_TEXT = re.compile(
    rf"os error ({'|'.join(map(str, sorted(_FULL)))})\b|No space left on device"
    r"|\d+ requested and \d+ written"
)


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Name ``path`` in errors of the block; 'no space left' becomes a :class:`DiskFullError`."""
    try:
        yield
    except DiskFullError as error:
        if SUFFIX in (error.where or ""):  # of a file inside a temporary folder, which is gone
            error.where = str(path)
        raise
    except Exception as error:
        if is_disk_full(error):
            raise disk_full(path, error) from error
        if isinstance(error, OSError) and str(error.filename).endswith(".part"):  # temporary
            error.filename, error.filename2 = str(path), None
        raise


def is_disk_full(error: BaseException) -> bool:
    """Say whether an error, of any library, means a full disk, a quota or a limit of file sizes."""
    if isinstance(error, OSError) and error.errno in _FULL:
        return True
    return _FULL_TEXT.search(str(error)) is not None


def disk_full(path: object, error: BaseException) -> DiskFullError:
    """Make the error for a full disk."""
    code = re.search(r"os error (\d+)", str(error))
    reason = error.strerror if isinstance(error, OSError) else None  # numpy's has none
    if code is not None:
        reason = os.strerror(int(code[1]))
    return DiskFullError(
        tr("The disk is full; no unfinished file was left."),
        where=None if path is None else str(path),
        found=reason,
        hint=tr("Free some space or choose another folder, then run the command again."),
    )


@contextmanager
def atomic_file(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path next to ``path``; rename it to ``path`` when the block succeeds."""
    path = Path(path)
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary_file(path) as temporary:
            yield temporary
            os.chmod(temporary, 0o666 & ~_umask())
            _fsync(temporary)
            os.replace(temporary, path)
            _fsync(path.parent)


@contextmanager
def atomic_folder(path: str | Path, *, keep_existing: bool = False) -> Iterator[Path]:
    """Yield a temporary folder next to ``path``; rename it to ``path`` when the block succeeds.

    An existing folder and the new one change places in one step, where the system can do this
    (Linux). Elsewhere the existing folder is first renamed to ``.<name>.old``: a process killed
    then leaves only that folder, and :func:`recover_folder` brings it back.

    Args:
        path: The folder to make.
        keep_existing: Several processes may make the same content at the same time: the folder of
            the first one stays, and later ones are thrown away.
    """
    path = Path(path)
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        recover_folder(path)
        with temporary_folder(path) as temporary:
            yield temporary
            _finish_folder(temporary)
            with folder_lock(path.parent):
                if not os.path.lexists(path):
                    os.replace(temporary, path)
                elif not (keep_existing and path.is_dir()):
                    _swap(temporary, path)
            _fsync(path.parent)


@contextmanager
def new_files(out: Path, order: Callable[[Path], object] = str) -> Iterator[Path]:
    """Yield a temporary folder; its files appear in ``out`` when the block succeeds.

    A folder ``out`` that does not exist yet appears by one rename, with all files. In one that
    exists, which may be a mount, the files appear one after the other.

    Args:
        out: The folder.
        order: Sort key of the files, for an ``out`` that exists.
    """
    with disk_errors(out):
        inside = out.is_dir()
        out.parent.mkdir(parents=True, exist_ok=True)
        with temporary_folder(out, inside) as temporary:
            yield temporary
            _finish_folder(temporary)
            if not inside and not os.path.lexists(out):
                os.replace(temporary, out)
                _fsync(out.parent)
                return
            for made in sorted(temporary.iterdir(), key=order):  # type: ignore[arg-type]
                os.replace(made, out / made.name)
            _fsync(out)


def is_writable(folder: Path) -> bool:
    """Say whether files can be made in a folder, which exists."""
    effective = os.access in os.supports_effective_ids
    return os.access(folder, os.W_OK | os.X_OK, effective_ids=effective)


def is_read_only(error: OSError) -> bool:
    """Say whether an error means that a place may be read, but not written."""
    return error.errno in _READ_ONLY


def is_empty(folder: Path) -> bool:
    """Say whether a folder holds nothing but temporaries."""
    return all(is_temporary(path) for path in folder.iterdir())


def recover_folder(path: str | Path) -> None:
    """Restore ``path`` after a process was killed inside :func:`atomic_folder`."""
    path = Path(path)
    aside = _aside(path)
    if aside.exists():
        with folder_lock(path.parent):
            if path.exists():
                remove(aside)
            elif aside.exists():
                os.replace(aside, path)


def _aside(path: Path) -> Path:
    return path.parent / f".{short_name(path)}.old"


def _finish_folder(folder: Path) -> None:
    """Give a folder its final mode, and bring it and its content to the disk."""
    os.chmod(folder, 0o777 & ~_umask())
    for one in (*folder.rglob("*"), folder):
        if one.is_file() or one.is_dir():
            _fsync(one)


def _swap(new: Path, path: Path) -> None:
    """Put a folder in the place of another, which is then found at ``new`` or removed."""
    if _exchange(new, path):
        return
    aside = _aside(path)
    os.replace(path, aside)
    try:
        os.replace(new, path)
    except OSError:
        os.replace(aside, path)
        raise
    remove(aside)


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two paths in one step; False if this system or file system cannot."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)  # Linux
    if rename is None:
        return False
    at_cwd, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    done: int = rename(at_cwd, os.fsencode(one), at_cwd, os.fsencode(other), exchange)
    return done == 0


def write_text(path: str | Path, text: str) -> None:
    """Write ``text`` as UTF-8; the file appears only when it is complete."""
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def cache_folder() -> Path:
    """Find the cache folder: ``$XMR_CACHE``, ``$XDG_CACHE_HOME/xmr``, or ``~/.cache/xmr``.

    If the last two cannot be written (a container's user without a home, a read-only home), it is
    a folder of this user's in the system's folder of temporary files.
    """
    own = os.environ.get("XMR_CACHE")
    if own:
        return Path(own)
    try:
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:  # a user without a name and without HOME
        return _private_temporary_folder()
    return home / "xmr" if _can_make(home / "xmr") else _private_temporary_folder()


def _can_make(folder: Path) -> bool:
    """Say whether files can be made in a folder, which is made first if needed."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK | os.X_OK)


def _private_temporary_folder() -> Path:
    """Return a folder for temporary files that belongs to this user and that nobody else writes."""
    folder = Path(tempfile.gettempdir()) / f"xmr-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError:
        found = None
    if found is None or found.st_uid != os.getuid() or not stat.S_ISDIR(found.st_mode):
        return _made_for_this_process()  # the name is taken by somebody else
    return folder


@cache
def _made_for_this_process() -> Path:
    return Path(tempfile.mkdtemp(prefix="xmr-"))


def sha256_of(path: str | Path) -> str:
    """Hash the content of a file: SHA-256 as 64 hex digits."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
