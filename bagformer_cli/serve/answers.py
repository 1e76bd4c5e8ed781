"""Make the JSON of a search: a page of results, and the facets."""

from __future__ import annotations

import base64
from typing import Any

from bagformer_cli.index.results import Hit, Results


def page_json(results: Results, first: int) -> dict[str, Any]:
    """Describe a page of results.

    Args:
        results: The page, with the counts of its attributes' values.
        first: Results before the page.
    """
    return {
        "total": results.total,
        "first": first,
        "facets": results.facets,
        "hits": [hit_json(hit) for hit in results],
    }


def hit_json(hit: Hit) -> dict[str, Any]:
    """Describe a result; the path of its image on the server is left out."""
    found = {name: value for name, value in hit.to_json().items() if name != "image"}
    found["score"] = hit.shown_score
    if hit.thumbnail is not None:
        found["thumbnail"] = image_uri(hit.thumbnail)
    return found


def image_uri(data: bytes) -> str:
    """Return a thumbnail, a JPEG, PNG or WebP file, as a data URI."""
    kind = "png" if data[:4] == b"\x89PNG" else "webp" if data[:4] == b"RIFF" else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
