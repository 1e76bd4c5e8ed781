"""Write search results with their images as one self-contained HTML page."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bagformer_cli.data.images import decode, open_image
from bagformer_cli.errors import InputError
from bagformer_cli.files import write_text
from bagformer_cli.index.search import Hit
from bagformer_cli.messages import language, tr

MAX_IMAGE_BYTES = 1 << 18  # a larger image is scaled down before it is embedded
EMBEDDED_SIDE = 400  # pixels


@dataclass(frozen=True)
class QueryResults:
    """One query and its results.

    Args:
        query: The title, or the name of the image file.
        hits: The results, with thumbnails.
        image: The query image as the content of its file; None for a title.
    """

    query: str
    hits: Sequence[Hit]
    image: bytes | None = None


def require_page(path: Path) -> None:
    """Check that a file name ends in ``.html`` or ``.htm``.

    Raises:
        InputError: It has another ending.
    """
    if path.suffix.lower() not in {".html", ".htm"}:
        raise InputError(
            tr("Results are written as an HTML page."), where=path, expected=path.stem + ".html"
        )


def write_page(path: Path, queries: Sequence[QueryResults]) -> None:
    """Write all results to one HTML file that contains their images.

    Raises:
        InputError: The file name does not end in ``.html`` or ``.htm``.
    """
    require_page(path)
    write_text(path, page(queries))


def page(queries: Sequence[QueryResults]) -> str:
    """Return all results as one HTML page; images are embedded as data URIs."""
    parts = [_HEAD.replace("LANG", language()).replace("TITLE", html.escape(tr("Search results")))]
    for one in queries:
        parts.append(f"<h2>{html.escape(one.query)}</h2>")
        if one.image is not None:
            parts.append(f'<img class="query" src="{_data_uri(one.image)}" alt="">')
        parts.append("<ol>")
        parts += [_result(hit) for hit in one.hits]
        parts.append("</ol>")
    return "\n".join(parts) + "\n"


def _result(hit: Hit) -> str:
    image = '<div class="none"></div>'
    if hit.thumbnail is not None:
        uri = _data_uri(hit.thumbnail)
        image = f'<img loading="lazy" src="{uri}" alt="{html.escape(hit.id)}">'
    attributes = " · ".join(f"{name} {value}" for name, value in hit.attributes.items())
    return (
        f"<li>{image}<b>{hit.rank}</b> {hit.score:.3f} <i>{html.escape(hit.id)}</i>"
        f"<p>{html.escape(hit.title or '')}</p><small>{html.escape(attributes)}</small></li>"
    )


def _data_uri(data: bytes) -> str:
    form = (open_image(data).format or "JPEG").lower()
    if len(data) > MAX_IMAGE_BYTES:
        image = decode(data)
        image.thumbnail((EMBEDDED_SIDE, EMBEDDED_SIDE))
        stream = io.BytesIO()
        image.save(stream, "JPEG")
        data, form = stream.getvalue(), "jpeg"
    return f"data:image/{form};base64,{base64.b64encode(data).decode()}"


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
