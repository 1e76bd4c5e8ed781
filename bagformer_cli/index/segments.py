"""Segments of the vector cache: the vectors of rows that were copied together, and their row ids.

``segments.json`` lists the segments that belong to the cache; a reader sees the old list or the new
one, never half of a change.

The files are derived data that may have been damaged, or made by a stranger. Compiled loops read
them without checks, so everything that a loop follows is checked when a segment is opened.

Shapes: n rows of the segment.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Self
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from bagformer_cli.files import atomic_file, write_text
from bagformer_cli.opening import load_array
from bagformer_cli.vectors.stored_arrays import StoredArrays, open_arrays

if TYPE_CHECKING:
    from bagformer_cli.vectors.multi_vectors import MultiVectors

Keys = NDArray[np.uint64]
Listed = tuple[str, int, int]
"""Name, checksum and version of a segment."""

LIST = "segments.json"
_NAME = re.compile(r"segment-[0-9a-f]{12}")


@dataclass(frozen=True)
class Segment:
    """Rows that were copied together.

    Args:
        name: ``segment-`` and 12 hexadecimal digits: the name of its folder.
        folder: The folder of all segments.
        arrays: Their vectors, memory-mapped.
        keys: [n] their row ids, rising.
        checksum: CRC-32 of all files but the vectors' values, which take too long to read.
        version: Version of the table that they were copied from.
    """

    name: str
    folder: Path
    arrays: StoredArrays
    keys: Keys
    checksum: int
    version: int

    @property
    def listed(self) -> Listed:
        """Entry of this segment in ``segments.json``."""
        return self.name, self.checksum, self.version

    @cached_property
    def vectors(self) -> MultiVectors:
        """The vectors as torch's kernels take them; nothing is copied.

        Raises:
            InputError: The codebook is damaged.
        """
        from bagformer_cli.vectors.storage import as_multi_vectors

        return as_multi_vectors(self.arrays, self.folder / self.name)

    @classmethod
    def write(
        cls, folder: Path, name: str, keys: Keys, parts: Iterable[MultiVectors], version: int
    ) -> Self:
        """Write a segment; its files appear whole."""
        from bagformer_cli.vectors.storage import write_vectors

        write_vectors(folder / name, parts)
        with atomic_file(_keys_file(folder, name)) as temporary, open(temporary, "wb") as out:
            np.save(out, keys)
        return cls.open(folder, name, _checksum(folder, name), version)

    @classmethod
    def open(cls, folder: Path, name: str, checksum: int, version: int) -> Self:
        """Open and check a segment.

        Args:
            folder: The folder of all segments.
            name: The segment's name.
            checksum: The checksum when it was written.
            version: The version of the table that it was copied from.

        Raises:
            InputError, OSError, ValueError, EOFError: It is missing or damaged.
        """
        if not _NAME.fullmatch(name):
            raise ValueError(name)
        keys = load_array(_keys_file(folder, name))
        if keys.dtype != np.uint64 or keys.ndim != 1 or (keys[1:] <= keys[:-1]).any():
            raise ValueError(f"{name}: row ids")
        if _checksum(folder, name) != checksum:
            raise ValueError(f"{name}: checksum")
        opened = cls(name, folder, open_arrays(folder / name, len(keys)), keys, checksum, version)
        if opened.arrays.codebook is not None:
            _ = opened.vectors  # whether the codebook can be read
        return opened


def read_list(folder: Path) -> list[Listed] | None:
    """Read which segments a cache has; None if the list is damaged.

    Without a list, or with one of an earlier version, a cache has no segment.
    """
    try:
        listed = json.loads((folder / LIST).read_text("utf-8"))["segments"]
        if all(isinstance(one, str) or len(one) == 2 for one in listed):  # of an older version
            return []
        found = [(str(name), int(crc), int(version)) for name, crc, version in listed]
        return found if all(0 <= version < 1 << 62 for *_, version in found) else None
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_list(folder: Path, segments: Sequence[Segment]) -> None:
    """Replace the list of a cache's segments."""
    listed = [segment.listed for segment in segments]
    write_text(folder / LIST, json.dumps({"segments": listed}))


def open_segments(folder: Path, listed: Sequence[Listed]) -> list[Segment]:
    """Open the segments of a list, and check that they fit each other.

    Raises:
        InputError, OSError, ValueError, EOFError: One is missing or damaged, or they do not fit.
    """
    segments = [Segment.open(folder, *one) for one in listed]
    kinds = {(segment.arrays.storage, segment.arrays.dim) for segment in segments}
    if len(kinds) > 1:
        raise ValueError(LIST)
    for version in {segment.version for segment in segments}:  # of other versions rows may recur
        keys = np.concatenate([one.keys for one in segments if one.version == version])
        if len(np.unique(keys)) < len(keys):
            raise ValueError(LIST)
    return segments


def _keys_file(folder: Path, name: str) -> Path:
    return folder / f"{name}.keys.npy"


def _checksum(folder: Path, name: str) -> int:
    checksum = crc32(_keys_file(folder, name).read_bytes())
    for file in sorted((folder / name).iterdir()):
        if file.name != "values.npy":
            checksum = crc32(file.read_bytes(), crc32(file.name.encode(), checksum))
    return checksum
