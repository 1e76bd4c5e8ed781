"""Headings of catalogues: which an index can store, and which are read as numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bagformer_cli.config.expected import type_word
from bagformer_cli.data.columns import accepted_headings, columns_of, require_chosen
from bagformer_cli.errors import InputError, listed, nearest, shell_word
from bagformer_cli.messages import tr

FIXED = {"id", "title", "image", "title_terms"}
"""Columns that every index has."""

RESERVED = {
    "thumbnail", "vector", "vectors", "scale", "count", "_rowid", "_rowaddr", "_distance", "_score"
}  # fmt: skip
"""Names that an index uses itself, alone or after ``image_`` and ``title_``."""


def check_names(headings: Sequence[str], where: str, chosen: Mapping[str, str]) -> None:
    """Refuse a table without images and titles, and names that an index cannot store.

    Raises:
        InputError: The error names the column.
    """
    require_chosen(headings, where, chosen)
    columns = columns_of(headings, chosen)
    if "image" not in columns and "title" not in columns:
        near = nearest("image", headings) or nearest("title", headings)
        raise InputError(
            tr("The table has neither images nor titles."),
            where=where,
            found=listed(headings)[:200],
            expected=tr("one of: {names}", names=accepted_headings("image", "title")),
            hint=tr("Rename '{name}', or name the columns: --column image=…", name=near)
            if near
            else tr("Name the columns: --column image=… --column title=…"),
        )
    first: dict[str, str] = {}
    for name in headings:
        if first.setdefault(name.casefold(), name) != name:
            raise InputError(
                tr("Two columns have the same name but for the case of letters."),
                where=where,
                found=f"{first[name.casefold()]}, {name}",
                hint=tr("Rename or remove one of them."),
            )
        plain = name.lower().removeprefix("image_").removeprefix("title_")
        if name not in taken_columns(columns) and (plain in RESERVED or name.lower() in FIXED):
            raise InputError(
                tr("This column name is reserved by the index."),
                where=where,
                found=name,
                hint=tr("Rename '{name}'.", name=name),
            )


def require_numbers(
    numbers: Sequence[str],
    headings: Sequence[str],
    where: str,
    *,
    chosen: Mapping[str, str],
    settled: Mapping[str, str],
) -> None:
    """Check the columns that the user wants to be read as numbers.

    Args:
        numbers: Their headings.
        headings: All headings of the table.
        where: The table.
        chosen: Role to the heading of its column, where the user named it.
        settled: Types that the index already has for some attributes.

    Raises:
        InputError: One is missing, has the ids, titles or images, or is text in the index.
    """
    taken = taken_columns(columns_of(headings, chosen))
    known = [name for name in headings if name not in taken]
    for name in numbers:
        if name not in known:
            near = nearest(name, known)
            raise InputError(
                tr("--number names no attribute of this table."),
                where=where,
                found=name,
                expected=listed(known)[:200] or None,
                hint=None if near is None else tr("Did you mean {name}?", name=near),
            )
        if settled.get(name, "float") not in {"float", "int"}:
            raise InputError(
                tr("The index stores the attribute '{name}' with another type.", name=name),
                where=where,
                found=type_word(settled[name]),
                hint=tr("Build the index again with --number {name}.", name=shell_word(name)),
            )


def taken_columns(columns: Mapping[str, str]) -> tuple[str | None, ...]:
    """Return the headings of the id, the image and the title."""
    return columns.get("id"), columns.get("image"), columns.get("title")
