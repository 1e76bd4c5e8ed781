"""Compare an exported model with the model that it was made of: recall and speed on a dataset.

Shapes: Q queries, N images of the split.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from bagformer_cli.config import RunConfig
from bagformer_cli.data.images import resize
from bagformer_cli.data.store.split import Split
from bagformer_cli.evaluation.encoded_split import score_matrices
from bagformer_cli.evaluation.metrics import Positives, Recall, best_ranks, recall
from bagformer_cli.messages import tr
from bagformer_cli.models.encode import EncodedItems
from bagformer_cli.models.item_encoder import ItemEncoder
from bagformer_cli.progress import SILENT, Progress
from bagformer_cli.vectors.arrays import EncodedArrays
from bagformer_cli.vectors.multi_vectors import MultiVectors


@dataclass(frozen=True)
class EncoderFigures:
    """Recall and speed of one encoder.

    Attributes:
        text_to_image: Recall over the whole pool.
        image_to_text: The same in the other direction.
        titles_per_second: Titles encoded per second, with cutting them into bags.
        images_per_second: Images encoded per second; decoding them is not counted.
        difference: Largest difference of a score from the first encoder's; 0 for the first.
    """

    text_to_image: Recall
    image_to_text: Recall
    titles_per_second: float
    images_per_second: float
    difference: float

    def to_json(self) -> dict[str, Any]:
        """Return the figures as ``xmr export onnx --json`` prints them, recalls in percent."""
        return {
            "text_to_image": self.text_to_image.percent(),
            "image_to_text": self.image_to_text.percent(),
            "titles_per_second": round(self.titles_per_second, 1),
            "images_per_second": round(self.images_per_second, 1),
            "score_difference": self.difference,
        }


def compare_encoders(
    encoders: Sequence[ItemEncoder],
    split: Split,
    config: RunConfig,
    batch_size: int = 64,
    progress: Progress = SILENT,
) -> list[EncoderFigures]:
    """Encode a split with each encoder and measure recall and speed.

    Args:
        encoders: Encoders of one model.
        split: Queries, images, and the images that answer each query.
        config: The model's configuration; it says how scores are pooled.
        batch_size: Items per forward pass.
        progress: Where progress is reported.
    """
    positives = Positives(split.item_offsets, split.items, len(split.image_ids))
    found: list[EncoderFigures] = []
    first = None
    for encoder in encoders:
        images, image_seconds = _encode_images(encoder, split, batch_size, progress)
        texts, text_seconds = _encode_texts(encoder, split, batch_size, progress)
        t2i, i2t = score_matrices(texts, images, config)
        first = t2i if first is None else first
        found.append(
            EncoderFigures(
                recall(best_ranks(t2i, positives)),
                recall(best_ranks(i2t, positives.transposed())),
                len(texts) / text_seconds,
                len(images) / image_seconds,
                float(np.abs(t2i - first).max(initial=0)),
            )
        )
    return found


def _encode_images(
    encoder: ItemEncoder, split: Split, batch_size: int, progress: Progress
) -> tuple[EncodedItems, float]:
    """Encode all images of a split; the seconds count the model alone."""
    parts, seconds, size = [], 0.0, encoder.image_size
    with progress.task(
        tr("Encoding images"), len(split.image_ids), tr("{n} images", n="{n}")
    ) as task:
        for begin in range(0, len(split.image_ids), batch_size):
            positions = range(begin, min(begin + batch_size, len(split.image_ids)))
            pixels = np.stack([resize(split.image(position), size) for position in positions])
            started = time.perf_counter()
            parts.append(encoder.encode_pixels(pixels))
            seconds += time.perf_counter() - started
            task.advance(len(pixels))
    return _joined(parts), seconds


def _encode_texts(
    encoder: ItemEncoder, split: Split, batch_size: int, progress: Progress
) -> tuple[EncodedItems, float]:
    """Encode all queries of a split."""
    parts, texts = [], split.texts[:]
    started = time.perf_counter()
    with progress.task(tr("Encoding titles"), len(texts), tr("{n} titles", n="{n}")) as task:
        for begin in range(0, len(texts), batch_size):
            batch = texts[begin : begin + batch_size]
            parts.append(encoder.encode_titles(batch))
            task.advance(len(batch))
    return _joined(parts), time.perf_counter() - started


def _joined(parts: list[EncodedArrays]) -> EncodedItems:
    return EncodedItems(
        MultiVectors.concatenate([MultiVectors.from_arrays(part.vectors) for part in parts]),
        torch.from_numpy(np.concatenate([part.cls for part in parts])),
    )
