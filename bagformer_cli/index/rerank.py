"""Rerank: score the best results of a search with the cross-encoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bagformer_cli.data.images import decode, resize
from bagformer_cli.errors import InputError
from bagformer_cli.index.engine import Engine, Queries
from bagformer_cli.index.ranking import Ranking
from bagformer_cli.models.item_encoder import ItemEncoder


def rerank(
    encoder: ItemEncoder,
    engine: Engine,
    queries: tuple[Sequence[Any], bool],
    encoded: Queries,
    rankings: Sequence[Ranking],
    *,
    count: int,
    beta: float,
) -> list[Ranking]:
    """Put the best ``count`` rows of each query in the order of their merged scores.

    Rows without a cross-encoder score (beyond ``count``, or without an image) follow in their old
    order: their scores are on another scale.

    Args:
        encoder: A model with a trained cross-encoder.
        engine: The index.
        queries: Titles or images, and whether they are images.
        encoded: The same, encoded.
        rankings: The rows of each query.
        count: Rows of a query to score.
        beta: Weight of the late interaction: merged score = slow + beta × fast.
    """
    given, images = queries
    # As in an evaluation: scores that are means already are not divided again.
    means = encoder.merge == "mean" and not encoder.scoring.means
    lengths = encoded.vectors.lengths.tolist() if means else [1] * len(given)
    return [
        _reranked(encoder, engine, (query, images), ranking, count, beta / length)
        for query, ranking, length in zip(given, rankings, lengths, strict=True)
    ]


def _reranked(
    encoder: ItemEncoder,
    engine: Engine,
    query: tuple[Any, bool],
    ranking: Ranking,
    count: int,
    beta: float,
) -> Ranking:
    """Rerank the rows of one query; ``beta`` is the weight of its score as it is summed."""
    rows = engine.fetch(ranking.keys[:count], ["image", "thumbnail", "title"])
    slow = np.full(len(ranking.keys), np.nan, np.float32)
    slow[: len(rows)] = cross_encoder_scores(encoder, *query, rows)
    unscored = np.isnan(slow)
    merged = np.where(unscored, ranking.scores, slow + beta * ranking.fast)
    order = np.lexsort((np.where(unscored, 0, -merged), unscored))
    return replace(ranking, scores=merged, slow=slow).ordered(order)


def cross_encoder_scores(
    encoder: ItemEncoder, query: Any, query_is_image: bool, rows: list[dict[str, Any]]
) -> NDArray[np.float32]:
    """Score one query against products with the cross-encoder.

    An index stores vectors, not the states that a cross-encoder reads. So products are encoded
    again: images from their files, or from the thumbnails where a file is gone.

    Args:
        encoder: A model with a trained cross-encoder.
        query: A title, which is compared with the products' images; or an image, which is compared
            with their titles.
        query_is_image: Which of the two.
        rows: ``image``, ``thumbnail`` and ``title`` of n products.

    Returns:
        [n] scores; NaN for a product without image and thumbnail (or without title).
    """
    scores = np.full(len(rows), np.nan, np.float32)
    size = encoder.image_size
    if query_is_image:
        numbers = [n for n, row in enumerate(rows) if row["title"]]
        titles = [rows[n]["title"] for n in numbers]
        pictures = [decode(query, as_original=encoder.as_original)]
    else:
        opened = [_open_image(encoder, row) for row in rows]
        numbers = [n for n, picture in enumerate(opened) if picture is not None]
        titles, pictures = [query], [opened[n] for n in numbers]
    if numbers:
        pixels = np.stack([resize(picture, size) for picture in pictures])
        scores[numbers] = encoder.score_pairs(titles, pixels)
    return scores


def _open_image(encoder: ItemEncoder, row: dict[str, Any]) -> Any:
    """Decode a product's image file, else its thumbnail; None if neither can be read."""
    for source in (row["image"], row["thumbnail"]):
        if source is None or (isinstance(source, str) and not Path(source).is_file()):
            continue
        try:
            return decode(source, as_original=encoder.as_original)
        except InputError:
            continue
    return None
