"""Files of text queries for a search: one query per line, or MUGE's JSON lines.

红色碎花裙                                         query 1
SENYA RX-580S                                      query 2

{"query_id": 7, "query_text": "红色碎花裙"}        query 7
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from bagformer_cli.data.byte_ranges import ByteRange, decode_line
from bagformer_cli.data.muge_lines import parse_query_line
from bagformer_cli.data.table import JSON_ENDINGS
from bagformer_cli.data.table_formats import unreadable_kind
from bagformer_cli.data.workbook import is_workbook
from bagformer_cli.errors import DataError, InputError
from bagformer_cli.file_kinds import require_text_file
from bagformer_cli.messages import tr
from bagformer_cli.text.characters import is_blank


class TextQuery(NamedTuple):
    """A query of a file.

    Attributes:
        id: Its ``query_id``; without ids, the number of its line, from 1.
        text: The query.
    """

    id: str
    text: str


def read_text_queries(path: Path) -> list[TextQuery]:
    """Read all queries of a file; it is JSON if its ending or the brace of its first line says so.

    Raises:
        InputError: The file cannot be read, or has no query.
        DataError: A line is no query, or its id occurs twice. The error names the line.
    """
    if error := unreadable_kind(path):
        raise error
    if not is_workbook(path):
        require_text_file(path, tr("one query per line"))
    queries: list[TextQuery] = []
    known: dict[str, int] = {}
    is_json = False
    for number, line in enumerate(ByteRange(path).lines(), 1):
        if number == 1:
            begins_with_brace = line.content.lstrip(b"\xef\xbb\xbf \t").startswith(b"{")
            is_json = begins_with_brace or path.suffix.lower() in JSON_ENDINGS
            if not is_json:
                _require_no_table(path, line.content)
        try:
            query = _parsed(line.content, number, is_json)
            if query.id in known:
                raise DataError(
                    tr("This query id occurs a second time."),
                    found=query.id,
                    expected=tr("another id; line {n} has this one", n=known[query.id]),
                )
        except DataError as error:
            error.where = f"{path}:{number}"
            raise
        known[query.id] = number
        queries.append(query)
    if not queries:
        raise InputError(tr("The file has no query."), where=path)
    return queries


def _require_no_table(path: Path, first: bytes) -> None:
    """Refuse a table, of which every whole line would be searched for, its heading too.

    Raises:
        InputError: The file's name and first line are those of a table.
    """
    separator = {".csv": b",", ".tsv": b"\t", ".xlsx": b"", ".xlsm": b""}.get(path.suffix.lower())
    if separator is None or separator not in first:
        return
    raise InputError(
        tr("This is a table, and queries are read from lines."),
        where=path,
        expected=tr("one query per line, or JSON lines with query_id and query_text"),
        hint=tr("Save its column of queries as a text file."),
    )


def _parsed(content: bytes, number: int, is_json: bool) -> TextQuery:
    if is_json:
        query = parse_query_line(content, items=False)
        return TextQuery(str(query.query_id), query.text)
    text = decode_line(content).strip()
    if is_blank(text):
        raise DataError(tr("The query is empty."), expected=tr("one query per line"))
    return TextQuery(str(number), text)
