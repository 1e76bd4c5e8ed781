"""Headings of tables: those of the image, the title and the id, and checks of all.

Headings are compared without case, blanks, ``_``, ``-`` and the marks of required columns, so that
``Image Path``, ``image_path`` and ``商品 ID*`` are found. ``--column image=主图`` names any other.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache

from bagformer_cli.errors import InputError, listed, nearest
from bagformer_cli.messages import tr

COLUMNS: dict[str, tuple[str, ...]] = {
    "image": (
        "image", "image_path", "path", "file", "图片", "主图", "商品主图", "宝贝主图", "产品主图",
        "商品图片", "宝贝图片", "产品图片", "图片路径", "主图路径", "图片文件", "filename",
        "image_file", "img", "picture", "图片地址", "图片链接", "主图地址", "主图链接", "image_url",
        "img_url", "pic_url", "picture_url",
    ),
    "title": (
        "title", "text", "query_text", "caption", "标题", "商品标题", "宝贝标题", "产品标题",
        "商品名称", "宝贝名称", "产品名称", "商品名", "宝贝名", "品名", "product_title",
        "product_name", "item_title",
    ),
    "image_id": ("image_id", "item_id"),
    "query_id": ("query_id", "text_id"),
    "split": ("split",),
}  # fmt: skip
"""Accepted headings of each column; of two that a table has, the earlier one."""

ID_COLUMNS = (
    "id", "product_id", "sku", *COLUMNS["image_id"], *COLUMNS["query_id"], "编号", "商品id",
    "宝贝id", "产品id", "商品编号", "宝贝编号", "产品编号", "数字id", "宝贝数字id", "sku编码",
    "skuid", "sku编号", "商品编码", "产品编码", "goods_id", "num_iid",
)  # fmt: skip
"""Accepted headings of the id of a product."""

LOOKED_AT = 10
"""Rows at the beginning of a table that are searched for headings if the first one has none."""

ROLES = {"id": ID_COLUMNS, **COLUMNS}

_REQUIRED = re.compile(r"[(（\[【]?必填(项)?[)）\]】]?|[*＊]")
_PARTS = re.compile(r"[\s_\-]+")
_INVISIBLE = "\ufeff\u200b\u200c\u200d\u200e\u200f\u2060\u00ad"


def accepted_headings(*roles: str) -> str:
    """List the first accepted headings of columns, for a message."""
    return listed(name for role in roles for name in ROLES[role][:7]) + " …"


def clean_heading(cell: str) -> str:
    r"""Remove what cannot be seen around a heading; a line break inside becomes a blank.

    >>> clean_heading("\ufeff image "), clean_heading("价格\n(元)")
    ('image', '价格 (元)')
    """
    return " ".join(cell.strip(_INVISIBLE + " \t\r\n").split())


def columns_of(headings: Iterable[str], chosen: Mapping[str, str] | None = None) -> dict[str, str]:
    """Find which heading is the image, the title, ...; columns that are not there are left out.

    Args:
        headings: The headings of the table.
        chosen: Column to heading, where the user named it (``--column``).

    >>> columns_of(["SKU", "Image_Path", "宝贝 标题*", "货"], {"id": "货"})
    {'id': '货', 'image': 'Image_Path', 'title': '宝贝 标题*'}
    """
    return dict(_columns_of(tuple(headings), tuple((chosen or {}).items())))


def are_headings(cells: Iterable[str], chosen: Mapping[str, str] | None = None) -> bool:
    """Say whether a row has at least two known headings: one alone may be a title such as 主图.

    >>> are_headings(["商品ID", "商品名称", "售价"]), are_headings(["a.jpg", "主图"])
    (True, False)
    """
    return len(columns_of((clean_heading(cell) for cell in cells), chosen)) > 1


def looks_like_heading(cell: str) -> bool:
    """True for an unknown heading (``name``, ``名称``), False for an image path."""
    return cell.isidentifier() and not any(character.isdigit() for character in cell)


def repeats_headings(
    headings: Sequence[str], columns: Mapping[str, str], cells: Sequence[str]
) -> bool:
    """Say whether a row has headings again: shops export English names below the Chinese ones.

    Args:
        headings: The headings of the table.
        columns: Role to heading.
        cells: The row.

    >>> found = ["商品图片", "商品名称", "售价"]
    >>> repeats_headings(found, columns_of(found), ["pic_url", "title", "price"])
    True
    >>> repeats_headings(found, columns_of(found), ["a.jpg", "红裙", "99"])
    False
    """
    names = [clean_heading(cell) for cell in cells]
    if not all(looks_like_heading(name) or columns_of([name]) for name in names if name):
        return False
    places = dict(zip(headings, names, strict=False))
    return any(
        role in columns_of([places[heading]])
        for role, heading in columns.items()
        if places.get(heading)
    )


def check_headings(headings: Sequence[str], where: str, chosen: Mapping[str, str]) -> None:
    """Refuse headings that leave open which column is meant; empty ones are allowed.

    Raises:
        InputError: A heading occurs twice, has control characters, or is missing though the user
            named it.
    """
    first: dict[str, int] = {}
    for number, name in enumerate(headings, 1):
        if any(unicodedata.category(character) == "Cc" for character in name):
            raise InputError(
                tr("A heading contains control characters."),
                where=where,
                found=tr("column {n}: {name}", n=number, name=repr(name)),
                hint=tr("Rename the column."),
            )
        if name and first.setdefault(name.casefold(), number) != number:
            raise InputError(
                tr("Two columns have the same heading."),
                where=where,
                found=tr(
                    "'{name}' in columns {one} and {other}",
                    name=name,
                    one=first[name.casefold()],
                    other=number,
                ),
                hint=tr("Rename or remove one of them."),
            )
    require_chosen(headings, where, chosen)


def require_chosen(headings: Iterable[str], where: str, chosen: Mapping[str, str]) -> None:
    """Check that the columns that the user named are there.

    Raises:
        InputError: One is missing.
    """
    names = list(headings)
    for role, heading in chosen.items():
        if _heading(heading, names) is None:
            near = nearest(heading, names)
            raise InputError(
                tr("There is no column '{name}'.", name=heading),
                where=where,
                found=listed(names),
                hint=tr("Did you mean --column {role}={name}?", role=role, name=near)
                if near
                else None,
            )


@lru_cache(maxsize=256)  # asked for every record of a JSONL
def _columns_of(
    headings: tuple[str, ...], chosen: tuple[tuple[str, str], ...]
) -> tuple[tuple[str, str], ...]:
    named = dict(chosen)
    plain: dict[str, str] = {}
    for heading in headings:
        plain.setdefault(_key(heading), heading)
    taken = {_heading(heading, headings) for heading in named.values()}
    found: dict[str, str] = {}
    for role, spellings in ROLES.items():
        if role in named:
            own = _heading(named[role], headings)
        else:
            keys = (_key(spelling) for spelling in spellings)
            own = next((plain[key] for key in keys if key in plain), None)
            own = None if own in taken else own
        if own is not None:
            found[role] = own
    return tuple(found.items())


def _heading(name: str, headings: Iterable[str]) -> str | None:
    """Find a heading: as it is written, else without case, blanks and marks."""
    known = list(headings)
    if name in known:
        return name
    return next((heading for heading in known if _key(heading) == _key(name)), None)


@lru_cache(maxsize=4096)
def _key(heading: str) -> str:
    """Return the form in which headings are compared."""
    text = unicodedata.normalize("NFKC", heading).casefold()
    return _PARTS.sub("", _REQUIRED.sub("", text).strip(_INVISIBLE))
