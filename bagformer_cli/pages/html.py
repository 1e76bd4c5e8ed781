"""Templates, the frame of a page, and images inside it, for all pages.

A page is one file that needs no network: styles, scripts and images are in it. Templates are in
``templates/``; jinja2 escapes every value, so that a title with HTML in it is shown as text.
"""

from __future__ import annotations

import base64
import io
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from bagformer_cli.data.images import decode, open_image
from bagformer_cli.errors import InputError, with_place
from bagformer_cli.messages import language, tr

MAX_IMAGE_BYTES = 1 << 18
"""A larger image file is scaled down before it is embedded."""

EMBEDDED_SIDE = 400
"""Longer side in pixels of an image that is scaled down."""

BROWSER_FORMATS = ("jpeg", "png", "webp", "gif")
"""Formats that are embedded as they are; others become JPEG."""


def require_page(path: Path) -> None:
    """Check that a file name ends in ``.html`` or ``.htm``.

    Raises:
        InputError: It has another ending.
    """
    if path.suffix.lower() not in {".html", ".htm"}:
        raise InputError(
            tr("Results are written as an HTML page."), where=path, expected=path.stem + ".html"
        )


def render(template: str, *, title: str, **values: Any) -> str:
    """Fill a template of this package.

    Args:
        template: Its file name.
        title: The title of the page.
        **values: The names that the template reads, with texts translated.
    """
    return _environment().get_template(template).render(lang=language(), title=title, **values)


def data_uri(data: bytes, side: int = EMBEDDED_SIDE) -> str:
    """Return an image file as a URI that contains it.

    Args:
        data: The content of the file.
        side: Longer side in pixels of an image that must be made smaller or converted.

    Raises:
        InputError: It is no image that can be read.
    """
    form = (open_image(data).format or "JPEG").lower()
    if len(data) > MAX_IMAGE_BYTES or form not in BROWSER_FORMATS:
        image = decode(data)
        image.thumbnail((side, side))
        stream = io.BytesIO()
        image.save(stream, "JPEG", quality=90)
        data, form = stream.getvalue(), "jpeg"
    return f"data:image/{form};base64,{base64.b64encode(data).decode()}"


@cache
def _environment() -> Environment:
    made = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals["labelled"] = _labelled
    return made


def _labelled(name: str, value: object) -> str:
    """Join a name and its value with the language's colon."""
    return with_place(str(value), name)
