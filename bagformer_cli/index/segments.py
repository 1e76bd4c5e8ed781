"""A segment of the vector cache: the vectors of rows that were copied together, and their row ids.

The files are derived data that may have been damaged, or made by a stranger. Compiled loops read
them without checks, so everything that a loop follows is checked when a segment is opened.

Shapes: n rows of the segment.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from bagformer_cli.files import atomic_file
from bagformer_cli.opening import load_array
from bagformer_cli.vectors.multi_vectors import MultiVectors
from bagformer_cli.vectors.storage import open_vectors, write_vectors

Keys = NDArray[np.uint64]

_NAME = re.compile(r"segment-[0-9a-f]{12}")


@dataclass(frozen=True)
class Segment:
    """Rows that were copied together.

    Args:
        name: ``segment-`` and 12 hexadecimal digits: the name of its folder.
        vectors: Their vectors, memory-mapped.
        keys: [n] their row ids, rising.
        checksum: CRC-32 of all files but the vectors' values, which take too long to read.
    """

    name: str
    vectors: MultiVectors
    keys: Keys
    checksum: int

    @classmethod
    def write(cls, folder: Path, name: str, keys: Keys, parts: Iterable[MultiVectors]) -> Self:
        """Write a segment; its files appear whole."""
        write_vectors(folder / name, parts)
        with atomic_file(_keys_file(folder, name)) as temporary, open(temporary, "wb") as out:
            np.save(out, keys)
        return cls.open(folder, name, _checksum(folder, name))

    @classmethod
    def open(cls, folder: Path, name: str, checksum: int) -> Self:
        """Open and check a segment.

        Args:
            folder: The folder of all segments.
            name: The segment's name.
            checksum: The checksum when it was written.

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
        return cls(name, open_vectors(folder / name, len(keys)), keys, checksum)


def _keys_file(folder: Path, name: str) -> Path:
    return folder / f"{name}.keys.npy"


def _checksum(folder: Path, name: str) -> int:
    checksum = crc32(_keys_file(folder, name).read_bytes())
    for file in sorted((folder / name).iterdir()):
        if file.name != "values.npy":
            checksum = crc32(file.read_bytes(), crc32(file.name.encode(), checksum))
    return checksum
