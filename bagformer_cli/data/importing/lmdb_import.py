"""Import a dataset in Chinese-CLIP's LMDB form as a dataset in MUGE form.

Their ``build_lmdb_dataset.py`` writes two LMDBs for each split::

    lmdb/train/imgs/    image id  → base64 of the image file;  "num_images" → their number
    lmdb/train/pairs/   0, 1, …   → pickled (image_id, text_id, text);  "num_samples" → their number

A pickle can run code, so pairs are read by an unpickler that refuses all classes and functions.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bagformer_cli.data.images import verify
from bagformer_cli.data.importing.table_import import Imported, staged
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
from bagformer_cli.errors import DataError, InputError, MissingDependencyError
from bagformer_cli.messages import tr
from bagformer_cli.progress import SILENT, Progress


def import_lmdb(
    source: Path, out: Path, *, naming: Naming = "text", progress: Progress = SILENT
) -> dict[str, Imported]:
    """Write Chinese-CLIP's LMDB form as a dataset in MUGE form.

    An LMDB lacks the queries without an image. If the ``{split}_texts.jsonl`` that it was made
    from is next to the ``lmdb`` folder (where their script leaves it), queries come from there.

    Args:
        source: The ``lmdb`` folder, or the folder of one split in it.
        out: The folder to write.
        naming: Which of MUGE's namings to write.
        progress: Receives the number of images written.

    Returns:
        Counts by split.

    Raises:
        DataError: A record is broken; the error names it.
        InputError: There is no LMDB, or ``out`` already has such a file.
        MissingDependencyError: ``lmdb`` is not installed.
    """
    folders = _split_folders(source)
    if not folders:
        raise InputError(
            tr("The folder holds no LMDB in Chinese-CLIP's form."),
            where=source,
            expected="{train,valid,test}/{imgs,pairs}/",
        )
    written = {}
    with staged(out, folders, naming) as stage:
        for split, folder in folders.items():
            queries_path, images_path = split_files(stage, split, naming)
            images = _copy_images(folder / "imgs", images_path, progress)
            beside = folder.parent.parent / QUERIES_NAME["text"].format(split=split)
            if beside.is_file():
                progress.info(tr("Queries of {split} from {path}", split=split, path=beside))
                queries = list(iter_queries(beside))
            else:
                queries = _queries(folder / "pairs")
            write_queries(queries_path, queries, naming)
            pairs = sum(len(query.item_ids) for query in queries)
            written[split] = Imported(len(queries), images, pairs)
    return written


def _split_folders(path: Path) -> dict[str, Path]:
    if (path / "imgs").is_dir() and (path / "pairs").is_dir():
        return {path.name if path.name in SPLITS else "train": path}
    folders = {split: path / split for split in SPLITS}
    return {
        split: folder
        for split, folder in folders.items()
        if (folder / "imgs").is_dir() and (folder / "pairs").is_dir()
    }


def _copy_images(folder: Path, path: Path, progress: Progress) -> int:
    with (
        _reading(folder) as transaction,
        MugeImageWriter(path) as writer,
        progress.task(
            path.name, _count(transaction, b"num_images", folder), tr("pictures")
        ) as task,
    ):
        for key, value in transaction.cursor():
            if key == b"num_images":
                continue
            where = f"{folder}:{key.decode('ascii', 'replace')}"
            try:
                data = decode_base64(value)
                verify(data)
            except DataError as error:
                error.where = where
                raise
            writer.write(_id(key.decode("ascii", "replace"), "image_id", where), data)
            task.advance()
        return writer.count


def _queries(folder: Path) -> list[Query]:
    texts: dict[int, str] = {}
    items: dict[int, dict[int, None]] = {}
    with _reading(folder) as transaction:
        for number in range(_count(transaction, b"num_samples", folder)):
            where = f"{folder}:{number}"
            value = transaction.get(str(number).encode())
            if value is None:
                raise DataError(tr("A pair is missing."), where=where)
            record = unpickle(value, where)
            if not isinstance(record, (tuple, list)) or len(record) != 3:
                raise _not_a_pair(record, where)
            image_id = _id(record[0], "image_id", where)
            text_id = _id(record[1], "text_id", where)
            if not isinstance(record[2], str) or not record[2].strip():
                raise _not_a_pair(record, where)
            texts.setdefault(text_id, record[2])
            items.setdefault(text_id, {})[image_id] = None
    return [Query(number, text, tuple(items[number])) for number, text in texts.items()]


class _PlainUnpickler(pickle.Unpickler):
    """An unpickler of plain values (tuples, strings, numbers); it looks up no class."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"{module}.{name}")


def unpickle(value: bytes, where: str) -> Any:
    """Load a pickle of plain values.

    Raises:
        DataError: It is broken, or it names a class or function; nothing of it was run.
    """
    try:
        return _PlainUnpickler(io.BytesIO(value)).load()
    except Exception as error:
        raise DataError(
            tr("The pickle is broken or contains more than plain values; it was not loaded."),
            where=where,
            found=str(error) or type(error).__name__,
            expected="(image_id, text_id, text)",
        ) from None


@contextmanager
def _reading(folder: Path) -> Iterator[Any]:
    try:
        import lmdb
    except ImportError:
        raise MissingDependencyError(
            tr("Reading an LMDB needs the package lmdb."),
            hint="pip install 'bagformer-cli[lmdb]'",
        ) from None
    try:
        environment = lmdb.open(str(folder), readonly=True, lock=False, create=False)
    except lmdb.Error as error:
        raise DataError(tr("The LMDB cannot be read."), where=folder, found=error) from error
    try:
        with environment.begin() as transaction:
            yield transaction
    except lmdb.Error as error:
        raise DataError(tr("The LMDB cannot be read."), where=folder, found=error) from error
    finally:
        environment.close()


def _count(transaction: Any, key: bytes, folder: Path) -> int:
    value = transaction.get(key)
    if value is None or not value.isdigit():
        raise DataError(
            tr("The LMDB does not say how many records it has."),
            where=folder,
            found=value,
            expected=key.decode(),
        )
    return int(value)


def _id(value: object, field: str, where: str) -> int:
    try:
        return parse_id(value, field, text=True)
    except DataError as error:
        error.where = where
        raise


def _not_a_pair(record: object, where: str) -> DataError:
    return DataError(
        tr("The record is not a pair of an image and a text."),
        where=where,
        found=repr(record)[:60],
        expected="(image_id, text_id, text)",
    )
