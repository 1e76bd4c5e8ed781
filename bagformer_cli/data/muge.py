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


def parse_query_line(raw: bytes, *, items: bool = True) -> Query:
    """One line of a queries file.

    Args:
        raw: The line without its end.
        items: Whether the list of images must be there.

    Raises:
        DataError: What is wrong with it; the caller knows where.
    """
    try:
        line = json.loads(raw.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise DataError(
            tr("The line is not UTF-8."),
            found=tr("byte {byte} at column {column}", byte=raw[error.start], column=error.start),
            hint=tr("Save the file as UTF-8."),
        ) from None
    except (ValueError, RecursionError):
        raise DataError(
            tr("The line is not JSON."),
            found=_shown(raw),
            expected='{"query_id": 1, "query_text": "…", "item_ids": [2, 3]}',
        ) from None
    if not isinstance(line, dict):
        raise DataError(tr("The line is JSON, but not an object."), found=_shown(raw))
    naming: Naming = "query" if "query_id" in line or "query_text" in line else "text"
    id_field, text_field, items_field = FIELDS[naming]
    for field in (id_field, text_field, items_field):
        if field not in line and (field != items_field or items):
            raise DataError(
                tr("The field '{field}' is missing.", field=field),
                found=", ".join(map(str, line)) or "{}",
                expected=", ".join(FIELDS[naming]),
            )
    text = line[text_field]
    if not isinstance(text, str) or not text.strip() or not _is_unicode(text):
        raise DataError(
            tr("'{field}' is not a title.", field=text_field),
            found=_shown(ascii(text).encode()),
            expected=tr("a string with something in it"),
        )
    listed = line.get(items_field, [])
    if not isinstance(listed, list):
        raise DataError(
            tr("'{field}' is not a list.", field=items_field),
            found=_shown(ascii(listed).encode()),
            expected=tr("a list of image ids, whole numbers"),
        )
    item_ids = (_whole_number(item, items_field) for item in listed)
    return Query(_whole_number(line[id_field], id_field), text, tuple(dict.fromkeys(item_ids)))


def parse_image_line(raw: bytes) -> tuple[int, bytes]:
    """One line of an images file, without its end, as (image id, image file's bytes).

    Raises:
        DataError: What is wrong with it; the caller knows where.
    """
    head, tab, payload = raw.partition(b"\t")
    if not tab:
        raise DataError(
            tr("The line has no tab between image id and image."),
            found=_shown(raw),
            expected=tr("id, tab, base64"),
        )
    if not head.isdigit() or len(head) > 19 or int(head) > _MAX_ID:
        raise DataError(
            tr("The image id is not a whole number."),
            found=_shown(head),
            expected=tr("digits only, up to 2^63 - 1"),
        )
    return int(head), decode_base64(payload)


def decode_base64(payload: bytes) -> bytes:
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
            found=f"{_shown(payload)} ({error})",
            hint=tr("The file may have been cut off while it was copied."),
        ) from None
    if not data:
        raise DataError(tr("The image is empty."), found=_shown(payload))
    return data


def read_lines(path: Path, start: int = 0, end: int | None = None) -> Iterator[tuple[bytes, int]]:
    """The lines that begin in a byte range of a file.

    Lines that are blank are left out at the end of the file and given as ``b""`` elsewhere.

    Args:
        path: The file.
        start: The first byte of the range; a line that begins before it is passed over.
        end: One past the last byte of the range; None: the file's end.

    Yields:
        The line without its end (and without a byte-order mark), and the offset of its first byte.

    Raises:
        InputError: The file cannot be read.
    """
    try:
        stream = open(path, "rb")  # noqa: SIM115 - the message below is for opening alone
    except OSError as error:
        raise InputError(
            tr("The file cannot be read."), where=path, found=error.strerror
        ) from error
    with stream:
        if start:
            stream.seek(start - 1)
            stream.readline()
        begin = stream.tell()
        while (end is None or begin < end) and (raw := stream.readline(_MAX_LINE)):
            behind = stream.tell()
            if begin == 0:
                raw = raw.removeprefix(_BOM)
            raw = raw.rstrip(b"\r\n")
            if not raw or raw.isspace():
                if _only_blanks(stream):
                    return
                stream.seek(behind)
                raw = b""
            yield raw, begin
            begin = behind


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


def repeated(number: int, first_line: int) -> DataError:
    """The error for an id that was there before, on ``first_line``; the caller knows where."""
    return DataError(
        tr("The id {id} is there twice.", id=number),
        found=tr("first on line {line}", line=first_line),
    )


def _strict(scan: Iterator[Numbered[T]]) -> Iterator[T]:
    for item in scan:
        if item.error is not None:
            raise item.error
        assert item.record is not None
        yield item.record


def _only_blanks(stream: BinaryIO) -> bool:
    while chunk := stream.read(1 << 16):
        if not chunk.isspace():
            return False
    return True


def _whole_number(value: Any, field: str) -> int:
    if type(value) is int and 0 <= value <= _MAX_ID:  # a bool is an int, but not an id
        return value
    raise DataError(
        tr("'{field}' is not a whole number.", field=field),
        found=_shown(json.dumps(value).encode()),
        expected=tr("a number without quotes, 0 to 2^63 - 1"),
    )


def _is_unicode(text: str) -> bool:
    """False where JSON escapes made half of a surrogate pair, which no encoder takes."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _shown(raw: bytes, most: int = 60) -> str:
    """The beginning of ``raw``, for a message."""
    text = raw[:most].decode("utf-8", "replace")
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
