"""Import a dataset in Chinese-CLIP's LMDB form as a dataset in MUGE form.

Their ``build_lmdb_dataset.py`` writes two LMDBs for each split::

    lmdb/train/imgs/    image id  → base64 of the image file;  "num_images" → their number
    lmdb/train/pairs/   0, 1, …   → pickled (image_id, text_id, text);  "num_samples" → their number

A pickle can run code, so pairs are read by an unpickler that refuses all classes and functions.
"""

from __future__ import annotations

import io
import pickle
import reprlib
from pathlib import Path
from typing import Any

from bagformer_cli.data.images import verify
from bagformer_cli.data.importing.lmdb_file import LmdbFile
from bagformer_cli.data.importing.staging import Imported, ImportResult, staged
from bagformer_cli.data.left_out import LeftOut
from bagformer_cli.data.muge import (
    QUERIES_NAME,
    SPLITS,
    MugeImageWriter,
    Naming,
    Query,
    iter_queries,
    split_files,
    write_queries,
)
from bagformer_cli.data.muge_lines import decode_base64, parse_id
from bagformer_cli.errors import DataError, InputError
from bagformer_cli.messages import tr
from bagformer_cli.opening import is_text
from bagformer_cli.progress import SILENT, Progress
from bagformer_cli.text.characters import is_blank

MOST_MISSING = 1000
"""With more missing pairs an LMDB is damaged: a false count of 10^18 must not be walked through."""


def import_lmdb(
    source: Path,
    out: Path,
    *,
    naming: Naming = "text",
    strict: bool = False,
    progress: Progress = SILENT,
) -> ImportResult:
    """Write Chinese-CLIP's LMDB form as a dataset in MUGE form.

    An LMDB lacks the queries without an image. If the ``{split}_texts.jsonl`` that it was made
    from is next to the ``lmdb`` folder (where their script leaves it), queries come from there.

    Args:
        source: The ``lmdb`` folder, or the folder of one split in it.
        out: The folder to write.
        naming: Which of MUGE's namings to write.
        strict: Stop at the first broken record instead of leaving it out.
        progress: Receives the number of images written, and what is left out.

    Raises:
        DataError: An LMDB is damaged, or ``strict``, and a record is broken; the error names it.
        InputError: There is no LMDB, no record is left, or ``out`` already has such a file.
    """
    folders = _split_folders(source)
    if not folders:
        raise InputError(
            tr("The folder holds no LMDB in Chinese-CLIP's form."),
            where=source,
            expected="{train,valid,test}/{imgs,pairs}/",
        )
    left_out = LeftOut(progress, strict=strict)
    written = {}
    with staged(out, folders, naming) as stage:
        for split, folder in folders.items():
            queries_path, images_path = split_files(stage, split, naming)
            images = _copy_images(folder / "imgs", images_path, left_out, progress)
            beside = folder.parent.parent / QUERIES_NAME["text"].format(split=split)
            if beside.is_file():
                progress.info(tr("Queries of {split} from {path}", split=split, path=beside))
                queries = list(iter_queries(beside))
            else:
                queries = _queries(folder / "pairs", left_out)
            if not images or not queries:
                raise left_out.nothing_left(tr("Nothing can be imported."), folder)
            write_queries(queries_path, queries, naming)
            pairs = sum(len(query.item_ids) for query in queries)
            written[split] = Imported(len(queries), images, pairs)
    left_out.finish()
    return ImportResult(written, left_out.errors)


def _split_folders(path: Path) -> dict[str, Path]:
    if (path / "imgs").is_dir() and (path / "pairs").is_dir():
        return {path.name if path.name in SPLITS else "train": path}
    folders = {split: path / split for split in SPLITS}
    return {
        split: folder
        for split, folder in folders.items()
        if (folder / "imgs").is_dir() and (folder / "pairs").is_dir()
    }


def _copy_images(folder: Path, path: Path, left_out: LeftOut, progress: Progress) -> int:
    """Write the good images; return their number."""
    with (
        LmdbFile(folder) as records,
        MugeImageWriter(path) as writer,
        progress.task(path.name, _count(records, b"num_images"), tr("{n} images", n="{n}")) as task,
    ):
        for key, value in records.items():
            if key == b"num_images":
                continue
            where = f"{folder}:{key[:20].decode('ascii', 'replace')}"
            try:
                number = parse_id(key.decode("ascii", "replace"), "image_id", text=True)
                data = decode_base64(value)
                verify(data)
            except DataError as error:
                error.where = where
                left_out(error)
            else:
                writer.write(number, data)
            task.advance()
        return writer.count


def _queries(folder: Path, left_out: LeftOut) -> list[Query]:
    texts: dict[int, str] = {}
    items: dict[int, dict[int, None]] = {}
    with LmdbFile(folder) as records:
        missing = 0
        for number in range(_count(records, b"num_samples")):
            try:
                value = records.get(str(number).encode())
                if value is None:
                    missing += 1
                    if missing == MOST_MISSING:
                        raise _too_few(records, number)
                    raise DataError(tr("A pair is missing."))
                image_id, text_id, text = _pair(value)
            except DataError as error:
                if error.where is not None:  # the file itself is damaged
                    raise
                error.where = f"{folder}:{number}"
                left_out(error)
                continue
            texts.setdefault(text_id, text)
            items.setdefault(text_id, {})[image_id] = None
    return [Query(number, text, tuple(items[number])) for number, text in texts.items()]


def _pair(value: bytes) -> tuple[int, int, str]:
    """Read a pickled (image id, text id, text); the caller adds the place to an error."""
    record = unpickle(value)
    if not isinstance(record, (tuple, list)) or len(record) != 3:
        raise _not_a_pair(record)
    image_id = parse_id(record[0], "image_id", text=True)
    text_id = parse_id(record[1], "text_id", text=True)
    if not isinstance(record[2], str) or is_blank(record[2]) or not is_text(record[2]):
        raise _not_a_pair(record)
    return image_id, text_id, record[2]


class _ForbiddenError(pickle.UnpicklingError):
    """A pickle names a class or function."""


class _PlainUnpickler(pickle.Unpickler):
    """An unpickler of plain values (tuples, strings, numbers); it looks up no class."""

    def find_class(self, module: str, name: str) -> Any:
        raise _ForbiddenError(f"{module}.{name}")


def unpickle(value: bytes) -> Any:
    """Load a pickle of plain values.

    Raises:
        DataError: It is broken, or it names a class or function; nothing of it was run. The caller
            adds the place.
    """
    try:
        return _PlainUnpickler(io.BytesIO(value)).load()
    except Exception as error:
        raise DataError(
            tr("The pickle is broken or contains more than plain values; it was not loaded."),
            found=str(error)[:60] if isinstance(error, _ForbiddenError) else None,
            expected="(image_id, text_id, text)",
        ) from error


def _count(records: LmdbFile, key: bytes) -> int:
    value = records.get(key)
    if value is None or not value.isdigit() or len(value) > 18:
        raise DataError(
            tr("The LMDB does not say how many records it has."),
            where=records.path,
            found=None if value is None else repr(value[:20]),
            expected=key.decode(),
        )
    return int(value)


def _too_few(records: LmdbFile, number: int) -> DataError:
    return DataError(
        tr("The LMDB has fewer pairs than it says."),
        where=records.path,
        found=tr("{n} of the first {total} are missing", n=MOST_MISSING, total=number + 1),
    )


def _not_a_pair(record: object) -> DataError:
    return DataError(
        tr("The record is not a pair of an image and a text."),
        found=reprlib.repr(record),
        expected="(image_id, text_id, text)",
    )
