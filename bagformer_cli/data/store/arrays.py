"""A one-dimensional ``.npy`` file that grows and survives an interruption."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, BinaryIO

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
        npy.write_array_header_1_0(
            self._stream,
            {
                "descr": npy.dtype_to_descr(self.dtype),
                "fortran_order": False,
                "shape": (self.length,),
            },
        )
