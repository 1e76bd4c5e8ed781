"""Rerank: score the best results of a search with the cross-encoder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from bagformer_cli.data.batches import TextBatch, pixels_of
from bagformer_cli.data.images import decode
from bagformer_cli.errors import InputError
from bagformer_cli.models.encode import EncodedItems, encode_images, encode_texts

if TYPE_CHECKING:
    from bagformer_cli.models.build import RetrievalModel

PAIRS_AT_ONCE = 64


@torch.inference_mode()
def cross_encoder_scores(
    model: RetrievalModel, query: Any, query_is_image: bool, rows: list[dict[str, Any]]
) -> NDArray[np.float32]:
    """Score one query against products with the cross-encoder.

    An index stores vectors, not the states that a cross-encoder reads. So products are encoded
    again: images from their files, or from the thumbnails where a file is gone.

    Args:
        model: A model with a trained cross-encoder.
        query: A title, which is compared with the products' images; or an image, which is compared
            with their titles.
        query_is_image: Which of the two.
        rows: ``image``, ``thumbnail`` and ``title`` of n products.

    Returns:
        [n] scores; NaN for a product without image and thumbnail (or without title).
    """
    scores = np.full(len(rows), np.nan, np.float32)
    if query_is_image:
        numbers = [n for n, row in enumerate(rows) if row["title"]]
        if not numbers:
            return scores
        images = _encode_images(model, [decode(query, as_original=model.as_original)])
        texts = _encode_texts(model, [rows[n]["title"] for n in numbers])
    else:
        pictures = [_open_image(model, row) for row in rows]
        numbers = [n for n, picture in enumerate(pictures) if picture is not None]
        if not numbers:
            return scores
        images = _encode_images(model, [pictures[n] for n in numbers])
        texts = _encode_texts(model, [query])
    for begin in range(0, len(numbers), PAIRS_AT_ONCE):
        product = torch.arange(begin, min(begin + PAIRS_AT_ONCE, len(numbers)))
        own = torch.zeros_like(product)  # the query
        text, image = (product, own) if query_is_image else (own, product)
        found = _score_pairs(model, texts, images, text, image)
        scores[np.asarray(numbers)[begin : begin + PAIRS_AT_ONCE]] = found.float().cpu().numpy()
    return scores


def _score_pairs(
    model: RetrievalModel,
    texts: EncodedItems,
    images: EncodedItems,
    text: torch.Tensor,
    image: torch.Tensor,
) -> torch.Tensor:
    """Score the pairs (texts[text[i]], images[image[i]])."""
    assert model.cross is not None
    assert texts.states is not None
    assert images.states is not None
    return model.cross.score(
        texts.states.select(text).to(model.device, torch.float32),
        images.states.select(image).to(model.device, torch.float32),
    )


def _encode_images(model: RetrievalModel, pictures: list[Any]) -> EncodedItems:
    size = model.config.image.size
    batches = (
        torch.stack([pixels_of(picture, size) for picture in pictures[i : i + PAIRS_AT_ONCE]])
        for i in range(0, len(pictures), PAIRS_AT_ONCE)
    )
    return encode_images(model, batches, states=True)


def _encode_texts(model: RetrievalModel, titles: list[str]) -> EncodedItems:
    batch = TextBatch.from_tokens(model.titles(titles), model.titles.tokenizer.pad_id)
    return encode_texts(model, [batch], states=True)


def _open_image(model: RetrievalModel, row: dict[str, Any]) -> Any:
    """Decode a product's image file, else its thumbnail; None if neither can be read."""
    for source in (row["image"], row["thumbnail"]):
        if source is None or (isinstance(source, str) and not Path(source).is_file()):
            continue
        try:
            return decode(source, as_original=model.as_original)
        except InputError:
            continue
    return None
