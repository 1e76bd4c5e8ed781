"""Write files and folders that appear only when they are complete.

A file is written under a temporary name in the same folder, flushed to the disk, and renamed. So a
reader sees the old content or the new, never a part of it. A full disk becomes a
:class:`DiskFullError`, and the unfinished file is removed.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bagformer_cli.errors import DiskFullError
from bagformer_cli.messages import tr

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn 'no space left' in the block into a :class:`DiskFullError` that names ``path``."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise DiskFullError(
                tr("The disk is full; no unfinished file was left."),
                where=path,
                found=error.strerror,
                hint=tr("Free some space or choose another folder, then run the command again."),
            ) from error
        raise


@contextmanager
def atomic_file(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path next to ``path``; rename it to ``path`` when the block succeeds."""
    path = Path(path)
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            os.chmod(temporary, 0o666 & ~_umask())
            _fsync(temporary)
            os.replace(temporary, path)
            _fsync(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: str | Path, *, keep_existing: bool = False) -> Iterator[Path]:
    """Yield a temporary folder next to ``path``; rename it to ``path`` when the block succeeds.

    An existing folder is first renamed to ``.<name>.old`` and deleted once the new one is in place.
    A process killed between the two renames leaves only the old folder under that name:
    :func:`recover_folder` brings it back.

    Args:
        path: The folder to make.
        keep_existing: Several processes may make the same content at the same time: the folder of
            the first one stays, by a single rename, and later ones are thrown away.
    """
    path = Path(path)
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        recover_folder(path)
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent))
        aside = _aside(path)
        try:
            yield temporary
            os.chmod(temporary, 0o777 & ~_umask())
            for one in (*temporary.rglob("*"), temporary):
                if one.is_file() or one.is_dir():
                    _fsync(one)
            if path.exists() and not keep_existing:
                os.replace(path, aside)
            try:
                os.replace(temporary, path)
            except OSError:  # a folder that is not empty is never replaced
                if not (keep_existing and path.is_dir()):
                    raise
            _fsync(path.parent)
        finally:
            recover_folder(path)
            shutil.rmtree(temporary, ignore_errors=True)


def recover_folder(path: str | Path) -> None:
    """Restore ``path`` after a process was killed inside :func:`atomic_folder`."""
    path = Path(path)
    aside = _aside(path)
    if aside.exists():
        if path.exists():
            shutil.rmtree(aside)
        else:
            os.replace(aside, path)


def _aside(path: Path) -> Path:
    return path.parent / f".{path.name}.old"


def write_text(path: str | Path, text: str) -> None:
    """Write ``text`` as UTF-8; the file appears only when it is complete."""
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def cache_folder() -> Path:
    """Find the cache folder: ``$XMR_CACHE``, ``$XDG_CACHE_HOME/xmr``, or ``~/.cache/xmr``."""
    own = os.environ.get("XMR_CACHE")
    if own:
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "xmr"


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
