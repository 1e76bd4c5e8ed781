"""Write vectors that exist already, those of an index or of ``xmr encode``, to vector files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path

from bagformer_cli.errors import InputError
from bagformer_cli.index.compression.codebook import layout_and_codebook
from bagformer_cli.index.encoded import encoded_files, read_rows
from bagformer_cli.index.engine import Engine
from bagformer_cli.index.engines import open_engine
from bagformer_cli.index.lancedb import LanceEngine
from bagformer_cli.index.lancedb_source import TableSource
from bagformer_cli.index.row_vectors import side_vectors
from bagformer_cli.index.rows import Side
from bagformer_cli.messages import tr
from bagformer_cli.outputs import check_output_folder
from bagformer_cli.progress import SILENT, Progress
from bagformer_cli.vectors.vector_blocks import Side as FileSide
from bagformer_cli.vectors.vector_writers import SUFFIXES, Part, write_vector_file

FORMATS = tuple(suffix.removeprefix(".") for suffix in SUFFIXES)
NAMES: dict[FileSide, str] = {"text": "texts", "image": "images"}
_SIDES: dict[Side, FileSide] = {"title": "text", "image": "image"}


def vector_file(out: Path, side: FileSide, form: str) -> Path:
    """Return the path of one side's file in an output folder.

    >>> str(vector_file(Path("vectors"), "image", "npz"))
    'vectors/images.npz'
    """
    return out / f"{NAMES[side]}.{form}"


def write_side(
    out: Path, side: FileSide, form: str, parts: Iterator[Part], *, single: bool = False
) -> int:
    """Write one side to its file in an output folder; see :func:`write_vector_file`."""
    check_output_folder(out)
    out.mkdir(parents=True, exist_ok=True)
    return write_vector_file(vector_file(out, side, form), side, parts, single=single)


def export_rows(
    source: str, out: Path, form: str, progress: Progress = SILENT
) -> dict[FileSide, int]:
    """Write the vectors of an index, or of a folder of ``xmr encode``, one file for each side.

    Args:
        source: The index or the folder.
        out: The folder to write to.
        form: One of :data:`FORMATS`.
        progress: Where progress is reported.

    Returns:
        The number of items written for each side that the source has.

    Raises:
        InputError: There is no such index or folder, or it holds no vectors.
    """
    folder = Path(source)
    encoded = encoded_files(folder) if folder.is_dir() else []
    engine = None if encoded else open_engine(source)
    sides = layout_and_codebook(folder)[0].sides if engine is None else engine.layout.sides
    written: dict[FileSide, int] = {}
    for side in sides:
        parts = _of_files(encoded, folder, side) if engine is None else _of_index(engine, side)
        first = next(parts, None)
        if first is None:  # no product has this side
            continue
        name = _SIDES[side]
        description = tr("Writing {path}", path=vector_file(out, name, form))
        with progress.task(description, amount=tr("{n} products", n="{n}")) as task:
            counted = _counted(chain([first], parts), task.advance)
            written[name] = write_side(out, name, form, counted)
    if not written:
        raise InputError(tr("The catalogue contains no products."), where=source)
    return written


def _of_files(files: Sequence[Path], folder: Path, side: Side) -> Iterator[Part]:
    codebook = layout_and_codebook(folder)[1]
    for file in files:
        for rows in read_rows(file):
            yield Part(rows.column("id").to_pylist(), side_vectors(rows, side, codebook))


def _of_index(engine: Engine, side: Side) -> Iterator[Part]:
    if not isinstance(engine, LanceEngine):
        raise InputError(
            tr("Only the vectors of an index in a LanceDB folder can be written to files."),
            where=engine.uri,
        )
    source = TableSource(engine.table, side)
    keys, _ = source.keys()
    begin = 0
    for vectors in source.vectors(keys):
        rows = engine.table.take(keys[begin : begin + len(vectors)], ["id"])
        yield Part(rows["id"].to_pylist(), vectors)
        begin += len(vectors)


def _counted(parts: Iterable[Part], advance: Callable[[int], None]) -> Iterator[Part]:
    for part in parts:
        yield part
        advance(len(part.ids))
