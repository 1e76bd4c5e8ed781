"""Read files of vectors in blocks, one function per format; ``vector_files.py`` checks the values.

Shapes: n items, N vectors, D dimensions.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bagformer_cli.data.byte_ranges import ByteRange, decode_line
from bagformer_cli.errors import DataError, InputError, listed, shortened
from bagformer_cli.messages import tr
from bagformer_cli.opening import (
    load_array,
    open_regular,
    require_moderate_zip,
)
from bagformer_cli.vectors.vector_blocks import (
    BLOCK,
    ID_NAMES,
    VECTOR_NAMES,
    Block,
    Side,
    damaged_file,
    item_id,
    item_ids,
    place_in,
)
from bagformer_cli.vectors.vector_columns import read_lance, read_parquet


def read_jsonl(path: Path, side: Side) -> Iterator[Block]:
    """Read JSON lines, one item each; blank lines are left out."""
    ids: list[int | str] = []
    values: list[NDArray[np.float32]] = []
    rows: list[int] = []

    def block() -> Block:
        lengths = np.array([len(one) for one in values], np.int64)
        joined = np.concatenate(values)
        return Block(path, [*ids], joined, lengths, np.array(rows, np.int64))

    dim = None
    for number, line in enumerate(ByteRange(path).lines(), 1):
        if line.blank:
            continue
        try:
            identity, vectors = _parse(line.content, side)
            if dim is not None and vectors.shape[1] != dim:
                raise DataError(
                    tr("The vector has another dimension than the ones before."),
                    found=vectors.shape[1],
                    expected=dim,
                )
        except DataError as error:
            error.where = place_in(path, number)
            raise
        dim = vectors.shape[1]
        ids.append(identity)
        values.append(vectors)
        rows.append(number)
        if len(ids) == BLOCK:
            yield block()
            ids, values, rows = [], [], []
    if ids:
        yield block()


def _parse(raw: bytes, side: Side) -> tuple[int | str, NDArray[np.float32]]:
    """Parse one line to an id and vectors [n, D]."""
    example = f'{{"{ID_NAMES[side][0]}": 7, "feature": [0.1, 0.2]}}'
    try:
        line = json.loads(decode_line(raw))
    except (ValueError, RecursionError):
        line = None
    if not isinstance(line, dict):
        raise DataError(
            tr("The line is not a JSON object."),
            found=shortened(raw[:60].decode("utf-8", "replace")),
            expected=example,
        )
    id_name = _named(line, ID_NAMES[side], example)
    identity = item_id(line[id_name], id_name)
    feature = line[_named(line, VECTOR_NAMES, example)]
    return identity, _matrix(feature)


def _named(line: Mapping[str, Any], names: tuple[str, ...], example: str) -> str:
    for name in names:
        if name in line:
            return name
    raise DataError(
        tr("The field '{field}' is missing.", field=names[0]),
        found=shortened(listed(line) or "{}"),
        expected=example,
    )


def _matrix(feature: Any) -> NDArray[np.float32]:
    """Make [n, D] of a list of numbers, or of a list of such lists."""
    is_list = isinstance(feature, list) and len(feature) > 0
    rows = feature if is_list and isinstance(feature[0], list) else [feature]
    right = is_list and all(
        isinstance(row, list) and row and all(type(x) in (int, float) for x in row) for row in rows
    )
    if not right or len({len(row) for row in rows}) > 1:
        raise DataError(
            tr("This is not a vector, nor a list of vectors of one dimension."),
            found=shortened(json.dumps(feature, ensure_ascii=False)[:80]),
            expected=tr("a list of numbers, or a list of such lists"),
        )
    try:
        with np.errstate(over="ignore"):  # it becomes infinity, which the caller refuses
            return np.array(rows, np.float64).astype(np.float32)
    except OverflowError:  # a whole number that float64 does not hold
        return np.full((len(rows), len(rows[0])), np.inf, np.float32)


def read_arrays(path: Path, side: Side) -> Iterator[Block]:
    """Read ``.npz``, ``.safetensors`` or ``.npy`` with its neighbours."""
    open_regular(path).close()  # a missing file is another error than a damaged one
    try:
        arrays = _ARRAYS[path.suffix.lower()](path)
    except InputError:
        raise
    except Exception as error:  # numpy, zipfile and safetensors have exceptions of many kinds
        raise damaged_file(path, error) from error
    yield from _of_arrays(path, arrays)


def _npz(path: Path) -> dict[str, NDArray[Any]]:
    with open_regular(path) as stream, np.load(stream, allow_pickle=False) as found:
        if not isinstance(found, np.lib.npyio.NpzFile) or found.zip is None:
            raise ValueError("no zip file")
        require_moderate_zip(found.zip, path)
        names = [name for name in ("ids", "vectors", "offsets") if name in found]
        return {name: found[name] for name in names}


def _npy(path: Path) -> dict[str, NDArray[Any]]:
    files = {"vectors": path}
    files |= {name: path.with_suffix(f".{name}.npy") for name in ("ids", "offsets")}
    arrays = {}
    for name, file in files.items():
        if name == "vectors" or file.exists():
            arrays[name] = load_array(file)
    return arrays


def _safetensors(path: Path) -> dict[str, NDArray[Any]]:
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        names = [name for name in ("ids", "vectors", "offsets") if name in file.keys()]  # noqa: SIM118
        tensors = {name: file.get_tensor(name) for name in names}
    return {
        name: (value.float() if value.is_floating_point() else value).numpy()
        for name, value in tensors.items()
    }


_ARRAYS: dict[str, Callable[[Path], dict[str, NDArray[Any]]]] = {
    ".npz": _npz, ".npy": _npy, ".safetensors": _safetensors,
}  # fmt: skip


def _of_arrays(path: Path, arrays: dict[str, NDArray[Any]]) -> Iterator[Block]:
    """Check the shapes of ids, vectors and offsets, then yield blocks."""
    for name in ("ids", "vectors"):
        if name not in arrays:
            missing = path.with_suffix(".ids.npy") if path.suffix == ".npy" else name
            raise DataError(
                tr("The array '{name}' is missing.", name=missing),
                where=path,
                found=listed(arrays) or None,
                expected="ids [n], vectors [n, D]",
            )
    ids, vectors = arrays["ids"], arrays["vectors"]
    offsets = arrays.get("offsets", np.arange(len(ids) + 1) if ids.ndim == 1 else np.zeros(0))
    if (
        ids.ndim != 1
        or ids.dtype.kind not in "iuU"
        or vectors.ndim != 2
        or vectors.shape[1] == 0
        or vectors.dtype.kind not in "fiu"
        or offsets.dtype.kind not in "iu"
        or offsets.shape != (len(ids) + 1,)
        or offsets[0] != 0
        or offsets[-1] != len(vectors)
        or bool((np.diff(offsets.astype(np.int64)) < 0).any())
    ):
        raise DataError(
            tr("The arrays do not fit each other."),
            where=path,
            found="; ".join(
                f"{name} {one.dtype} {list(one.shape)}" for name, one in arrays.items()
            ),
            expected="ids [n], vectors [n, D] / vectors [N, D] + offsets [n + 1]",
        )
    offsets = offsets.astype(np.int64)
    for begin in range(0, len(ids), BLOCK):
        end = min(begin + BLOCK, len(ids))
        with np.errstate(over="ignore"):
            values = np.asarray(vectors[offsets[begin] : offsets[end]], np.float32)
        named = item_ids(ids[begin:end].tolist(), path, begin)
        rows = np.arange(begin + 1, end + 1)
        yield Block(path, named, values, np.diff(offsets[begin : end + 1]), rows)


READERS: dict[str, Callable[[Path, Side], Iterator[Block]]] = {
    ".jsonl": read_jsonl,
    ".parquet": read_parquet,
    ".npz": read_arrays,
    ".npy": read_arrays,
    ".safetensors": read_arrays,
    ".lance": read_lance,
}
"""The function that reads a file, by the ending of its name."""
