"""Read the folders of ``storage.py`` without torch: memory-mapped numpy arrays.

The files may be damaged, or a stranger's. Compiled loops read the arrays without checks, so sizes
and offsets are checked when a folder is opened.

Shapes: n items, N vectors in total, D dimensions, W numbers per stored vector.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import DTypeLike, NDArray

from bagformer_cli.errors import InputError
from bagformer_cli.messages import tr
from bagformer_cli.opening import load_array
from bagformer_cli.vectors.arrays import Vectors

FORMAT = 1
RESIDUAL4 = "residual4"
"""The type of residual codes (``residual_codes.py``); others are ``int8``, ``float16`` …"""
BITS = 4  # of a residual code, per dimension

STORED: dict[str, DTypeLike] = {
    "int8": np.int8,
    "float16": np.float16,
    "bfloat16": np.uint16,  # numpy has no bfloat16: the same bits
    "float32": np.float32,
    RESIDUAL4: np.uint8,
}
"""The numpy type of ``values.npy`` for each type of stored vectors."""


@dataclass(frozen=True)
class StoredArrays:
    """The items of a folder.

    Args:
        storage: Type of the vectors, a key of :data:`STORED`.
        dim: D; of residual codes after decoding.
        values: [N, W] of ``STORED[storage]``; W is D except for residual codes.
        offsets: [n + 1] int64, from 0 to N, not decreasing.
        scales: [n] float32, for int8 only.
        codebook: Content of ``codebook.npz``, for residual codes only.
    """

    storage: str
    dim: int
    values: NDArray[Any]
    offsets: NDArray[np.int64]
    scales: NDArray[np.float32] | None = None
    codebook: bytes | None = None

    @property
    def plain(self) -> Vectors | None:
        """The items, if numpy can multiply their values; None for bfloat16 and residual codes."""
        if self.storage in ("bfloat16", RESIDUAL4):
            return None
        return Vectors(self.values, self.offsets, self.scales)


def open_arrays(folder: str | Path, count: int | None = None) -> StoredArrays:
    """Map the items of a folder into memory; values are not read before they are used.

    Args:
        folder: The folder.
        count: Number of items that it must have; None: any.

    Raises:
        InputError: The folder was not written by ``write_vectors``, or is damaged.
    """
    folder = Path(folder)
    try:
        record: dict[str, Any] = json.loads((folder / "vectors.json").read_text("utf-8"))
        if record["format"] != FORMAT:
            raise ValueError(f"format {record['format']}")
        storage, dim, items = record["dtype"], record["dim"], record["items"]
        dtype = STORED[storage]
        sizes = [dim, items, record["vectors"], record["length"] or 0]
        if any(type(size) is not int or size < 0 for size in sizes):
            raise ValueError("vectors.json")
        if count is not None and items != count:
            raise ValueError(f"{items} items ≠ {count}")
        codebook = (folder / "codebook.npz").read_bytes() if storage == RESIDUAL4 else None
        width = dim if codebook is None else code_width(dim)
        values = _mapped(folder / "values.npy", record["vectors"] * width, dtype)
        if record["length"] is None:
            offsets = _loaded(folder / "offsets.npy", items + 1, np.int64)
            if offsets[0] != 0 or offsets[-1] != record["vectors"] or (np.diff(offsets) < 0).any():
                raise ValueError("offsets.npy")
        else:
            if items * record["length"] != record["vectors"]:
                raise ValueError(f"{items} items of {record['length']} vectors")
            offsets = np.arange(items + 1, dtype=np.int64) * record["length"]
        scales = None
        if storage == "int8":
            scales = _mapped(folder / "scales.npy", items, np.float32)
        values = values.reshape(record["vectors"], width)
        return StoredArrays(storage, dim, values, offsets, scales, codebook)
    except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
        raise unreadable(folder) from error


def unreadable(folder: Path) -> InputError:
    """Return the error for a folder that is damaged or something else."""
    return InputError(
        tr("These stored vectors cannot be read."),
        where=folder,
        hint=tr("They are damaged or incomplete. Copy or write them again."),
    )


def code_width(dim: int) -> int:
    """Return W, the bytes of one residual code: two for the centroid, half a byte per dimension.

    >>> code_width(256)
    130
    """
    return 2 + dim * BITS // 8


def _mapped(path: Path, size: int, dtype: DTypeLike) -> NDArray[Any]:
    # torch requires writable memory: with copy-on-write the file is never changed.
    return _loaded(path, size, dtype, "c" if size else None)


def _loaded(
    path: Path, size: int, dtype: DTypeLike, mode: Literal["c"] | None = None
) -> NDArray[Any]:
    """Load an array and check what its header says."""
    array = load_array(path, mapped=mode is not None, writable=True)
    if array.shape != (size,) or array.dtype != dtype:
        raise ValueError(f"{path.name}: {array.dtype} {list(array.shape)} ≠ {size}")
    return array
