"""Keep the arrays of lexicons in the user's cache folder, and open them again.

    <cache>/lexicon/<digest of the sources>/
        lexicon.txt                          the entries, as a model folder has them
        entries/*.npy  units/*.npy           the automaton of the entries, the tree of the units
        cost.npy type.npy head.npy           by entry
        heads.npy suffixes.npy               code points and costs
        meta.json                            types, fingerprint, checksum of every other file

A folder is used only if every checksum is right and every array fits the others: compiled loops
follow the numbers in them without looking. Anything else is deleted and made again. A cache that
cannot be written is replaced by a temporary folder of this process.
"""

from __future__ import annotations

import atexit
import json
import mmap
import shutil
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from bagformer_cli.errors import DiskFullError, InputError
from bagformer_cli.files import atomic_folder, cache_folder
from bagformer_cli.messages import tr
from bagformer_cli.opening import load_array
from bagformer_cli.text.automaton import AUTOMATON_FILES, TREE_FILES, Automaton, PrefixTree
from bagformer_cli.text.automaton_checks import check_automaton, check_tree
from bagformer_cli.text.characters import CODE_POINTS
from bagformer_cli.text.cover_arrays import LexiconArrays

BY_ENTRY = ("cost", "type", "follows", "heads", "suffixes")
"""Names of the arrays besides automaton and tree."""

_FILES = (
    "lexicon.txt",
    *(f"{name}.npy" for name in BY_ENTRY),
    *(f"entries/{name}.npy" for name in AUTOMATON_FILES),
    *(f"units/{name}.npy" for name in TREE_FILES),
)


class Cached(NamedTuple):
    """A lexicon in the cache.

    Args:
        folder: Its folder.
        arrays: The arrays, mapped from it.
        types: The names of the types.
        fingerprint: Identifies the content.
        remarkable: Whether reading the dictionaries again would give remarks.
        remark: A sentence about the cache itself, empty: there is nothing to say.
    """

    folder: Path
    arrays: LexiconArrays
    types: tuple[str, ...]
    fingerprint: str
    remarkable: bool
    remark: str = ""


class _DamagedError(Exception):
    """A cache folder is not what was written."""


def open_cached(digest: str, write: Callable[[Path], None]) -> Cached:
    """Open the lexicon of a digest, or make it.

    Args:
        digest: Names the folder.
        write: Writes all files but the checksums into a folder (they are added here).
    """
    folder = cache_folder() / "lexicon" / digest
    remark = ""
    if folder.exists():
        try:
            return _open(folder)
        except _DamagedError:
            remark = tr("The prepared dictionary in {path} was damaged. It was made again.",
                        path=folder)  # fmt: skip
    try:
        # A damaged one is replaced in one step: other processes may have it open.
        with atomic_folder(folder, keep_existing=not folder.exists()) as temporary:
            _write(temporary, write)
        return _open(folder)._replace(remark=remark)
    except DiskFullError:
        raise
    except (OSError, _DamagedError) as error:
        remark = tr(
            "The cache folder {path} cannot be used ({error}). Dictionaries are prepared again by "
            "every command, which takes seconds. Set XMR_CACHE to a folder that can be written.",
            path=folder.parent.parent,
            error=getattr(error, "strerror", None) or tr("a file is damaged"),
        )
    return _open(_temporary(write))._replace(remark=remark)


def _temporary(write: Callable[[Path], None]) -> Path:
    """Make a lexicon in a temporary folder, which is deleted at the end of the process."""
    try:
        folder = Path(tempfile.mkdtemp(prefix="xmr-lexicon-"))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        _write(folder, write)
    except OSError as error:
        raise InputError(
            tr("There is no folder for temporary files."),
            found=error.strerror,
            hint=tr("Set XMR_CACHE to a folder that can be written."),
        ) from error
    return folder


def _write(folder: Path, write: Callable[[Path], None]) -> None:
    write(folder)
    meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
    meta["checksums"] = {name: _checksum(folder / name) for name in _FILES}
    (folder / "meta.json").write_text(json.dumps(meta), encoding="utf-8")


def _checksum(path: Path) -> int:
    with open(path, "rb") as stream:
        if path.stat().st_size == 0:  # an empty file cannot be mapped
            return 0
        with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return zlib.crc32(content)


def _open(folder: Path) -> Cached:
    """Map a folder of the cache.

    Raises:
        _DamagedError: It is not what was written.
    """
    try:
        meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        checksums = meta["checksums"]
        for name in _FILES:
            if checksums[name] != _checksum(folder / name):
                raise _DamagedError(name)
        types = tuple(str(name) for name in meta["types"])
        arrays = _arrays(folder, len(types))
        fingerprint, remarkable = str(meta["fingerprint"]), bool(meta["remarkable"])
    except (InputError, OSError, EOFError, ValueError, KeyError, TypeError, IndexError) as error:
        raise _DamagedError(str(error)) from error
    return Cached(folder, arrays, types, fingerprint, remarkable)


def _arrays(folder: Path, types: int) -> LexiconArrays:
    """Map the arrays and check that no loop over them could leave them.

    Raises:
        ValueError: One could.
    """
    cost, kind, follows, heads, suffixes = (
        np.asarray(load_array(folder / f"{name}.npy", mapped=True)) for name in BY_ENTRY
    )
    entries, units = Automaton.open(folder / "entries"), PrefixTree.open(folder / "units")
    check_automaton(entries, len(cost))
    check_tree(units)
    _require(cost.dtype == np.int32 and cost.ndim == 1 and bool((cost > 0).all()))
    _require(kind.dtype == np.int16 and kind.shape == cost.shape)
    _require(not len(kind) or (int(kind.min()) >= -1 and int(kind.max()) < types))
    _require(follows.dtype == np.int8 and follows.shape == cost.shape)
    return LexiconArrays(entries, cost, kind, follows, units, end_costs(heads), end_costs(suffixes))


def end_costs(ends: npt.NDArray[Any]) -> npt.NDArray[np.int32]:
    """Return the cost of each code point [0x110000] as a head or suffix, 0: it is none.

    Args:
        ends: [2, n] int64, the code points and their costs.

    Raises:
        ValueError: A code point or a cost is out of range.
    """
    _require(ends.dtype == np.int64 and ends.ndim == 2 and len(ends) == 2)
    if ends.size:
        _require(int(ends.min()) > 0 and int(ends[0].max()) < CODE_POINTS)
        _require(int(ends[1].max()) < 1 << 31)
    costs = np.zeros(CODE_POINTS, np.int32)
    costs[ends[0]] = ends[1]
    return costs


def _require(fits: bool) -> None:
    if not fits:
        raise ValueError("an array does not fit the others")
