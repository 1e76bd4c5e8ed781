"""Store ``MultiVectors`` in a folder and map them into memory, so that a scan reads from disk.

The files are raw numpy arrays:

- ``vectors.json``: ``{"format": 1, "dtype": "int8", "dim": 256, "items": 1000, "vectors": 32000,
  "length": 32}``; ``length`` is null if items have different numbers of vectors
- ``values.npy``: [N·D] of ``dtype`` (bfloat16 as the uint16 of its bits)
- ``offsets.npy``: [n+1] int64, only if ``length`` is null
- ``scales.npy``: [n] float32, only for int8
- ``codebook.npz``: only for residual codes (``residual4``); ``values.npy`` is then [N·W] uint8

Shapes: n items, N vectors in total, D dimensions, W bytes per residual code.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bagformer_cli.data.store.arrays import GrowingArray
from bagformer_cli.files import atomic_folder, write_text
from bagformer_cli.vectors.multi_vectors import MultiVectors
from bagformer_cli.vectors.residual_codes import Codebook
from bagformer_cli.vectors.stored_arrays import (
    FORMAT,
    RESIDUAL4,
    STORED,
    StoredArrays,
    open_arrays,
    unreadable,
)

DTYPES = {
    "int8": torch.int8,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float32": torch.float32,
    RESIDUAL4: torch.uint8,
}


def write_vectors(folder: str | Path, parts: Iterable[MultiVectors]) -> MultiVectors:
    """Write items to a folder and open it. The folder appears only when it is complete.

    Args:
        folder: Folder to write; an existing one is replaced at the end.
        parts: Parts of the items in order, of the same type and dimension; at least one.

    Raises:
        ValueError: There is no part, the parts differ, or the type is not in :data:`DTYPES`.
    """
    folder = Path(folder)
    with atomic_folder(folder) as temporary, ExitStack() as stack:
        first: MultiVectors | None = None
        arrays: dict[str, GrowingArray] = {}
        end = 0
        length: int | None = None
        for part in parts:
            if first is None:
                first, length = part[:0], part.uniform_length
                _check(part, first)
                arrays = _arrays(temporary, part)
                for array in arrays.values():
                    stack.enter_context(closing(array))
            _check(part, first)
            if len(part) and part.uniform_length != length:
                length = None
            for name, values in _columns(part, end).items():
                arrays[name].append(values)
            end += len(part.values)
        if first is None:
            raise ValueError("write_vectors needs at least one part: D is unknown without one")
        for array in arrays.values():
            array.sync()
        record = {
            "format": FORMAT,
            "dtype": first.storage,
            "dim": first.dim,
            "items": arrays["ends"].length,
            "vectors": end,
            "length": length,
        }
        _finish(temporary, arrays.pop("ends"), length)
        if first.codebook is not None:
            (temporary / "codebook.npz").write_bytes(first.codebook.to_bytes())
        write_text(temporary / "vectors.json", json.dumps(record))
    return open_vectors(folder)


def open_vectors(folder: str | Path, count: int | None = None) -> MultiVectors:
    """Map the items of a folder into memory; values are not read before they are used.

    Args:
        folder: The folder.
        count: Number of items that it must have; None: any.

    Raises:
        InputError: The folder was not written by :func:`write_vectors`, or is damaged.
    """
    return as_multi_vectors(open_arrays(folder, count), Path(folder))


def as_multi_vectors(arrays: StoredArrays, folder: Path) -> MultiVectors:
    """Return the items of a folder as tensors; nothing is copied.

    Raises:
        InputError: The codebook is damaged.
    """
    try:
        values = torch.from_numpy(arrays.values)
        values = values.view(torch.bfloat16) if arrays.storage == "bfloat16" else values
        scales = None if arrays.scales is None else torch.from_numpy(arrays.scales)
        codebook = None
        if arrays.codebook is not None:
            codebook = Codebook.from_bytes(arrays.codebook)
            if codebook.dim != arrays.dim:
                raise ValueError("codebook.npz")
        return MultiVectors(values, torch.from_numpy(arrays.offsets), scales, codebook)
    except (ValueError, RuntimeError) as error:
        raise unreadable(folder) from error


def _arrays(folder: Path, part: MultiVectors) -> dict[str, GrowingArray]:
    arrays = {
        "values": GrowingArray(folder / "values.npy", STORED[part.storage]),
        "ends": GrowingArray(folder / "ends.npy", np.int64),
    }
    if part.scales is not None:
        arrays["scales"] = GrowingArray(folder / "scales.npy", np.float32)
    return arrays


def _columns(part: MultiVectors, start: int) -> dict[str, np.ndarray[Any, Any]]:
    values = part.values.detach().cpu().contiguous()
    values = values.view(torch.uint16) if values.dtype == torch.bfloat16 else values
    columns = {"values": values.view(-1).numpy(), "ends": (part.offsets[1:] + start).numpy()}
    if part.scales is not None:
        columns["scales"] = part.scales.cpu().numpy()
    return columns


def _finish(folder: Path, ends: GrowingArray, length: int | None) -> None:
    """Write the offsets, unless all items have ``length`` vectors."""
    if length is None:
        rest = np.load(folder / "ends.npy", mmap_mode="r") if ends.length else np.empty(0, np.int64)
        np.save(folder / "offsets.npy", np.concatenate([np.zeros(1, np.int64), rest]))
    (folder / "ends.npy").unlink()


def _check(part: MultiVectors, first: MultiVectors) -> None:
    if part.storage not in DTYPES:
        raise ValueError(f"vectors are stored as {', '.join(DTYPES)}, not as {part.storage}")
    if _kind(part) != _kind(first):
        raise ValueError(f"parts must be alike, found {_kind(first)} and {_kind(part)}")


def _kind(part: MultiVectors) -> str:
    book = "" if part.codebook is None else f", {part.codebook.digest}"
    return f"{part.storage}, {part.dim}{book}"
