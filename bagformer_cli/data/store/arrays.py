"""A one-dimensional ``.npy`` file that grows and survives an interruption."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import IO, Any, BinaryIO

import numpy as np
from numpy.lib import format as npy
from numpy.typing import DTypeLike, NDArray

from bagformer_cli.files import disk_errors


class GrowingArray:
    """A ``.npy`` file that can be appended to; valid on disk after each :meth:`sync`.

    The header holds the length. NumPy pads the header, so a larger length fits in its place.

    Args:
        path: The file.
        dtype: Type of the elements.
        length: Number of elements to keep of an existing file; 0: start an empty file. Elements
            after them, written by a run that was killed before its sync, are cut off.
    """

    def __init__(self, path: Path, dtype: DTypeLike, length: int = 0) -> None:
        self.path, self.dtype, self.length = path, np.dtype(dtype), length
        self._stream: BinaryIO = open(path, "r+b" if length else "w+b")  # noqa: SIM115
        self._write_header()
        self._begin = self._stream.tell()
        self._stream.truncate(self._begin + length * self.dtype.itemsize)
        self._stream.seek(0, os.SEEK_END)

    def append(self, values: NDArray[Any]) -> None:
        """Append elements."""
        with disk_errors(self.path):
            self._stream.write(np.ascontiguousarray(values, self.dtype).data)
        self.length += len(values)

    def sync(self) -> None:
        """Update the length in the header and flush everything to the disk."""
        with disk_errors(self.path):
            self._stream.seek(0)
            self._write_header()
            self._stream.seek(0, os.SEEK_END)
            self._stream.flush()
            os.fsync(self._stream.fileno())

    def close(self) -> None:
        """Close the file. Elements appended after the last :meth:`sync` do not count."""
        self._stream.close()

    def _write_header(self) -> None:
        _write_header(self._stream, self.dtype, self.length)


def npy_header_bytes(dtype: DTypeLike) -> int:
    """Return the size of the header of a one-dimensional ``.npy`` file."""
    stream = io.BytesIO()
    _write_header(stream, np.dtype(dtype), 0)
    return stream.tell()


def _write_header(stream: IO[bytes], dtype: np.dtype[Any], length: int) -> None:
    npy.write_array_header_1_0(
        stream,
        {"descr": npy.dtype_to_descr(dtype), "fortran_order": False, "shape": (length,)},
    )
