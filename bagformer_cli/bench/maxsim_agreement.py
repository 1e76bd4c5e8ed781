"""How far bfloat16 and int8 find the same images as float32, with and without rescoring."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from bagformer_cli.interaction.topk import topk, topk_rescored
from bagformer_cli.progress import SILENT, Progress
from bagformer_cli.vectors.multi_vectors import MultiVectors


@dataclass(frozen=True, slots=True)
class Agreement:
    """Share of float32's best ``k`` that a cheaper type finds, in [0, 1], mean over titles.

    Attributes:
        dtype: What the scan multiplied.
        oversample: Candidates rescored in float32 for each result; 0: none were.
        top: The share.
    """

    dtype: str
    oversample: int
    top: float


def run(
    texts: MultiVectors, images: MultiVectors, *, k: int = 10, oversample: tuple[int, ...] = (2, 4)
) -> list[Agreement]:
    """Measure on given vectors: real embeddings tell most, random ones are the hardest.

    Args:
        texts: Q titles, float32.
        images: N images, float32.
        k: How many of the best are compared.
        oversample: The rescorings to try.
    """
    exact = topk(texts, images, k, dtype=torch.float32)[1]
    found = []
    for dtype in (torch.bfloat16, torch.int8):
        name = str(dtype).removeprefix("torch.")
        scan = images.to(dtype=dtype)
        found.append(Agreement(name, 0, _shared(exact, topk(texts, scan, k, dtype=dtype)[1])))
        for times in oversample:
            again = topk_rescored(texts, images, k, scan=scan, dtype=dtype, oversample=times)[1]
            found.append(Agreement(name, times, _shared(exact, again)))
    return found


def of_checkpoint(
    checkpoint: str | Path, dataset: str = "demo", progress: Progress = SILENT
) -> list[Agreement]:
    """:func:`run` on what a model makes of a dataset's validation split.

    Args:
        checkpoint: A model folder or a run folder.
        dataset: ``demo``, ``muge`` or a folder in MUGE form.
        progress: Told of preprocessing and encoding.
    """
    from bagformer_cli.datasets import ensure_store, resolve
    from bagformer_cli.evaluation.evaluate import encode_split
    from bagformer_cli.models.checkpoint import find_checkpoint, load_model

    model = load_model(find_checkpoint(checkpoint))
    folder = resolve(dataset, progress=progress)
    split = ensure_store(folder, model.titles, progress=progress).split("valid")
    images, texts = encode_split(model, split, 64, states=False, progress=progress)
    return run(texts.vectors, images.vectors)


def _shared(a: Tensor, b: Tensor) -> float:
    return float((a[:, :, None] == b[:, None, :]).any(2).float().mean())
