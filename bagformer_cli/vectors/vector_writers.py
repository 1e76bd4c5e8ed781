"""Write files of vectors, one function per format; ``vector_readers.py`` reads them back.

JSON lines, Parquet and Lance are written part by part. The formats of arrays hold a whole file in
memory first: their headers come before the values and name the count.

Shapes: n items, N vectors, D dimensions.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from bagformer_cli.errors import InputError, PathError
from bagformer_cli.files import atomic_folder
from bagformer_cli.messages import tr
from bagformer_cli.outputs import output_file
from bagformer_cli.vectors.multi_vectors import MultiVectors
from bagformer_cli.vectors.vector_blocks import ID_NAMES, Side


class Part(NamedTuple):
    """Some items to write: n ids and their vectors, of any stored type."""

    ids: Sequence[int | str]
    vectors: MultiVectors


def write_vector_file(
    path: Path, side: Side, parts: Iterator[Part], *, single: bool = False
) -> int:
    """Write items to a file; it appears when it is complete.

    Args:
        path: The file, or the folder of a Lance data set; its ending decides the format.
        side: Whether the items are texts or images; it decides how their id is called.
        parts: The items, in order. An item without vectors is left out.
        single: Every item has one vector: a table holds plain lists of numbers then.

    Returns:
        The number of items written.

    Raises:
        InputError: The file cannot be written, or the format cannot hold these ids.
    """
    counted = _Counted(parts)
    if path.suffix in _ARRAY_WRITERS:
        _ARRAY_WRITERS[path.suffix](path, _arrays(iter(counted)))
    elif path.suffix == ".jsonl":
        _write_jsonl(path, side, iter(counted))
    else:
        write = _write_lance if path.suffix == ".lance" else _write_parquet
        write(path, _tables(side, iter(counted), single))
    return counted.items


class _Counted:
    """Yields parts in float32 on the CPU without empty items, and counts the items."""

    def __init__(self, parts: Iterator[Part]) -> None:
        self._parts = parts
        self.items = 0

    def __iter__(self) -> Iterator[Part]:
        for ids, vectors in self._parts:
            kept = torch.nonzero(vectors.lengths > 0).flatten()
            if len(kept) < len(ids):
                ids, vectors = [ids[at] for at in kept.tolist()], vectors.select(kept)
            if len(ids):
                self.items += len(ids)
                yield Part(ids, vectors.to("cpu", torch.float32))


def _write_jsonl(path: Path, side: Side, parts: Iterator[Part]) -> None:
    """Write Chinese-CLIP's form: a list of numbers, or of lists where items have many vectors."""
    name = ID_NAMES[side][0]
    with output_file(path) as temporary, open(temporary, "w", encoding="utf-8") as stream:
        for ids, vectors in parts:
            for identity, item in zip(ids, vectors, strict=True):
                feature = item.tolist()
                line = {name: identity, "feature": feature[0] if len(feature) == 1 else feature}
                stream.write(json.dumps(line, ensure_ascii=False) + "\n")


def _write_parquet(path: Path, tables: Iterator[pa.RecordBatch]) -> None:
    with output_file(path) as temporary:
        first = next(tables)
        with pq.ParquetWriter(temporary, first.schema) as writer:
            writer.write_batch(first)
            for table in tables:
                writer.write_batch(table)


def _write_lance(path: Path, tables: Iterator[pa.RecordBatch]) -> None:
    import lancedb

    if path.exists() and not (path / "_versions").is_dir():
        raise PathError(tr("A file or folder of this name already exists."), path, "exists")
    with atomic_folder(path) as folder:
        first = next(tables)
        name = "vectors"
        table = lancedb.connect(str(folder / "made")).create_table(name, first)
        for batch in tables:
            table.add(pa.Table.from_batches([batch]))
        made = folder / "made" / f"{name}.lance"
        for inner in made.iterdir():
            inner.rename(folder / inner.name)
        made.rmdir()
        made.parent.rmdir()


def _tables(side: Side, parts: Iterator[Part], single: bool) -> Iterator[pa.RecordBatch]:
    """Make rows ``text_id``/``image_id`` and ``vector``: lists of float32, or lists of these."""
    for ids, vectors in parts:
        values = vectors.values.contiguous().numpy()
        flat = pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), vectors.dim)
        offsets = pa.array(vectors.offsets.numpy().astype(np.int32))
        column = flat if single else pa.ListArray.from_arrays(offsets, flat)
        kind = pa.string() if any(isinstance(one, str) for one in ids) else pa.int64()
        yield pa.record_batch([pa.array(ids, kind), column], names=[ID_NAMES[side][0], "vector"])


def _arrays(parts: Iterator[Part]) -> dict[str, NDArray[Any]]:
    """Join all parts; offsets are left out if every item has one vector."""
    found = list(parts)
    vectors = MultiVectors.concatenate([part.vectors for part in found])
    ids = np.array([identity for part in found for identity in part.ids])
    arrays = {"ids": ids, "vectors": vectors.values.numpy()}
    if vectors.uniform_length != 1:
        arrays["offsets"] = vectors.offsets.numpy()
    return arrays


def _write_npz(path: Path, arrays: dict[str, NDArray[Any]]) -> None:
    with output_file(path) as temporary, open(temporary, "wb") as stream:
        np.savez(stream, **arrays)  # type: ignore[arg-type]


def _write_npy(path: Path, arrays: dict[str, NDArray[Any]]) -> None:
    files = {"vectors": path}
    files |= {name: path.with_suffix(f".{name}.npy") for name in ("ids", "offsets")}
    if "offsets" not in arrays:
        files.pop("offsets").unlink(missing_ok=True)  # of an earlier export with many vectors
    for name, file in files.items():
        with output_file(file) as temporary, open(temporary, "wb") as stream:
            np.save(stream, arrays[name])


def _write_safetensors(path: Path, arrays: dict[str, NDArray[Any]]) -> None:
    from safetensors.numpy import save_file

    if arrays["ids"].dtype.kind == "U":
        raise InputError(
            tr("A safetensors file holds numbers only, and these ids are texts."),
            where=path,
            found=str(arrays["ids"][0]),
            hint=tr("Choose another format: --format parquet"),
        )
    with output_file(path) as temporary:
        save_file(arrays, temporary)


_ARRAY_WRITERS: dict[str, Callable[[Path, dict[str, NDArray[Any]]], None]] = {
    ".npz": _write_npz, ".npy": _write_npy, ".safetensors": _write_safetensors,
}  # fmt: skip
SUFFIXES = (".parquet", ".jsonl", *_ARRAY_WRITERS, ".lance")
"""The endings of files that can be written."""
