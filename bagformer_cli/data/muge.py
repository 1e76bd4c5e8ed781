"""MUGE's files, in both of their published namings, streamed and checked line by line.

=========  =============================  ===================  ==================================
naming     queries                        images               fields of a query line
=========  =============================  ===================  ==================================
``query``  ``MR_{split}_queries.jsonl``   ``MR_{split}_imgs.tsv``  query_id, query_text, item_ids
``text``   ``{split}_texts.jsonl``        ``{split}_imgs.tsv``     text_id, text, image_ids
=========  =============================  ===================  ==================================

An image line is the id, a tab and the file in base64. Both alphabets of base64 are read, the
standard one is written. An image that no query names and a query with several images are normal.
"""

from __future__ import annotations

import binascii
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Generic, Self, TypeVar

from bagformer_cli.data.muge_lines import (
    FIELDS,
    Naming,
    Query,
    parse_image_line,
    parse_query_line,
    read_lines,
    repeated,
)
from bagformer_cli.errors import DataError, InputError
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
    "naming_of",
    "needs_items",
    "scan_images",
    "scan_queries",
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


@dataclass(frozen=True, slots=True)
class Numbered(Generic[T]):
    """A record, or the error that stands in its place, with its line number (from 1)."""

    line: int
    record: T | None
    error: DataError | None = None


class MugeFolder:
    """A folder in MUGE form.

    Args:
        path: The folder.

    Raises:
        InputError: The folder does not exist, or holds no queries file of either naming.
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
        """The queries file of ``split``, there or not."""
        return self.path / QUERIES_NAME[self.naming].format(split=split)

    def images_path(self, split: str) -> Path:
        """The images file of ``split``, there or not."""
        return self.path / IMAGES_NAME[self.naming].format(split=split)

    @property
    def text_splits(self) -> list[str]:
        """The splits whose queries file is there."""
        return [split for split in SPLITS if self.queries_path(split).is_file()]

    @property
    def splits(self) -> list[str]:
        """The splits of which both files are there, in the order train, valid, test."""
        return [split for split in self.text_splits if self.images_path(split).is_file()]

    def require(self, split: str, *, images: bool = True) -> None:
        """Make sure that the files of ``split`` are there.

        Raises:
            InputError: A file is missing; it is named.
        """
        paths = [self.queries_path(split)] + ([self.images_path(split)] if images else [])
        for path in paths:
            if not path.is_file():
                raise InputError(
                    tr("The split '{split}' is not complete: a file is missing.", split=split),
                    where=path,
                    found=tr("complete splits: {splits}", splits=", ".join(self.splits) or "-"),
                )


def naming_of(path: Path) -> Naming | None:
    """The naming a folder's files follow, or None where no queries file is in it."""
    for naming, pattern in QUERIES_NAME.items():
        if any((path / pattern.format(split=split)).is_file() for split in SPLITS):
            return naming
    return None


def wanted_files(split: str) -> str:
    """The names of a split's files, in both namings, for messages."""
    return tr("{one}, or {two}", one=_pair(split, "query"), two=_pair(split, "text"))


def _pair(split: str, naming: Naming) -> str:
    names = (QUERIES_NAME[naming], IMAGES_NAME[naming])
    return " + ".join(name.format(split=split) for name in names)


# --------------------------------------------------------------------------------------- reading


def iter_queries(path: str | Path) -> Iterator[Query]:
    """Read a queries file line by line, in either naming.

    Raises:
        DataError: A line is broken; the error names file and line.
        InputError: The file does not exist.
    """
    return _strict(scan_queries(path))


def iter_images(path: str | Path) -> Iterator[tuple[int, bytes]]:
    """Read an images file line by line: (image id, the image file's bytes).

    Raises:
        DataError: A line is broken; the error names file and line.
        InputError: The file does not exist.
    """
    return _strict(scan_images(path))


def scan_queries(path: str | Path) -> Iterator[Numbered[Query]]:
    """Read a queries file; a broken line gives its error instead of ending the reading."""
    path = Path(path)
    parse = partial(parse_query_line, items=needs_items(path))
    return _scan(path, parse, lambda query: query.query_id)


def scan_images(path: str | Path) -> Iterator[Numbered[tuple[int, bytes]]]:
    """Read an images file; a broken line gives its error instead of ending the reading."""
    return _scan(Path(path), parse_image_line, lambda pair: pair[0])


def needs_items(path: Path) -> bool:
    """Whether every query of the file must list its images: a test file may keep them secret."""
    return "test" not in path.name


def _scan(
    path: Path, parse: Callable[[bytes], T], id_of: Callable[[T], int]
) -> Iterator[Numbered[T]]:
    first_line: dict[int, int] = {}
    for line, (raw, _) in enumerate(read_lines(path), 1):
        try:
            record = parse(raw)
            first = first_line.setdefault(id_of(record), line)
            if first != line:
                raise repeated(id_of(record), first)
        except DataError as error:
            error.where = f"{path}:{line}"
            yield Numbered(line, None, error)
        else:
            yield Numbered(line, record)


def _strict(scan: Iterator[Numbered[T]]) -> Iterator[T]:
    for item in scan:
        if item.error is not None:
            raise item.error
        assert item.record is not None
        yield item.record


# --------------------------------------------------------------------------------------- writing


def write_queries(path: str | Path, queries: Iterable[Query], naming: Naming = "query") -> int:
    """Write a queries file, whole or not at all.

    Args:
        path: The file.
        queries: The lines, in order.
        naming: Which field names to write.

    Returns:
        How many lines were written.
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
    """Writes an images file, whole or not at all: it appears when the ``with`` block succeeds.

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
        """Append one image: its id and its file's bytes, whatever the format."""
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
