"""A one-dimensional ``.npy`` file that grows, and that survives being cut short."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.lib import format as npy
from numpy.typing import DTypeLike, NDArray

from bagformer_cli.files import disk_errors


class GrowingArray:
    """Appends to a ``.npy`` file; after each :meth:`sync` it is a whole, valid one.

    NumPy leaves room in the header for the length to grow in place.

    Args:
        path: The file.
        dtype: Of its elements.
        length: How many elements to keep of what is there (0: start anew). What a killed run
            appended behind them is cut off.
    """

    def __init__(self, path: Path, dtype: DTypeLike, length: int = 0) -> None:
        self.path, self.dtype, self.length = path, np.dtype(dtype), length
        self._stream: BinaryIO = open(path, "r+b" if length else "w+b")  # noqa: SIM115
        self._write_header()
        self._begin = self._stream.tell()
        self._stream.truncate(self._begin + length * self.dtype.itemsize)
        self._stream.seek(0, os.SEEK_END)

    def append(self, values: NDArray[Any]) -> None:
        """Add elements at the end."""
        with disk_errors(self.path):
            self._stream.write(np.ascontiguousarray(values, self.dtype).data)
        self.length += len(values)

    def sync(self) -> None:
        """Make what was appended part of the file, on the disk."""
        with disk_errors(self.path):
            self._stream.seek(0)
            self._write_header()
            self._stream.seek(0, os.SEEK_END)
            self._stream.flush()
            os.fsync(self._stream.fileno())

    def close(self) -> None:
        """Close the file, as it was at the last :meth:`sync` or a little longer."""
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
