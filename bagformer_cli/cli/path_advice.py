"""Advice about a path that is missing, of the wrong kind, or must not be opened."""

from __future__ import annotations

import os
from itertools import islice
from pathlib import Path

from bagformer_cli.errors import nearest
from bagformer_cli.messages import tr

_MOST_NAMES = 2000  # names of a folder that are compared with a misspelt one


def path_advice(path: str, reason: str) -> str:
    """Say what to do about a path.

    Args:
        path: The path, as the user or a table wrote it.
        reason: See :class:`~bagformer_cli.errors.PathError`.
    """
    if reason == "folder":
        return _inside(Path(path))
    if reason == "denied":
        return tr("Change its permissions or use another path: `ls -ld` shows its owner.")
    if reason == "exists":
        return tr("Choose another name, or move what is there.")
    if reason == "long":
        return tr("A name has 255 bytes at most, which are 85 Chinese characters.")
    blocking = _file_on_the_way(Path(path))
    if blocking is not None:
        return tr("{path} is a file. Name a folder.", path=blocking)
    return _about_missing(Path(path))


def _inside(folder: Path) -> str:
    """Suggest a file of a folder."""
    for name in sorted(_names(folder)):
        if not name.startswith(".") and (folder / name).is_file():
            return tr("Name a file, for example {path}.", path=folder / name)
    return tr("Name a file.")


def _file_on_the_way(path: Path) -> Path | None:
    """Return the part of a path that is a file where a folder is needed."""
    on_the_way = (path, *path.parents)
    return next((part for part in on_the_way if part.exists() and not part.is_dir()), None)


def _about_missing(path: Path) -> str:
    """Suggest a similar name, or name the folder that is missing too."""
    missing, known = path, path.parent
    while not known.is_dir() and known != known.parent:
        missing, known = known, known.parent
    near = nearest(missing.name, _names(known))
    if near is not None:
        return tr("Did you mean {name}?", name=known / near / path.relative_to(missing))
    if missing != path:
        return tr("The folder {folder} does not exist.", folder=missing)
    return tr("Check the path. The current folder is {folder}.", folder=Path.cwd())


def _names(folder: Path) -> list[str]:
    """List some names of a folder; none if it cannot be read."""
    try:
        with os.scandir(folder) as found:
            return [entry.name for entry in islice(found, _MOST_NAMES)]
    except OSError:
        return []
