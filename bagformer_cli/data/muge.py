"""Datasets in MUGE form: a folder with a queries file and an images file for each split.

MUGE is published under two namings; both are read, and one folder uses one of them:

=========  =============================  ======================  ================================
naming     queries                        images                  fields of a query line
=========  =============================  ======================  ================================
``query``  ``MR_{split}_queries.jsonl``   ``MR_{split}_imgs.tsv``  query_id, query_text, item_ids
``text``   ``{split}_texts.jsonl``        ``{split}_imgs.tsv``     text_id, text, image_ids
=========  =============================  ======================  ================================

A line of the two files::

    {"query_id": 248816, "query_text": "圣诞 抱枕", "item_ids": [286314, 141999]}
    286314<tab>/9j/4AAQSkZJRgABAQAAAQABAAD...        image id, tab, the image file in base64

Both alphabets of base64 are read; the standard one is written. Images that no query names and
queries with several images are normal; a test file may leave out ``item_ids``. Files are streamed,
so their size does not matter for memory.
"""

from __future__ import annotations

import binascii
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self, TypeVar

from bagformer_cli.data.byte_ranges import ByteRange
from bagformer_cli.data.muge_lines import (
    FIELDS,
    Naming,
    Query,
    parse_image_line,
    parse_query_line,
    repeated,
)
from bagformer_cli.errors import DataError, InputError, listed
from bagformer_cli.file_kinds import require_text_file
from bagformer_cli.files import atomic_file, disk_errors
from bagformer_cli.messages import tr

__all__ = [
    "FIELDS",
    "IMAGES_NAME",
    "QUERIES_NAME",
    "SPLITS",
    "MugeFolder",
    "MugeImageWriter",
    "Naming",
    "Query",
    "iter_images",
    "iter_queries",
    "may_omit_items",
    "naming_of",
    "queries_last",
    "split_files",
    "wanted_files",
    "write_queries",
]

SPLITS = ("train", "valid", "test")
QUERIES_NAME: dict[Naming, str] = {
    "query": "MR_{split}_queries.jsonl",
    "text": "{split}_texts.jsonl",
}
IMAGES_NAME: dict[Naming, str] = {"query": "MR_{split}_imgs.tsv", "text": "{split}_imgs.tsv"}

T = TypeVar("T")


class MugeFolder:
    """A dataset folder in MUGE form.

    Args:
        path: The folder.

    Raises:
        InputError: The folder does not exist, or it has no queries file of either naming.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.is_dir():
            raise InputError(
                tr("No such folder."), where=self.path, hint=tr("Give a folder in MUGE form.")
            )
        naming = naming_of(self.path)
        if naming is None:
            raise InputError(
                tr("The folder holds no dataset in MUGE form."),
                where=self.path,
                expected=wanted_files("valid"),
                hint=tr("`xmr data import` makes such files from a CSV, a JSONL or an LMDB."),
            )
        self.naming: Naming = naming

    def queries_path(self, split: str) -> Path:
        """Path of a split's queries file, whether or not it exists."""
        return split_files(self.path, split, self.naming)[0]

    def images_path(self, split: str) -> Path:
        """Path of a split's images file, whether or not it exists."""
        return split_files(self.path, split, self.naming)[1]

    @property
    def text_splits(self) -> list[str]:
        """The splits that have a queries file."""
        return [split for split in SPLITS if self.queries_path(split).is_file()]

    @property
    def splits(self) -> list[str]:
        """The splits that have both files, in the order train, valid, test."""
        return [split for split in self.text_splits if self.images_path(split).is_file()]

    def require(self, split: str, *, images: bool = True) -> None:
        """Check that the files of a split exist.

        Args:
            split: ``train``, ``valid`` or ``test``.
            images: Require the images file too.

        Raises:
            InputError: A file is missing, or it is none of text; the error names it.
        """
        paths = [self.queries_path(split)] + ([self.images_path(split)] if images else [])
        for path in paths:
            if not path.is_file():
                raise InputError(
                    tr("The split '{split}' is not complete: a file is missing.", split=split),
                    where=path,
                    found=tr("complete splits: {splits}", splits=listed(self.splits) or "-"),
                    hint=tr("Choose one of the complete splits, or add the missing file."),
                )
            require_text_file(path, tr("lines of text"))


def naming_of(path: Path) -> Naming | None:
    """Find the naming that a folder's files follow; None if it has no queries file."""
    for naming, pattern in QUERIES_NAME.items():
        if any((path / pattern.format(split=split)).is_file() for split in SPLITS):
            return naming
    return None


def split_files(folder: Path, split: str, naming: Naming) -> tuple[Path, Path]:
    """Give the paths of the queries file and the images file of a split."""
    names = (QUERIES_NAME[naming], IMAGES_NAME[naming])
    return folder / names[0].format(split=split), folder / names[1].format(split=split)


def queries_last(path: Path) -> tuple[bool, str]:
    """Sort a dataset's files so that each queries file, which makes a split known, comes last.

    >>> sorted(map(Path, ["MR_test_queries.jsonl", "MR_train_imgs.tsv"]), key=queries_last)[0].name
    'MR_train_imgs.tsv'
    """
    return path.name.endswith(("_queries.jsonl", "_texts.jsonl")), path.name


def wanted_files(split: str) -> str:
    """Name a split's files in both namings, for messages."""
    pairs = [
        " + ".join(path.name for path in split_files(Path(), split, naming))
        for naming in QUERIES_NAME
    ]
    return tr("{one}, or {two}", one=pairs[0], two=pairs[1])


# --------------------------------------------------------------------------------------- reading


def iter_queries(path: str | Path) -> Iterator[Query]:
    """Read a queries file line by line, in either naming.

    Raises:
        DataError: A line is broken; the error names file and line.
        InputError: The file does not exist.
    """
    path = Path(path)
    parse = partial(parse_query_line, items=not may_omit_items(path))
    return _records(path, parse, lambda query: query.query_id)


def iter_images(path: str | Path) -> Iterator[tuple[int, bytes]]:
    """Read an images file line by line: (image id, the image file's bytes).

    Raises:
        DataError: A line is broken; the error names file and line.
        InputError: The file does not exist.
    """
    return _records(Path(path), parse_image_line, lambda image: image[0])


def may_omit_items(path: Path) -> bool:
    """Say whether a queries file may leave out the answers: only test files may."""
    return "test" in path.name


def _records(path: Path, parse: Callable[[bytes], T], id_of: Callable[[T], int]) -> Iterator[T]:
    """Parse every line that is not blank, and refuse an id that is there twice."""
    first_line: dict[int, int] = {}
    for number, line in enumerate(ByteRange(path).lines(), 1):
        if line.blank:
            continue
        try:
            record = parse(line.content)
            first = first_line.setdefault(id_of(record), number)
            if first != number:
                raise repeated(id_of(record), first)
        except DataError as error:
            error.where = f"{path}:{number}"
            raise
        yield record


# --------------------------------------------------------------------------------------- writing


def write_queries(path: str | Path, queries: Iterable[Query], naming: Naming = "query") -> int:
    """Write a queries file; it appears only when it is complete.

    Args:
        path: The file.
        queries: The lines, in order.
        naming: Which field names to write.

    Returns:
        The number of lines written.
    """
    fields = FIELDS[naming]
    count = 0
    with atomic_file(path) as temporary, open(temporary, "w", encoding="utf-8") as stream:
        for query in queries:
            values = (query.query_id, query.text, list(query.item_ids))
            line = json.dumps(dict(zip(fields, values, strict=True)), ensure_ascii=False)
            stream.write(line + "\n")
            count += 1
    return count


class MugeImageWriter:
    """A writer of an images file, which appears only when the ``with`` block succeeds.

    Args:
        path: The file.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.count = 0
        self._stack = ExitStack()
        self._stream: BinaryIO | None = None

    def __enter__(self) -> Self:
        temporary = self._stack.enter_context(atomic_file(self.path))
        self._stream = self._stack.enter_context(open(temporary, "wb"))
        return self

    def write(self, image_id: int, data: bytes) -> None:
        """Append one image: its id and the bytes of its file, in any format."""
        assert self._stream is not None, "use it in a with block"
        with disk_errors(self.path):
            line = b"%d\t%s\n" % (image_id, binascii.b2a_base64(data, newline=False))
            self._stream.write(line)
        self.count += 1

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stream = None
        self._stack.__exit__(kind, error, traceback)
