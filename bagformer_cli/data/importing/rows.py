"""Rows of a table for ``xmr data import``: an image and a title that belong together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from bagformer_cli.data.catalogue.products import row_place
from bagformer_cli.data.columns import accepted_headings, columns_of, require_chosen
from bagformer_cli.data.image_cells import SeveralImages, first_image
from bagformer_cli.data.muge import SPLITS
from bagformer_cli.data.product_ids import require_all_digits
from bagformer_cli.data.table import read_records
from bagformer_cli.errors import DataError, InputError, listed, nearest, shortened
from bagformer_cli.messages import tr
from bagformer_cli.text.characters import is_blank


@dataclass(frozen=True, slots=True)
class Row:
    """An image and a title, with their ids and split if the table has them.

    Args:
        where: File, line and id of the row, for errors.
        image: Path or address of the image.
        title: The title.
        product: Id of the product; several rows may have the same.
        image_id: Id of the image.
        query_id: Id of the title.
        split: The split.
    """

    where: str
    image: str
    title: str
    product: str | None = None
    image_id: str | None = None
    query_id: str | None = None
    split: str | None = None


def read_rows(
    source: Path,
    encoding: str = "utf-8",
    chosen: Mapping[str, str] | None = None,
    sheet: str | None = None,
    several: SeveralImages | None = None,
) -> Iterator[Row | DataError]:
    """Read the (image, title) rows of a table.

    Args:
        source: The table.
        encoding: Its encoding.
        chosen: Role (``image``, ``title``, ``id``) to the heading of its column, where the user
            named it.
        sheet: Name or number of a workbook's sheet; None: the first one.
        several: Counts the rows that name several images.

    Yields:
        The rows; a broken one gives its error in its place.

    Raises:
        InputError: The file cannot be read, or a column is missing.
    """
    given = chosen or {}
    check = partial(_require_image_and_title, chosen=given)
    for record in read_records(source, encoding, chosen=given, check=check, sheet=sheet):
        columns = dict(record.columns)
        if columns.get("id") in (columns.get("image_id"), columns.get("query_id")):
            columns.pop("id", None)  # not the id of a product
        values = {name: record.values.get(heading) for name, heading in columns.items()}
        try:
            if record.error is not None:
                raise record.error
            row = _row(values, record.where)
            if several is not None:
                several.add(str(values["image"]).strip(), row.where)
            yield row
        except DataError as error:
            error.where = row_place(record.where, values.get("id"))
            yield error


def _require_image_and_title(
    headings: Sequence[str], where: str, chosen: Mapping[str, str]
) -> None:
    require_chosen(headings, where, chosen)
    names = columns_of(headings, chosen)
    if "image" not in names and "title" not in names:
        raise InputError(
            tr("The table has neither images nor titles."),
            where=where,
            found=shortened(listed(headings), 200),
            expected=tr(
                "a column of image paths ({images}) and one of titles ({titles})",
                images=accepted_headings("image"),
                titles=accepted_headings("title"),
            ),
            hint=tr("Name the columns: --column image=… --column title=…"),
        )
    for name in ("image", "title"):
        if name not in names:
            near = nearest(name, headings)
            raise InputError(
                tr("There is no column '{name}'.", name=name),
                where=where,
                found=shortened(listed(headings), 200),
                expected=tr("one of: {names}", names=accepted_headings(name)),
                hint=tr("Rename '{name}', or name the column: --column {role}=…",
                        name=near, role=name)
                if near
                else tr("Name the column: --column {role}=…", role=name),
            )  # fmt: skip


def _row(values: dict[str, Any], where: str) -> Row:
    for name in ("image", "title"):
        value = values.get(name)
        if not isinstance(value, str) or is_blank(value):
            word = tr("title") if name == "title" else tr("image")
            raise DataError(tr("The {name} is empty.", name=word), found=shortened(value))
    split = values.get("split") or None
    if split is not None and split not in SPLITS:
        raise DataError(tr("There is no such split."), found=split, expected=listed(SPLITS))
    product, image_id, query_id = (_id(values, name) for name in ("id", "image_id", "query_id"))
    image, _ = first_image(values["image"].strip())
    return Row(
        row_place(where, product),
        image,
        values["title"].strip(),
        product,
        image_id,
        query_id,
        split,
    )


def _id(values: dict[str, Any], name: str) -> str | None:
    """Return an id as text; None if the row has none."""
    value = values.get(name)
    if isinstance(value, float) and value.is_integer():  # pandas writes 7.0 in a column with gaps
        value = int(value)
    if value is None or value == "":
        return None
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise DataError(
            tr("The {name} is neither text nor a whole number.", name=name), found=shortened(value)
        )
    identity = str(value).strip()
    require_all_digits(identity)
    return identity or None
