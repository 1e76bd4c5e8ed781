"""Parse one line of MUGE's files; refuse a broken one with a reason.

The functions raise :class:`DataError` without ``where``: the caller knows file and line.
"""

from __future__ import annotations

import binascii
import json
from dataclasses import dataclass
from typing import Literal

from bagformer_cli.data.byte_ranges import decode_line
from bagformer_cli.errors import DataError, listed
from bagformer_cli.messages import tr
from bagformer_cli.text.characters import is_blank

Naming = Literal["query", "text"]

FIELDS: dict[Naming, tuple[str, str, str]] = {
    "query": ("query_id", "query_text", "item_ids"),
    "text": ("text_id", "text", "image_ids"),
}
"""The fields of a query line in both published namings: id, text, ids of the images."""

MAX_ID = 2**63 - 1
_URL_SAFE = bytes.maketrans(b"-_", b"+/")


@dataclass(frozen=True, slots=True)
class Query:
    """One line of a queries file.

    Args:
        query_id: A whole number from 0 to 2^63 - 1.
        text: The query as the file has it.
        item_ids: The images that answer it, each once; empty if the file keeps them secret.
    """

    query_id: int
    text: str
    item_ids: tuple[int, ...]


def parse_query_line(raw: bytes, *, items: bool = True) -> Query:
    """Parse one line of a queries file, in either naming.

    Args:
        raw: The line without its end.
        items: Whether the list of images is required.

    Raises:
        DataError: The line is broken.

    >>> parse_query_line(b'{"query_id": 7, "query_text": "bag", "item_ids": [3, 5, 3]}')
    Query(query_id=7, text='bag', item_ids=(3, 5))
    """
    text = decode_line(raw)
    try:
        line = json.loads(text)
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
                found=listed(line) or "{}",
                expected=listed(FIELDS[naming]),
            )
    title = line[text_field]
    if not isinstance(title, str) or is_blank(title) or not _is_unicode(title):
        raise DataError(
            tr("'{field}' is not a title.", field=text_field),
            found=_shown(ascii(title).encode()),
            expected=tr("a string that is not empty"),
        )
    given = line.get(items_field, [])
    if given is None and not items:  # hidden answers, written as null
        given = []
    if not isinstance(given, list):
        raise DataError(
            tr("'{field}' is not a list.", field=items_field),
            found=_shown(ascii(given).encode()),
            expected=tr("a list of image ids (whole numbers)"),
        )
    item_ids = (parse_id(item, items_field) for item in given)
    return Query(parse_id(line[id_field], id_field), title, tuple(dict.fromkeys(item_ids)))


def parse_image_line(raw: bytes) -> tuple[int, bytes]:
    r"""Parse one line of an images file, without its end, to (image id, image file's bytes).

    Raises:
        DataError: The line is broken.

    >>> parse_image_line(b"12\taGVsbG8=")
    (12, b'hello')
    """
    image_id, payload = split_image_line(raw)
    return image_id, decode_base64(payload)


def split_image_line(raw: bytes) -> tuple[int, bytes]:
    r"""Split one line of an images file, without its end, into (image id, base64 of the image).

    Raises:
        DataError: It has no tab, or no id.

    >>> split_image_line(b"12\taGVsbG8=")
    (12, b'aGVsbG8=')
    """
    head, tab, payload = raw.partition(b"\t")
    if not tab:
        raise DataError(
            tr("The line has no tab between image id and image."),
            found=_shown(raw),
            expected=tr("id, tab, base64"),
        )
    return parse_id(head.decode("utf-8", "replace"), "image_id", text=True), payload


def parse_id(value: object, field: str, *, text: bool = False) -> int:
    """Check an id of an image or a query: a whole number from 0 to 2^63 - 1.

    Args:
        value: A JSON value, or a table cell.
        field: Name of the field, for the error.
        text: Accept digits in a string too.

    Raises:
        DataError: It is not an id.

    >>> parse_id("0012", "image_id", text=True)
    12
    """
    number = value if type(value) is int else -1  # a bool is an int, but not an id
    if text and isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 20:
        number = int(value)
    if not 0 <= number <= MAX_ID:
        raise DataError(
            tr("'{field}' is not a whole number.", field=field),
            found=_shown(ascii(value).encode()),
            expected=tr("digits only, up to 2^63 - 1")
            if text
            else tr("a number without quotes, 0 to 2^63 - 1"),
        )
    return number


def decode_base64(payload: bytes) -> bytes:
    """Decode base64 of either alphabet, with or without padding.

    Raises:
        DataError: It is not base64, or it is empty.
    """
    text = payload.translate(_URL_SAFE)
    text += b"=" * (-len(text) % 4)
    try:
        data = binascii.a2b_base64(text, strict_mode=True)
    except binascii.Error:
        raise DataError(
            tr("The image is broken: this is not base64."),
            found=_shown(payload),
            hint=tr("The file may have been cut off while it was copied."),
        ) from None
    if not data:
        raise DataError(tr("The image is empty."), found=_shown(payload))
    return data


def repeated(number: int, first_line: int) -> DataError:
    """Make the error for an id that an earlier line, ``first_line``, already has."""
    return DataError(
        tr("The id {id} occurs twice.", id=number),
        found=tr("first on line {line}", line=first_line),
    )


def _is_unicode(text: str) -> bool:
    """False if JSON escapes made half of a surrogate pair, which UTF-8 cannot hold."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _shown(raw: bytes, most: int = 60) -> str:
    """The beginning of ``raw``, for a message."""
    text = raw[:most].decode("utf-8", "replace")
    return repr(text if len(raw) <= most else f"{text}…")
