"""Make the JSON of a search: a page of results and facets, in the requested order."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

from bagformer_cli.index.arrange import facets, sorted_by
from bagformer_cli.index.results import Hit


def page_of(
    hits: Sequence[Hit], first: int, count: int, sort: str | None, thumbnails: bool
) -> dict[str, Any]:
    """Sort results, take a page of them, and count their attributes' values.

    Args:
        hits: All results, best first.
        first: Results before the page.
        count: Results of the page.
        sort: An attribute to sort by; with a ``-`` before it the largest value comes first. None:
            keep the order of the scores. Products without the attribute come last.
        thumbnails: Whether results have their thumbnails, as data URIs.
    """
    ordered = list(hits) if sort is None else sorted_by(hits, sort)
    return {
        "total": len(ordered),
        "first": first,
        "facets": facets(hits),
        "hits": [hit_json(hit, thumbnails) for hit in ordered[first : first + count]],
    }


def hit_json(hit: Hit, thumbnail: bool) -> dict[str, Any]:
    """Describe a result; the path of its image on the server is left out."""
    found = {name: value for name, value in hit.to_json().items() if name != "image"}
    found["score"] = hit.shown_score
    if thumbnail and hit.thumbnail is not None:
        found["thumbnail"] = image_uri(hit.thumbnail)
    return found


def image_uri(data: bytes) -> str:
    """Return a thumbnail, a JPEG, PNG or WebP file, as a data URI."""
    kind = "png" if data[:4] == b"\x89PNG" else "webp" if data[:4] == b"RIFF" else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
