"""Remember which models the user has chosen, so that a stranger's index opens no other.

An index names the folder of its model. In an index of somebody else that could be any folder. It
is opened without a question if the user has named it before with ``--checkpoint`` (the cache
folder keeps a list), or if it is below the working directory or the home folder and not inside the
index.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from bagformer_cli.files import cache_folder

FILE = "models.txt"


def remember_model(folder: str | Path) -> None:
    """Note that the user has chosen a model folder; if the cache cannot be written, do nothing."""
    path = str(Path(folder).resolve())
    with suppress(OSError):
        if path not in _remembered():
            file = cache_folder() / FILE
            file.parent.mkdir(parents=True, exist_ok=True)
            with file.open("a", encoding="utf-8", errors="surrogateescape") as stream:
                stream.write(f"{path}\n")


def is_own_model(folder: Path, index: str) -> bool:
    """Tell whether a model folder that an index names may be opened without ``--trust``.

    Args:
        folder: The model folder.
        index: The address of the index. A model inside its folder came with it.
    """
    path = folder.resolve()
    if str(path) in _remembered():
        return True
    if "://" not in index and path.is_relative_to(Path(index).resolve()):
        return False
    places = [Path.cwd()]
    with suppress(RuntimeError):  # a user without a home
        places.append(Path.home())
    own = [place.resolve() for place in places if place.resolve() != Path("/")]
    return any(path.is_relative_to(place) for place in own)


def _remembered() -> set[str]:
    try:
        text = (cache_folder() / FILE).read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return set()
    return set(text.split("\n"))
