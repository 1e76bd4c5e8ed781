"""The slow scorer over the candidates of a search."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bagformer_cli.data.batches import TextBatch, pixels_of
from bagformer_cli.data.images import decode
from bagformer_cli.errors import InputError
from bagformer_cli.models.build import RetrievalModel
from bagformer_cli.models.encode import EncodedItems, encode_images, encode_texts

PAIRS = 64


@torch.inference_mode()
def slow_scores(
    model: RetrievalModel, query: Any, is_image: bool, rows: list[dict[str, Any]]
) -> NDArray[np.float32]:
    """The slow scores of one query with products.

    Images are encoded anew, from their file where it is still there, else from the thumbnail.

    Args:
        model: Has a slow scorer.
        query: A title; or an image, which is then compared with the products' titles.
        is_image: Which.
        rows: ``image``, ``thumbnail`` and ``title`` of each product.

    Returns:
        [n]; NaN where a product has neither image nor thumbnail (or no title).
    """
    scores = np.full(len(rows), np.nan, np.float32)
    texts: EncodedItems | None
    images: EncodedItems | None
    if is_image:
        images = _images(model, [decode(query)])
        there = [i for i, row in enumerate(rows) if row["title"]]
        texts = _texts(model, [rows[i]["title"] for i in there]) if there else None
    else:
        texts = _texts(model, [query])
        pictures = [_picture(row) for row in rows]
        there = [i for i, picture in enumerate(pictures) if picture is not None]
        images = _images(model, [pictures[i] for i in there]) if there else None
    if texts is None or images is None:
        return scores
    for begin in range(0, len(there), PAIRS):
        places = torch.arange(begin, min(begin + PAIRS, len(there)))
        one = torch.zeros_like(places)
        left, right = (places, one) if is_image else (one, places)
        found = _pairs(model, texts, images, left, right)
        scores[np.asarray(there)[begin : begin + PAIRS]] = found.float().cpu().numpy()
    return scores


def _pairs(
    model: RetrievalModel,
    texts: EncodedItems,
    images: EncodedItems,
    left: torch.Tensor,
    right: torch.Tensor,
) -> torch.Tensor:
    assert model.cross is not None
    assert texts.states is not None
    assert texts.mask is not None
    assert images.states is not None
    states = images.states[right.to(images.states.device)].to(model.device, torch.float32)
    more = () if images.mask is None else (images.mask[right],)
    place = left.to(texts.states.device)
    scores: torch.Tensor = model.cross.score(
        texts.states[place].to(model.device, torch.float32),
        texts.mask[place].to(model.device),
        states,
        *more,
    )
    return scores


def _images(model: RetrievalModel, pictures: list[Any]) -> EncodedItems:
    size = model.config.image.size
    batches = (
        torch.stack([pixels_of(picture, size) for picture in pictures[i : i + PAIRS]])
        for i in range(0, len(pictures), PAIRS)
    )
    return encode_images(model, batches, states=True)


def _texts(model: RetrievalModel, titles: list[str]) -> EncodedItems:
    batch = TextBatch.from_tokens(model.titles(titles), model.titles.tokenizer.pad_id)
    return encode_texts(model, [batch], states=True)


def _picture(row: dict[str, Any]) -> Any:
    for source in (row["image"], row["thumbnail"]):
        if source is None or (isinstance(source, str) and not Path(source).is_file()):
            continue
        try:
            return decode(source)
        except InputError:
            continue
    return None
