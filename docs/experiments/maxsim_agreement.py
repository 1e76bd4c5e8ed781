"""Measure how often a bfloat16 or int8 scan finds the same best images as float32.

The scan ranks all images in the cheaper type. With rescoring, its best ``oversample * k`` images
are scored again in float32. Prints a Markdown table.

    python docs/experiments/maxsim_agreement.py              # random unit vectors, the hardest case
    python docs/experiments/maxsim_agreement.py runs/demo    # vectors of a model
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from bagformer_cli.bench.maxsim import Workload
from bagformer_cli.datasets import ensure_store, resolve
from bagformer_cli.evaluation.encoded_split import encode_split
from bagformer_cli.interaction.topk import topk, topk_rescored
from bagformer_cli.models.checkpoint import load_model
from bagformer_cli.models.runs import find_checkpoint
from bagformer_cli.vectors.multi_vectors import MultiVectors
from trials import markdown_table

BATCH_SIZE = 64


class Agreement(NamedTuple):
    """One row of the table.

    Attributes:
        dtype: Type in which the scan multiplies.
        oversample: Candidates rescored in float32 per result; 0: no rescoring.
        share: Share of float32's best ``k`` images that are found, in [0, 1], mean over titles.
    """

    dtype: str
    oversample: int
    share: float


def measure_agreement(
    texts: MultiVectors, images: MultiVectors, *, k: int = 10, oversample: Sequence[int] = (2, 4)
) -> list[Agreement]:
    """Compare the best ``k`` images of each title by bfloat16 and int8 with those by float32.

    Args:
        texts: Q titles, float32.
        images: N images, float32.
        k: Number of results per title.
        oversample: Candidates per result to try; no rescoring is measured as well.
    """
    exact = topk(texts, images, k, dtype=torch.float32)[1]
    rows = []
    for dtype in (torch.bfloat16, torch.int8):
        name = str(dtype).removeprefix("torch.")
        scan = images.to(dtype=dtype)
        rows.append(Agreement(name, 0, _shared(exact, topk(texts, scan, k, dtype=dtype)[1])))
        for times in oversample:
            found = topk_rescored(texts, images, k, scan=scan, dtype=dtype, oversample=times)[1]
            rows.append(Agreement(name, times, _shared(exact, found)))
    return rows


def _shared(expected: Tensor, found: Tensor) -> float:
    """Return the share of positions in ``expected`` [Q, k] that the same row of ``found`` has."""
    return float((expected[:, :, None] == found[:, None, :]).any(2).float().mean())


def encode_validation(model_folder: str, dataset: str) -> tuple[MultiVectors, MultiVectors]:
    """Encode the titles and images of a dataset's validation split with a model."""
    model = load_model(find_checkpoint(model_folder))
    split = ensure_store(resolve(dataset), model.titles).split("valid")
    images, texts = encode_split(model, split, BATCH_SIZE, states=False)
    return texts.vectors.to("cpu"), images.vectors.to("cpu")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure one model or random vectors and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", nargs="?", help="model or run folder (default: random vectors)")
    parser.add_argument(
        "--dataset", default="demo",
        help="demo, muge or a folder in MUGE's form, which the model encodes (default: demo)",
    )  # fmt: skip
    parser.add_argument(
        "--images", type=int, default=2000, help="number of random images (default: 2000)"
    )
    options = parser.parse_args(arguments)
    if options.model:
        texts, images = encode_validation(options.model, options.dataset)
    else:
        load = Workload.make(titles=64, images=options.images, patches=65, dim=256)
        texts, images = load.texts, load.images
    header = ["scan", "rescored candidates per result", "share of float32's best ten"]
    rows = [
        [row.dtype, str(row.oversample), f"{row.share:.3f}"]
        for row in measure_agreement(texts, images)
    ]
    print("\n".join(markdown_table(header, rows)))


if __name__ == "__main__":
    main()
