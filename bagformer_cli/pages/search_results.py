"""The page of search results: each query with its products, their images and scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bagformer_cli.index.results import Hit
from bagformer_cli.messages import tr
from bagformer_cli.outputs import write_output
from bagformer_cli.pages.html import data_uri, render, require_page


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


def write_page(path: Path, queries: Sequence[QueryResults]) -> None:
    """Write all results to one HTML file that contains their images.

    Raises:
        InputError: The file name does not end in ``.html`` or ``.htm``.
    """
    require_page(path)
    write_output(path, page(queries))


def page(queries: Sequence[QueryResults]) -> str:
    """Return all results as one HTML page."""
    return render(
        "search_results.html", title=tr("Search results"), queries=queries, data_uri=data_uri
    )
