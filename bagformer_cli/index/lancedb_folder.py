"""The folder of a LanceDB index: created whole, never over something else.

A local index is a folder::

    index/items.lance       the rows: LanceDB's table, the only data that cannot be derived again
    index/codebook.lance    one row: the codebook, if the index stores residual codes
    index/vector_cache/     the vector cache (vector_cache.py): derived data, may be deleted
    index/write.lock        held by the process that writes
    index/unfinished        the sources that are being added; stays if that is interrupted

LanceDB does not flush what it writes to the disk. :func:`on_disk` does, so that a write which has
returned survives a power cut.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock

from bagformer_cli.errors import InputError, first_few
from bagformer_cli.files import cache_folder, disk_errors, write_text
from bagformer_cli.messages import tr
from bagformer_cli.opening import require_plain_folder

TABLE, CODEBOOK = "items", "codebook"
NEW, WRITE_LOCK, INCOMPLETE = ".new-", "write.lock", "unfinished"
UNKNOWN = "?"  # a source that nobody noted


def is_remote(uri: str) -> bool:
    """Return whether an index lies on shared storage instead of a local folder.

    >>> is_remote("s3://bucket/index"), is_remote("index/")
    (True, False)
    """
    return "://" in uri


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder; its contents move to ``path`` when the block succeeds.

    The temporary folder lies inside ``path``, because ``path`` may be a mount, across which nothing
    can be renamed. The leftovers of a killed process are removed.

    Raises:
        InputError: ``path`` already holds something.
    """
    if path.exists() and (not path.is_dir() or any(map(_is_foreign, path.iterdir()))):
        raise already_exists(str(path))
    require_plain_folder(path)
    path.mkdir(parents=True, exist_ok=True)
    with disk_errors(path), FileLock(path / WRITE_LOCK):
        for left in path.iterdir():
            if _is_foreign(left):
                raise already_exists(str(path))
            if left.is_dir():
                shutil.rmtree(left)
        temporary = Path(tempfile.mkdtemp(prefix=NEW, dir=path))
        try:
            yield temporary
            # In this order "codebook" comes before "items": once there are rows, all is there.
            for made in sorted(temporary.iterdir()):
                with on_disk(path):
                    os.rename(made, path / made.name)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _is_foreign(found: Path) -> bool:
    """Tell whether a file is something else than the leftovers of an interrupted creation."""
    return not (found.name in (WRITE_LOCK, f"{CODEBOOK}.lance") or found.name.startswith(NEW))


@contextmanager
def on_disk(folder: Path) -> Iterator[None]:
    """Flush the files that the block writes below a folder, and the folders that hold them.

    Where nothing is written meanwhile by others; hold the lock of writers.
    """
    before = _stamps(folder)
    yield
    changed = [path for path, stamp in _stamps(folder).items() if before.get(path) != stamp]
    for path in changed:
        flush(path)
    for parent in {above for path in changed for above in path.parents}:
        if parent == folder or folder in parent.parents:
            flush(parent)


def _stamps(folder: Path) -> dict[Path, tuple[int, int]]:
    stamps = {}
    for parent, _, names in os.walk(folder):
        for name in names:
            path = Path(parent, name)
            with suppress(FileNotFoundError):
                about = path.stat()
                stamps[path] = about.st_mtime_ns, about.st_size
    return stamps


def flush(path: Path) -> None:
    """Flush a file, or the names in a folder, to the disk (fsync)."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def unfinished_sources(folder: Path) -> set[str]:
    """Return the sources in the file ``unfinished``; :data:`UNKNOWN` if it does not name them."""
    try:
        names = json.loads((folder / INCOMPLETE).read_text("utf-8"))
    except FileNotFoundError:
        return set()
    except (OSError, ValueError):  # an earlier version made an empty file
        return {UNKNOWN}
    return set(map(str, names)) if isinstance(names, list) else {UNKNOWN}


def mark(folder: Path, source: str, *, unfinished: bool) -> None:
    """Add a source to the file ``unfinished``, or remove it; without sources there is no file."""
    with FileLock(folder / WRITE_LOCK):
        sources = unfinished_sources(folder)
        left = sources | {source} if unfinished else sources - {source, UNKNOWN}
        if left:
            write_text(folder / INCOMPLETE, json.dumps(sorted(left), ensure_ascii=True))
        elif sources:
            (folder / INCOMPLETE).unlink()
            flush(folder)


def already_exists(uri: str) -> InputError:
    """Return the error for creating an index where there already is something."""
    if not is_remote(uri) and (Path(uri) / INCOMPLETE).exists():
        return InputError(
            tr("There already is an incomplete index here: its last build was interrupted."),
            where=uri,
            hint=tr("Complete it with xmr index add CATALOGUE {uri}, or remove it.", uri=uri),
        )
    if is_remote(uri) or (Path(uri) / f"{TABLE}.lance").exists():
        return InputError(
            tr("There already is an index here."),
            where=uri,
            hint=tr(
                "Add products to it: xmr index add CATALOGUE {uri}. To build a new one, choose "
                "another folder, or delete this one first.",
                uri=uri,
            ),
        )
    found = list(Path(uri).iterdir()) if Path(uri).is_dir() else []
    holds = sorted(one.name for one in found if _is_foreign(one))
    return InputError(
        tr("There already is something here."),
        where=uri,
        found=first_few(holds, 3) if holds else None,
        expected=tr("an empty folder, or one that does not exist"),
        hint=tr("Choose another folder: it is created."),
    )


def not_an_index(uri: str) -> InputError:
    """Return the error for opening a folder that is no index."""
    return InputError(
        tr("This is not an index of xmr."),
        where=uri,
        hint=tr("Create one: xmr index build CATALOGUE FOLDER"),
    )


def vector_cache_folder(uri: str, name: str) -> Path:
    """Return where the vector cache of an index lies: inside the index if that can be written.

    Args:
        uri: The index.
        name: The unique name of the index. An index built later at the same place has another
            name, so it never reads this cache.
    """
    if is_remote(uri):
        return user_cache_folder(uri, name)
    own = _renamed(Path(uri) / "mirror", Path(uri) / "vector_cache") / name
    return own if own.is_dir() or os.access(uri, os.W_OK) else user_cache_folder(uri, name)


def user_cache_folder(uri: str, name: str) -> Path:
    """Return the folder of a vector cache in the user's cache folder."""
    digest = hashlib.sha256(f"{uri} {name}".encode()).hexdigest()
    parent = cache_folder()
    return _renamed(parent / "mirrors", parent / "vector_caches") / digest[:16]


def _renamed(old: Path, new: Path) -> Path:
    """Rename a folder of an earlier version; return where it lies now."""
    if old.is_dir() and not new.exists():
        with suppress(OSError):  # read-only, or another process was faster
            old.rename(new)
    return old if old.is_dir() and not new.exists() else new
