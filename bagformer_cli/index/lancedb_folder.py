"""Where an index in LanceDB lies: made whole, and never over something else."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from bagformer_cli.errors import InputError
from bagformer_cli.files import cache_folder, disk_errors
from bagformer_cli.messages import tr

TABLE, CODEBOOK = "items", "codebook"
NEW, WRITE_LOCK, UNFINISHED = ".new-", "write.lock", "unfinished"


def is_remote(uri: str) -> bool:
    """Whether it is on shared storage and not a folder here."""
    return "://" in uri


@contextmanager
def new_place(path: Path) -> Iterator[Path]:
    """A folder to make an index in, which then appears whole at ``path``, that there be none yet.

    It lies inside ``path``, which may be a mount. What a process killed meanwhile has left is
    no index and not in the way.
    """
    if path.exists() and (not path.is_dir() or any(map(_in_the_way, path.iterdir()))):
        raise taken(str(path))
    path.mkdir(parents=True, exist_ok=True)
    with disk_errors(path), FileLock(path / WRITE_LOCK):
        for left in path.iterdir():
            if _in_the_way(left):
                raise taken(str(path))
            if left.is_dir():
                shutil.rmtree(left)
        temporary = Path(tempfile.mkdtemp(prefix=NEW, dir=path))
        try:
            yield temporary
            for made in sorted(temporary.iterdir()):  # the codebook, and last the rows
                os.rename(made, path / made.name)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _in_the_way(found: Path) -> bool:
    return not (found.name in (WRITE_LOCK, f"{CODEBOOK}.lance") or found.name.startswith(NEW))


def taken(uri: str) -> InputError:
    """The error for a place where an index cannot be made."""
    if not is_remote(uri) and (Path(uri) / UNFINISHED).exists():
        return InputError(
            tr("There is an index here that was left in the middle of being filled."),
            where=uri,
            hint=tr("Go on with xmr index add CATALOGUE {uri}, or remove it.", uri=uri),
        )
    return InputError(
        tr("There is something at this place already."),
        where=uri,
        hint=tr("Choose another folder, add to it with xmr index add, or remove it."),
    )


def not_an_index(uri: str) -> InputError:
    """The error for a place that holds something else."""
    return InputError(
        tr("This is not an index of xmr."),
        where=uri,
        hint=tr("Make one: xmr index build CATALOGUE FOLDER"),
    )


def mirror_folder(uri: str, name: str) -> Path:
    """Where the mirror of an index lies: beside its table, or in the cache where that cannot be.

    Args:
        uri: Of the index.
        name: That no other index has, not even one that lay at the same place before.
    """
    own = Path(uri) / "mirror" / name
    if not is_remote(uri) and (own.is_dir() or os.access(uri, os.W_OK)):
        return own
    return cached_mirror(uri, name)


def cached_mirror(uri: str, name: str) -> Path:
    """Its place in the cache folder."""
    digest = hashlib.sha256(f"{uri} {name}".encode()).hexdigest()
    return cache_folder() / "mirrors" / digest[:16]
