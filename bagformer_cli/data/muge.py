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
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Generic, Literal, Self, TypeVar

from bagformer_cli.errors import DataError, InputError
from bagformer_cli.files import atomic_file, disk_errors
from bagformer_cli.messages import tr

Naming = Literal["query", "text"]

SPLITS = ("train", "valid", "test")
QUERIES_NAME: dict[Naming, str] = {
    "query": "MR_{split}_queries.jsonl",
    "text": "{split}_texts.jsonl",
}
IMAGES_NAME: dict[Naming, str] = {"query": "MR_{split}_imgs.tsv", "text": "{split}_imgs.tsv"}
FIELDS: dict[Naming, tuple[str, str, str]] = {
    "query": ("query_id", "query_text", "item_ids"),
    "text": ("text_id", "text", "image_ids"),
}

_MAX_ID = 2**63 - 1
_MAX_LINE = 512 << 20  # bytes; a line without an end must not fill the memory
_URL_SAFE = bytes.maketrans(b"-_", b"+/")
_BOM = b"\xef\xbb\xbf"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Query:
    """One line of a queries file.

    Args:
        query_id: A whole number from 0 to 2^63 - 1.
        text: The query as it stands in the file.
        item_ids: The images that answer it, each once; empty where the file keeps them secret.
    """

    query_id: int
    text: str
    item_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Numbered(Generic[T]):
    """A record, or the error that stands in its place, with its line number (from 1)."""

    line: int
    record: T | None
    error: DataError | None = None
    note: str | None = None


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
    first_line: dict[int, int] = {}
    secret = "test" in path.name  # the published test files keep their answers to themselves
    for line, raw in _lines(path):
        try:
            query, note = _parse_query(raw, f"{path}:{line}", needs_items=not secret)
            _once(query.query_id, line, first_line, f"{path}:{line}")
        except DataError as error:
            yield Numbered(line, None, error)
        else:
            yield Numbered(line, query, note=note)


def scan_images(path: str | Path) -> Iterator[Numbered[tuple[int, bytes]]]:
    """Read an images file; a broken line gives its error instead of ending the reading."""
    path = Path(path)
    first_line: dict[int, int] = {}
    for line, raw in _lines(path):
        where = f"{path}:{line}"
        try:
            image_id, data = parse_image_line(raw, where)
            _once(image_id, line, first_line, where)
        except DataError as error:
            yield Numbered(line, None, error)
        else:
            yield Numbered(line, (image_id, data))


def parse_image_line(raw: bytes, where: str) -> tuple[int, bytes]:
    """One line of an images file, without its line end, as (id, image file's bytes)."""
    head, tab, payload = raw.partition(b"\t")
    if not tab:
        raise DataError(
            tr("The line has no tab between image id and image."),
            where=where,
            found=_shown(raw),
            expected=tr("id, tab, base64"),
        )
    if not head.isdigit() or len(head) > 19 or int(head) > _MAX_ID:
        raise DataError(
            tr("The image id is not a whole number."),
            where=where,
            found=_shown(head),
            expected=tr("digits only, up to 2^63 - 1"),
        )
    return int(head), decode_base64(payload, where)


def decode_base64(payload: bytes, where: str) -> bytes:
    """Base64 of either alphabet, with or without its padding, to bytes.

    Raises:
        DataError: It is neither, or it is empty.
    """
    text = payload.translate(_URL_SAFE)
    text += b"=" * (-len(text) % 4)
    try:
        data = binascii.a2b_base64(text, strict_mode=True)
    except binascii.Error as error:
        raise DataError(
            tr("The image is broken: this is not base64."),
            where=where,
            found=f"{_shown(payload)} ({error})",
            hint=tr("The file may have been cut off while it was copied."),
        ) from None
    if not data:
        raise DataError(tr("The image is empty."), where=where, found=_shown(payload))
    return data


def _parse_query(raw: bytes, where: str, *, needs_items: bool) -> tuple[Query, str | None]:
    try:
        line = json.loads(raw.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise DataError(
            tr("The line is not UTF-8."),
            where=where,
            found=tr("byte {byte} at column {column}", byte=raw[error.start], column=error.start),
            hint=tr("Save the file as UTF-8."),
        ) from None
    except (ValueError, RecursionError):
        raise DataError(
            tr("The line is not JSON."),
            where=where,
            found=_shown(raw),
            expected='{"query_id": 1, "query_text": "…", "item_ids": [2, 3]}',
        ) from None
    if not isinstance(line, dict):
        raise DataError(tr("The line is JSON, but not an object."), where=where, found=_shown(raw))
    naming: Naming = "query" if "query_id" in line or "query_text" in line else "text"
    id_field, text_field, items_field = FIELDS[naming]
    for field in (id_field, text_field, items_field):
        if field not in line and (field != items_field or needs_items):
            raise DataError(
                tr("The field '{field}' is missing.", field=field),
                where=where,
                found=", ".join(map(str, line)) or "{}",
                expected=", ".join(FIELDS[naming]),
            )
    text = line[text_field]
    if not isinstance(text, str) or not text.strip() or not _is_unicode(text):
        raise DataError(
            tr("'{field}' is not a title.", field=text_field),
            where=where,
            found=_shown(repr(text).encode()),
            expected=tr("a string with something in it"),
        )
    items = line.get(items_field, [])
    if not isinstance(items, list):
        raise DataError(
            tr("'{field}' is not a list.", field=items_field),
            where=where,
            found=_shown(repr(items).encode()),
            expected=tr("a list of image ids, whole numbers"),
        )
    ids = [_whole_number(item, items_field, where) for item in items]
    distinct = tuple(dict.fromkeys(ids))
    note = None
    if len(distinct) < len(ids):
        note = tr("'{field}' names an image twice; it counts once.", field=items_field)
    return Query(_whole_number(line[id_field], id_field, where), text, distinct), note


def _whole_number(value: Any, field: str, where: str) -> int:
    if type(value) is int and 0 <= value <= _MAX_ID:  # a bool is an int, but not an id
        return value
    raise DataError(
        tr("'{field}' is not a whole number.", field=field),
        where=where,
        found=_shown(json.dumps(value, ensure_ascii=False).encode("utf-8", "replace")),
        expected=tr("a number without quotes, 0 to 2^63 - 1"),
    )


def _once(number: int, line: int, first_line: dict[int, int], where: str) -> None:
    first = first_line.setdefault(number, line)
    if first != line:
        raise DataError(
            tr("The id {id} is there twice.", id=number),
            where=where,
            found=tr("first on line {line}", line=first),
        )


def _strict(scan: Iterator[Numbered[T]]) -> Iterator[T]:
    for item in scan:
        if item.error is not None:
            raise item.error
        assert item.record is not None
        yield item.record


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Lines with their numbers, without their ends; blank ones at the end of the file left out."""
    try:
        stream = open(path, "rb")  # noqa: SIM115 - the message below is for opening alone
    except OSError as error:
        raise InputError(
            tr("The file cannot be read."), where=path, found=error.strerror
        ) from error
    with stream:
        number = 0
        blanks: list[int] = []
        while raw := stream.readline(_MAX_LINE):
            number += 1
            if len(raw) == _MAX_LINE:
                raise DataError(
                    tr("The line has no end."), where=f"{path}:{number}", found=_shown(raw[:100])
                )
            if number == 1:
                raw = raw.removeprefix(_BOM)
            raw = raw.rstrip(b"\r\n")
            if not raw.strip():
                blanks.append(number)
                continue
            yield from ((blank, b"") for blank in blanks)
            blanks.clear()
            yield number, raw


def _is_unicode(text: str) -> bool:
    """False where JSON escapes made half of a surrogate pair, which no encoder takes."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _shown(raw: bytes, most: int = 60) -> str:
    """The beginning of ``raw``, for a message."""
    text = raw[: most + 1].decode("utf-8", "replace")
    return repr(text if len(raw) <= most else f"{text}…")


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
