"""The lines of MUGE's files: read by ranges of bytes, parsed, refused with a reason."""

from __future__ import annotations

import binascii
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

from bagformer_cli.errors import DataError, cannot_read
from bagformer_cli.messages import tr

Naming = Literal["query", "text"]

FIELDS: dict[Naming, tuple[str, str, str]] = {
    "query": ("query_id", "query_text", "item_ids"),
    "text": ("text_id", "text", "image_ids"),
}

_MAX_ID = 2**63 - 1
_MAX_LINE = 512 << 20  # bytes; a line without an end must not fill the memory
_URL_SAFE = bytes.maketrans(b"-_", b"+/")
_BOM = b"\xef\xbb\xbf"


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
        raise cannot_read(path, error) from error
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


def repeated(number: int, first_line: int) -> DataError:
    """The error for an id that was there before, on ``first_line``; the caller knows where."""
    return DataError(
        tr("The id {id} is there twice.", id=number),
        found=tr("first on line {line}", line=first_line),
    )


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
