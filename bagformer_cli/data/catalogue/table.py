"""Catalogues that are CSV, TSV or JSONL tables: any columns, typed by their values.

Opening a table reads it once: to check the headings, to find the type of every attribute, and to
find the offsets at which parts of ``size`` products begin. A part then reads its own records only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from bagformer_cli.data.byte_ranges import ByteRange
from bagformer_cli.data.catalogue.headings import check_names, require_numbers, taken_columns
from bagformer_cli.data.catalogue.id_columns import IdColumns
from bagformer_cli.data.catalogue.products import (
    Part,
    Product,
    Remarks,
    digest_of,
    image_stamp,
    part_name,
    row_place,
)
from bagformer_cli.data.catalogue.values import (
    SeenValues,
    converted,
    emptied_remark,
    is_number,
    remark_of,
    shown,
)
from bagformer_cli.data.image_cells import ImageColumns, SeveralImages, first_image
from bagformer_cli.data.image_files import ANYWHERE, ImageAccess, place_of
from bagformer_cli.data.json_values import JsonText
from bagformer_cli.data.product_ids import require_all_digits
from bagformer_cli.data.table import (
    HEADLESS,
    JSON_ENDINGS,
    Record,
    Start,
    read_records,
    remarks_of,
    text_of,
)
from bagformer_cli.data.table_headings import separator_of
from bagformer_cli.errors import DataError, InputError, listed, shortened
from bagformer_cli.messages import tr
from bagformer_cli.text.characters import is_blank


@dataclass(frozen=True, slots=True)
class TablePart(Part):
    """Records of a table.

    Args:
        source: The table.
        encoding: Encoding of the table.
        start: The first record.
        end: Offset of the first byte after the last record.
        root: Folder that relative image paths start from.
        types: Attribute to its type; see ``values.py``.
        chosen: Role to the heading of its column, where the user named it.
        access: Which images may be read.
        sheet: Name or number of a workbook's sheet; None: the first one.
        numbers: Attribute to its currency, of those whose values stay empty if they are no numbers.
    """

    source: Path
    encoding: str
    start: Start
    end: int
    root: Path
    types: dict[str, str]
    chosen: dict[str, str] = field(default_factory=dict)
    access: ImageAccess = ANYWHERE
    sheet: str | None = None
    numbers: dict[str, str] = field(default_factory=dict)

    def current_digest(self) -> str:
        """Return a digest that also changes with the images that the records name."""
        images = [one.image for one in self.products() if isinstance(one, Product)]
        stamps = [image_stamp(image) for image in images if image is not None]
        return digest_of([self.digest, stamps]) if stamps else self.digest

    def products(self) -> Iterator[Product | InputError]:
        """Read the records; one that is no product gives its error in its place."""
        records = read_records(
            self.source, self.encoding, chosen=self.chosen, start=self.start, sheet=self.sheet
        )
        for record in records:
            try:
                yield _product(record, self)
            except InputError as error:
                error.product = error.product or _known_id(record)
                if error.where == record.where:
                    error.where = row_place(record.where, error.product)
                yield error
            if record.end >= self.end:
                return


@dataclass(frozen=True, slots=True)
class OpenedTable:
    """The result of one pass over a table.

    Args:
        parts: The parts of the catalogue.
        types: Attribute to its type.
        count: Number of records, broken ones included.
        remarks: Notes and warnings about its values.
    """

    parts: tuple[Part, ...]
    types: dict[str, str]
    count: int
    remarks: Remarks


@dataclass(frozen=True, slots=True)
class TableOptions:
    """Options for reading a table.

    Args:
        root: Folder that relative image paths start from.
        encoding: Encoding of the table.
        part_size: Number of records in a part.
        settled: Types that the index already has for some attributes; they are kept.
        chosen: Role (``image``, ``title``, ``id``) to the heading of its column, where the user
            named it.
        access: Which images may be read.
        sheet: Name or number of a workbook's sheet; None: the first one.
        numbers: Columns that are read as numbers; their other values stay empty.
    """

    root: Path
    encoding: str = "utf-8"
    part_size: int = 2048
    settled: Mapping[str, str] = field(default_factory=dict)
    chosen: Mapping[str, str] = field(default_factory=dict)
    access: ImageAccess = ANYWHERE
    sheet: str | None = None
    numbers: tuple[str, ...] = ()


def open_table(path: Path, options: TableOptions) -> OpenedTable:
    """Read a table once, to find its parts and the types of its attributes.

    Args:
        path: The table.
        options: See :class:`TableOptions`.

    Raises:
        InputError: It has neither images nor titles, a column name that the index uses itself, or
            headings that leave open which column is meant.
        DataError: Most lines are in another encoding.
    """
    read = _TablePass(path, options)
    read.run()
    types = read.types()
    return OpenedTable(read.parts(types), types, read.count, read.all_remarks(types))


class _Bounds(NamedTuple):
    """The place of a part in its table.

    Attributes:
        begin: Offset of its first byte.
        end: Offset of the first byte after it.
        lines: Lines of the table before it.
    """

    begin: int
    end: int
    lines: int


class _TablePass:
    """One pass over a table: the headings and values that it met, and the bounds of its parts.

    Args:
        path: The table.
        options: See :class:`TableOptions`.
    """

    def __init__(self, path: Path, options: TableOptions) -> None:
        self.path, self.options = path, options
        self.is_json = path.suffix.lower() in JSON_ENDINGS
        self.count = 0
        self._bounds: list[_Bounds] = []
        self._headings: list[str] | None = None  # of a CSV or TSV
        self._field_lists: dict[tuple[str, ...], None] = {}  # the different ones of a JSONL
        self._values: dict[str, SeenValues] = {}  # by attribute
        self._has_unnamed = False  # columns or fields with values, but without a name
        self._several, self._images, self._ids = SeveralImages(), ImageColumns(), IdColumns()

    def run(self) -> None:
        """Read all records, then check the names of the columns.

        Raises:
            InputError: See :func:`open_table`.
            DataError: See :func:`open_table`.
        """
        options = self.options
        begin = end = line = lines_before = 0
        for record in read_records(
            self.path,
            options.encoding,
            chosen=options.chosen,
            check=self._check_headings,
            sheet=options.sheet,
        ):
            if record.error is None:
                self._add(record)
            if self.count % options.part_size == 0:
                if self.count:
                    self._bounds.append(_Bounds(begin, end, lines_before))
                begin, lines_before = end, line
            end, line = record.end, record.line
            self.count += 1
        if self.count:
            self._bounds.append(_Bounds(begin, end, lines_before))
        self._has_unnamed = self._values.pop("", None) is not None
        fields = list(dict.fromkeys(name for names in self._field_lists for name in names))
        if self._field_lists:
            check_names(fields, str(self.path), options.chosen)
        if options.numbers:
            require_numbers(
                options.numbers,
                fields if self.is_json else self._headings or HEADLESS,
                str(self.path),
                chosen=options.chosen,
                settled=options.settled,
            )

    def _check_headings(self, found: Sequence[str], where: str) -> None:
        if not self.is_json:  # the records of a JSONL may differ: all are read first
            check_names(found, where, self.options.chosen)
            self._headings = list(found)

    def _add(self, record: Record) -> None:
        if self.is_json:
            self._field_lists[tuple(record.values)] = None
        heading = record.columns.get("image")
        cell = _cell(record.values, heading)
        self._several.add(cell, record.where)
        attributes = _attributes(record)
        self._images.add(heading, cell, attributes)
        self._ids.add(record.columns.get("id"), attributes)
        for name, value in attributes.items():
            seen = self._values.get(name)
            if seen is None:  # setdefault would make a SeenValues for each cell
                seen = self._values[name] = SeenValues()
            seen.add(value, record.where)

    def types(self) -> dict[str, str]:
        """Return attribute to type: as settled, a number if the user says so, or by its values."""
        decided = dict.fromkeys(self.options.numbers, "float") | dict(self.options.settled)
        return {name: decided.get(name, seen.type) for name, seen in self._values.items()}

    def all_remarks(self, types: dict[str, str]) -> Remarks:
        """Return what a user may not expect of the table."""
        remarks: list[str | None] = [*remarks_of(self.path, self.options.sheet)]
        notes: list[str | None] = [self._ids.remark]
        for name, seen in self._values.items():
            as_text = types[name] == "str"
            (remarks if as_text else notes).append(remark_of(name, seen, types[name]))
            if name in self.options.numbers:
                remarks.append(emptied_remark(name, seen))
        remarks.append(self._several.remark)
        if self._has_unnamed:
            remarks.append(self._unnamed_remark())
        return Remarks(
            tuple(filter(None, remarks)), tuple(filter(None, notes)), self._images.remark
        )

    def _unnamed_remark(self) -> str:
        if self._headings is None:
            return tr("Fields with an empty name are left out.")
        which = listed(at for at, name in enumerate(self._headings, 1) if not name)
        return tr("Column {n} has no heading and is left out.", n=which)

    def parts(self, types: dict[str, str]) -> tuple[Part, ...]:
        """Return the parts; their digests change with all that decides how they are read."""
        path, options = self.path, self.options
        columns = None if self.is_json else self._headings or HEADLESS
        text = text_of(path, options.sheet)
        separator = None
        if text == path and not self.is_json:
            separator = separator_of(path, options.encoding)
        numbers = {
            name: self._values[name].currency for name in options.numbers if name in self._values
        }
        how: list[Any] = [str(options.root), options.encoding, columns, tuple(types.items())]
        how += [dict(options.chosen)] if options.chosen else []
        how += [numbers] if numbers else []
        return tuple(
            TablePart(
                part_name(number),
                digest_of([ByteRange(text, begin, end).digest(), how]),
                path,
                options.encoding,
                # The first part has the headings in it.
                Start(begin, lines, columns, separator) if begin else Start(),
                end,
                options.root,
                types,
                dict(options.chosen),
                options.access,
                options.sheet,
                numbers,
            )
            for number, (begin, end, lines) in enumerate(self._bounds)
        )


def _product(record: Record, part: TablePart) -> Product:
    if record.error is not None:
        raise record.error
    values, columns = record.values, record.columns
    image = _text(values, columns.get("image"), record.where)
    title = _text(values, columns.get("title"), record.where)
    if image is None and title is None:
        raise DataError(tr("The product has neither image nor title."), where=record.where)
    identity = _identity(values, columns.get("id"), record.where)
    attributes = {
        name: converted(value, part.types.get(name, "str"), name, record.where)
        for name, value in _attributes(record).items()
        if name and (name not in part.numbers or is_number(value, part.numbers[name]))
    }
    path = None
    if image is not None:
        try:
            image, _ = first_image(image)
        except DataError as error:
            error.where = row_place(record.where, identity)
            raise
        path = place_of(image, part.root)
    return Product(
        record.where,
        identity or image or str(record.line),
        path,
        None,
        title,
        attributes,
        part.access,
    )


def _text(values: dict[str, Any], name: str | None, where: str) -> str | None:
    value = None if name is None else values.get(name)
    if value is None or value == "":
        return None
    if not isinstance(value, str) or isinstance(value, JsonText):
        raise DataError(
            tr("'{field}' is not text.", field=name), where=where, found=shortened(value)
        )
    return None if is_blank(value) else value.strip()


def _identity(values: dict[str, Any], name: str | None, where: str) -> str | None:
    """Return the id of a product; None if the table has no column of ids."""
    if name is None:
        return None
    value = values.get(name)
    whole = (
        not isinstance(value, float) or value.is_integer()
    )  # pandas writes 7.0 where ids are missing
    if isinstance(value, (bool, JsonText)) or not whole:
        raise DataError(
            tr("The {name} is neither text nor a whole number.", name=name),
            where=where,
            found=shortened(value),
        )
    identity = "" if value is None else shown(value).strip()
    if not identity:
        raise DataError(tr("The {name} is empty.", name=name), where=where)
    require_all_digits(identity, where)
    return identity


def _cell(values: dict[str, Any], name: str | None) -> str:
    value = None if name is None else values.get(name)
    return value.strip() if isinstance(value, str) else ""


def _known_id(record: Record) -> str | None:
    """Return the id of a row that is no product; None if it is not known."""
    name = record.columns.get("id") or record.columns.get("image")
    value = None if record.error is not None or name is None else record.values.get(name)
    return shown(value).strip() or None if isinstance(value, (str, int, float)) else None


def _attributes(record: Record) -> dict[str, Any]:
    """The columns that are not blank and are neither id nor image nor title."""
    taken = taken_columns(record.columns)
    found = {}
    for name, value in record.values.items():
        if isinstance(value, str):
            value = value.strip()  # a blank after a comma would make filters miss the value
        if value is not None and value != "" and name not in taken:
            found[name] = value
    return found
