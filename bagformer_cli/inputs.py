"""Check what Python callers pass as titles and images.

Callers have lists, numpy arrays, columns of pandas, generators, and single items. Each is accepted
if it can mean one thing only. Everything else is one error with the position of the item.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from os import PathLike
from pathlib import Path
from typing import Any, TypeAlias

from PIL import Image

from bagformer_cli.errors import InputError
from bagformer_cli.messages import tr
from bagformer_cli.text.characters import is_blank

Images: TypeAlias = Image.Image | str | Path | bytes
"""An opened image, the path of a file, or its content."""


def title_list(titles: Any) -> list[str]:
    """Return titles as a list of texts; a single text is a list of one.

    Raises:
        InputError: A title is empty or no text, or ``titles`` has no order.
    """
    if isinstance(titles, str):
        titles = [titles]
    found = []
    for number, title in enumerate(_items(titles, tr("a text, or a list of texts")), 1):
        where = tr("title {n}", n=number)
        if not isinstance(title, str):
            raise InputError(
                tr("The title is not a text."),
                where=where,
                found=_described(title),
                expected=tr("a text (str)"),
            )
        if is_blank(title):
            raise InputError(
                tr("The title is empty."),
                where=where,
                found=repr(title),
                expected=tr("at least one visible character"),
            )
        found.append(str(title))
    return found


def one_title(title: Any) -> str:
    """Return a title that is a text.

    Raises:
        InputError: It is something else.
    """
    if not isinstance(title, str):
        raise InputError(
            tr("The title is not a text."), found=_described(title), expected=tr("a text (str)")
        )
    return str(title)


def image_list(images: Any) -> list[Any]:
    """Return images as a list; a single image is a list of one.

    Raises:
        InputError: One is neither an opened image, nor a path, nor the content of a file; or
            ``images`` has no order.
    """
    expected = tr("an opened image, a path, or the content of an image file (bytes)")
    if isinstance(images, (str, bytes, bytearray, PathLike, Image.Image)):
        images = [images]
    found: list[Any] = []
    for number, image in enumerate(_items(images, expected), 1):
        if isinstance(image, (bytearray, memoryview)):
            image = bytes(image)
        elif isinstance(image, PathLike) and not isinstance(image, Path):
            image = Path(image)
        if not isinstance(image, (str, bytes, Path, Image.Image)):
            raise InputError(
                tr("This is not an image."),
                where=tr("image {n}", n=number),
                found=_described(image),
                expected=expected,
            )
        found.append(image)
    return found


def require_vectors(vectors: Any, kind: type, name: str, method: str) -> None:
    """Check that a value is the vectors that a method returned.

    Args:
        vectors: The value.
        kind: The class of vectors.
        name: The argument that it was passed as.
        method: The method that makes such vectors.

    Raises:
        InputError: It is something else.
    """
    if not isinstance(vectors, kind):
        raise InputError(
            tr("These are not vectors: {name}.", name=name),
            found=_described(vectors),
            expected=tr("what {method} returns", method=f"{method}(…)"),
        )


def _items(items: Any, expected: str) -> Iterable[Any]:
    """Return an iterable whose items have an order."""
    unordered = isinstance(items, (Mapping, Set, bytes, bytearray))
    if unordered or not isinstance(items, Iterable):
        raise InputError(
            tr("A list of one or more items is expected."),
            found=_described(items),
            expected=expected,
        )
    if getattr(items, "ndim", 1) == 0:  # a numpy array of a single value
        return [items.item()]  # type: ignore[attr-defined]
    return items


def _described(value: Any) -> str:
    """Describe a value by its type and, if it is short, itself."""
    shown = repr(value)
    name = type(value).__name__
    return f"{shown} ({name})" if len(shown) <= 40 else name
