"""The results of a search: as objects, and as one self-contained HTML page."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bagformer_cli.data.images import decode, open_image
from bagformer_cli.errors import InputError
from bagformer_cli.messages import language, tr
from bagformer_cli.outputs import write_output

MAX_IMAGE_BYTES = 1 << 18  # a larger image is scaled down before it is embedded
EMBEDDED_SIDE = 400  # pixels
BROWSER_FORMATS = ("jpeg", "png", "webp", "gif")  # others are embedded as JPEG


@dataclass(frozen=True)
class Hit:
    """One result.

    Attributes:
        rank: From 1.
        score: The score that orders the results: ``fast``, or the merged score.
        mean: ``fast`` divided by the number of query vectors. A mean cosine, so it is comparable
            between queries of different lengths.
        id: The product's id.
        title: Its title, or None.
        image: The path of its image, or None.
        attributes: Its other attributes, without missing values.
        stage: ``late`` if ``score`` is the late-interaction score; ``merged`` if the cross-encoder
            scored the product too. Merged results come first.
        fast: The late-interaction score.
        slow: The cross-encoder's score, or None.
        thumbnail: A small image as the content of its file, or None.
    """

    rank: int
    score: float
    mean: float
    id: str
    title: str | None
    image: str | None
    attributes: dict[str, Any]
    stage: str
    fast: float
    slow: float | None = None
    thumbnail: bytes | None = field(default=None, repr=False)

    @property
    def shown_score(self) -> float:
        """The merged score, or without it the mean, which does not grow with the query."""
        return self.mean if self.slow is None else self.score

    def to_json(self) -> dict[str, Any]:
        """Return all attributes but the thumbnail."""
        return {name: value for name, value in vars(self).items() if name != "thumbnail"}


@dataclass(frozen=True)
class Results:
    """The results of one query.

    Attributes:
        hits: The results, best first.
        plan: The stages: what each did, and how.
        seconds: Wall time by stage and step; for several queries the time of all together.
    """

    hits: list[Hit]
    plan: list[dict[str, Any]]
    seconds: dict[str, float]

    def __iter__(self) -> Iterator[Hit]:
        return iter(self.hits)

    def __len__(self) -> int:
        return len(self.hits)


@dataclass(frozen=True)
class QueryResults:
    """A query and its results, as the page shows them.

    Args:
        query: The title, or the name of the image file.
        hits: The results, with thumbnails.
        image: The query image as the content of its file; None for a title.
        where: The filter; None: all products were searched.
        k: The most results that the search could return; None: unknown.
    """

    query: str
    hits: Sequence[Hit]
    image: bytes | None = None
    where: str | None = None
    k: int | None = None

    @property
    def note(self) -> str:
        """The filter, and the number of results if there are fewer than asked for."""
        parts = [] if self.where is None else [tr("Filter: {filter}", filter=self.where)]
        if self.k is not None and len(self.hits) < self.k:
            parts.append(tr("{n} results of {k} asked for", n=len(self.hits), k=self.k))
        return " · ".join(parts)


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
    write_output(path, page(queries))


def page(queries: Sequence[QueryResults]) -> str:
    """Return all results as one HTML page; images are embedded as data URIs."""
    parts = [_HEAD.replace("LANG", language()).replace("TITLE", html.escape(tr("Search results")))]
    for one in queries:
        parts.append(f"<h2>{html.escape(one.query)}</h2>")
        if one.image is not None:
            parts.append(f'<img class="query" src="{_data_uri(one.image)}" alt="">')
        if one.note:
            parts.append(f"<p>{html.escape(one.note)}</p>")
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
        f"<li>{image}<b>{hit.rank}</b> {hit.shown_score:.3f} <i>{html.escape(hit.id)}</i>"
        f"<p>{html.escape(hit.title or '')}</p><small>{html.escape(attributes)}</small></li>"
    )


def _data_uri(data: bytes) -> str:
    form = (open_image(data).format or "JPEG").lower()
    if len(data) > MAX_IMAGE_BYTES or form not in BROWSER_FORMATS:
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
