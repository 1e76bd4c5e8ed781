"""Results with their pictures: a page (HTML) or a contact sheet (PNG, JPEG)."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from bagformer_cli.data.images import decode, open_image
from bagformer_cli.errors import InputError
from bagformer_cli.files import atomic_file, write_text
from bagformer_cli.index.fonts import chinese_font
from bagformer_cli.index.search import Hit
from bagformer_cli.messages import language, tr

PICTURES = {".png", ".jpg", ".jpeg", ".webp"}
CELL, LINE, GAP, COLUMNS = 160, 18, 12, 6


@dataclass(frozen=True)
class Found:
    """One query and what it found.

    Args:
        query: The title, or the name of the image.
        hits: With thumbnails.
        picture: The query's image, the file's content.
    """

    query: str
    hits: Sequence[Hit]
    picture: bytes | None = None


def write_sheet(path: Path, found: Sequence[Found]) -> str | None:
    """Write results with their pictures; the file's ending says in which form.

    Returns:
        What is to be said of it: that a picture lacks Chinese titles, for want of a font.

    Raises:
        InputError: It is neither a page nor a picture.
    """
    ending = path.suffix.lower()
    if ending in {".html", ".htm"}:
        write_text(path, page(found))
    elif ending in PICTURES:
        form = {".png": "PNG", ".webp": "WEBP"}.get(ending, "JPEG")
        with atomic_file(path) as temporary:
            contact_sheet(found).save(temporary, form)
        if chinese_font() is None and any(map(_beyond_pillow, _texts(found))):
            return tr(
                "No font with Chinese characters was found on this machine: {path} lacks them. "
                "Install one (Noto Sans CJK, say), or write a page (.html).",
                path=path,
            )
    else:
        raise InputError(
            tr("Results are written as a page or a picture."),
            where=path,
            expected=".html, .png, .jpg",
        )
    return None


def _texts(found: Sequence[Found]) -> Iterator[str]:
    for one in found:
        yield one.query
        for hit in one.hits:
            yield from _lines(hit)


def contact_sheet(found: Sequence[Found]) -> Image.Image:
    """All results as one picture: a row of cells for each query, wrapped."""
    columns = min(
        COLUMNS, max((len(one.hits) + (one.picture is not None) for one in found), default=1)
    )
    columns = max(3, columns)
    height = GAP
    for one in found:
        count = len(one.hits) + (one.picture is not None)
        height += LINE + 8 + -(-max(1, count) // columns) * (CELL + 3 * LINE + GAP)
    width = GAP + columns * (CELL + GAP)
    sheet = Image.new("RGB", (width, height), "white")
    pen = ImageDraw.Draw(sheet)
    font = _font(13)
    top = GAP
    for one in found:
        pen.text((GAP, top), _fit(pen, one.query, _font(15), width - 2 * GAP), "black", _font(15))
        top += LINE + 8
        cells: list[tuple[bytes | None, list[str]]] = []
        if one.picture is not None:
            cells.append((one.picture, [tr("query")]))
        cells += [(hit.thumbnail, _lines(hit)) for hit in one.hits]
        for number, (picture, lines) in enumerate(cells):
            row, column = divmod(number, columns)
            left = GAP + column * (CELL + GAP)
            y = top + row * (CELL + 3 * LINE + GAP)
            _place(sheet, picture, left, y)
            for i, line in enumerate(lines):
                colour = "black" if i == 0 else "#555555"
                pen.text((left, y + CELL + 2 + i * LINE), _fit(pen, line, font, CELL), colour, font)
        top += -(-max(1, len(cells)) // columns) * (CELL + 3 * LINE + GAP)
    return sheet


def page(found: Sequence[Found]) -> str:
    """All results as one HTML page; pictures are inside it."""
    parts = [_HEAD.replace("LANG", language()).replace("TITLE", html.escape(tr("Search results")))]
    for one in found:
        parts.append(f"<h2>{html.escape(one.query)}</h2>")
        if one.picture is not None:
            parts.append(f'<img class="query" src="{_uri(one.picture)}" alt="">')
        parts.append("<ol>")
        for hit in one.hits:
            picture = (
                f'<img loading="lazy" src="{_uri(hit.thumbnail)}" alt="{html.escape(hit.id)}">'
                if hit.thumbnail is not None
                else '<div class="none"></div>'
            )
            known = " · ".join(f"{name} {value}" for name, value in hit.attributes.items())
            parts.append(
                f"<li>{picture}<b>{hit.rank}</b> {hit.score:.3f} <i>{html.escape(hit.id)}</i>"
                f"<p>{html.escape(hit.title or '')}</p><small>{html.escape(known)}</small></li>"
            )
        parts.append("</ol>")
    return "\n".join(parts) + "\n"


def _lines(hit: Hit) -> list[str]:
    return [f"{hit.rank}  {hit.score:.3f}", hit.id, hit.title or ""]


def _place(sheet: Image.Image, data: bytes | None, left: int, top: int) -> None:
    pen = ImageDraw.Draw(sheet)
    pen.rectangle((left, top, left + CELL, top + CELL), "#f2f2f2")
    if data is None:
        return
    try:
        picture = decode(data)
    except InputError:
        return
    picture.thumbnail((CELL, CELL), Image.Resampling.LANCZOS)
    scale = CELL / max(picture.size)
    if scale > 1:
        size = (round(picture.width * scale), round(picture.height * scale))
        picture = picture.resize(size, Image.Resampling.BICUBIC)
    place = (left + (CELL - picture.width) // 2, top + (CELL - picture.height) // 2)
    sheet.paste(picture, place)


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    file = chinese_font()
    return ImageFont.load_default(size) if file is None else ImageFont.truetype(str(file), size)


def _beyond_pillow(text: str) -> bool:
    """Whether Pillow's own font lacks some of it."""
    return any(ord(c) >= 0x2000 and c != "…" for c in text)


def _fit(
    pen: ImageDraw.ImageDraw,
    text: str,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    width: int,
) -> str:
    """The text in one line, its end cut off where it is too long; what the font lacks left out."""
    if chinese_font() is None and _beyond_pillow(text):
        text = " ".join("".join(c if ord(c) < 0x2000 else " " for c in text).split())
    if pen.textlength(text, font) <= width:
        return text
    while text and pen.textlength(f"{text}…", font) > width:
        text = text[:-1]
    return f"{text}…"


def _uri(data: bytes) -> str:
    form = (open_image(data).format or "JPEG").lower()
    small = data
    if len(data) > 1 << 18:
        picture = decode(data)
        picture.thumbnail((400, 400))
        stream = io.BytesIO()
        picture.save(stream, "JPEG")
        small, form = stream.getvalue(), "jpeg"
    return f"data:image/{form};base64,{base64.b64encode(small).decode()}"


_HEAD = """<!doctype html>
<html lang="LANG"><head><meta charset="utf-8"><title>TITLE</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
 body { font: 15px/1.5 system-ui, "Noto Sans CJK SC", sans-serif; margin: 2rem; }
 ol { display: grid; grid-template-columns: repeat(auto-fill, minmax(170px, 1fr)); gap: 1rem;
      list-style: none; padding: 0; }
 li img, .none { width: 100%; aspect-ratio: 1; object-fit: contain; background: #f2f2f2; }
 .query { max-width: 220px; } p { margin: 0; } small, i { color: #555; font-style: normal; }
</style></head>"""
