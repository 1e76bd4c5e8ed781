"""Measure recall against the bytes stored per image (token pooling, pruning, truncation, types).

One model's images are stored with fewer vectors in every way that ``xmr encode`` offers, each in
every storage type. Other models, such as students with fewer vectors, are added with all their
vectors; their names label rows and points. Prints a Markdown table and writes the plot as an SVG
file; ``--page`` replaces the table of docs/methods.md.

    python docs/experiments/recall_vs_bytes.py runs/demo NAME=MODEL --page docs/methods.md
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import torch

from bagformer_cli.data.store.split import Split
from bagformer_cli.datasets import ensure_store, resolve
from bagformer_cli.evaluation.encoded_split import encode_split
from bagformer_cli.evaluation.metrics import Positives, best_ranks, recall
from bagformer_cli.files import write_text
from bagformer_cli.index.compression.reduction import VectorReduction
from bagformer_cli.interaction.maxsim import score_texts
from bagformer_cli.models.build import RetrievalModel
from bagformer_cli.models.checkpoint import load_model
from bagformer_cli.models.runs import find_checkpoint
from bagformer_cli.progress import SILENT, Progress
from bagformer_cli.vectors.multi_vectors import MultiVectors
from bagformer_cli.vectors.residual_codes import Codebook
from bagformer_cli.vectors.storage import DTYPES
from bagformer_cli.vectors.stored_arrays import RESIDUAL4
from trials import markdown_table, replace_section

REDUCTIONS: tuple[tuple[str, VectorReduction], ...] = (
    ("all", VectorReduction()),
    *((f"pool {factor}", VectorReduction(pool=factor)) for factor in (2, 3, 4, 6, 8)),
    *((f"prune {share}", VectorReduction(prune=share)) for share in (0.5, 0.25, 0.125)),
    ("keep 1", VectorReduction(keep=1)),
)
BATCH_SIZE = 64
COLOURS = {
    "float32": "#888888",
    "float16": "#1f77b4",
    "int8": "#d62728",
    "residual4": "#2ca02c",
}


@dataclass(frozen=True, slots=True)
class Point:
    """Recall and size with one way to store the images.

    Attributes:
        reduction: Name of the reduction of an image's vectors, or of the model.
        dtype: Storage type of a vector.
        vectors: Mean number of vectors per image.
        bytes: Mean number of bytes per image, with the scales of int8.
        mean_recall: Text-to-image mean recall, in percent.
    """

    reduction: str
    dtype: str
    vectors: float
    bytes: float
    mean_recall: float


def measure(
    model: RetrievalModel,
    split: Split,
    reductions: Sequence[tuple[str, VectorReduction]] = REDUCTIONS,
    progress: Progress = SILENT,
) -> list[Point]:
    """Evaluate a split with its images stored in every combination of reduction and type.

    Titles keep all their vectors in float32.

    Args:
        model: The model that encodes the split.
        split: Images and queries.
        reductions: Name and reduction of each row.
        progress: Receives the progress of encoding.
    """
    images, texts = encode_split(model, split, BATCH_SIZE, states=False, progress=progress)
    positives = Positives(split.item_offsets, split.items, len(split.image_ids))
    points = []
    for name, reduction in reductions:
        reduced = reduction(images.vectors.to("cpu"))
        for dtype in COLOURS:
            stored = store_as(reduced, dtype)
            with torch.no_grad():
                scores = score_texts(texts.vectors.to("cpu"), stored.to(dtype=torch.float32))
            found = recall(best_ranks(scores.numpy(), positives))
            count = len(stored)
            vectors, size = len(stored.values) / count, stored.nbytes / count
            points.append(Point(name, dtype, vectors, size, 100 * found.mean))
    return points


def store_as(vectors: MultiVectors, dtype: str) -> MultiVectors:
    """Convert vectors to a storage type; a codebook of residual codes is trained on them."""
    if dtype == RESIDUAL4:
        return vectors.code(Codebook.train(vectors.values))
    return vectors.to(dtype=DTYPES[dtype])


def plot(points: Sequence[Point], path: Path, title: str) -> None:
    """Plot mean recall against bytes per image (logarithmic axis) as an SVG file."""
    width, height, left, top = 860, 600, 60, 60
    low = math.floor(math.log2(min(p.bytes for p in points))) - 1  # room for labels
    high = math.ceil(math.log2(max(p.bytes for p in points)))
    floor = 5 * math.floor(min(p.mean_recall for p in points) / 5)
    roof = 5 * math.ceil(max(p.mean_recall for p in points) / 5)

    def x(value: float) -> float:
        return left + (math.log2(value) - low) / (high - low) * (width - left - 30)

    def y(value: float) -> float:
        return height - 50 - (value - floor) / max(1, roof - floor) * (height - top - 50)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        f'<text x="{left}" y="22" font-size="14">{title}</text>',
    ]
    parts += [
        f'<path d="M{x(2**power):.0f} {top}V{height - 50}" stroke="#eee"/>'
        f'<text x="{x(2**power):.0f}" y="{height - 34}" text-anchor="middle">{2**power}</text>'
        for power in range(low, high + 1)
    ]
    parts += [
        f'<path d="M{left} {y(value):.0f}H{width - 30}" stroke="#eee"/>'
        f'<text x="{left - 8}" y="{y(value) + 4:.0f}" text-anchor="end">{value}</text>'
        for value in range(floor, roof + 1, 5)
    ]
    for number, (name, colour) in enumerate(COLOURS.items()):
        centre = left + 4 + 90 * number
        parts.append(
            f'<circle cx="{centre}" cy="40" r="4" fill="{colour}"/>'
            f'<text x="{centre + 8}" y="44">{name}</text>'
        )
    parts.append(
        f'<text x="{width / 2:.0f}" y="{height - 12}" text-anchor="middle">bytes per image</text>'
        f'<text x="16" y="{height / 2:.0f}" transform="rotate(-90 16 {height / 2:.0f})" '
        'text-anchor="middle">mean recall, %</text>'
    )
    boxes = [(x(p.bytes) - 5, y(p.mean_recall) - 5, 10.0, 10.0) for p in points]
    for name in dict.fromkeys(point.reduction for point in points):
        row = sorted((p for p in points if p.reduction == name), key=lambda p: p.bytes)
        line = "L".join(f"{x(p.bytes):.1f} {y(p.mean_recall):.1f}" for p in row)
        parts.append(f'<path d="M{line}" fill="none" stroke="#ccc"/>')
        parts += [
            f'<circle cx="{x(p.bytes):.1f}" cy="{y(p.mean_recall):.1f}" r="4" '
            f'fill="{COLOURS[p.dtype]}"/>'
            for p in row
        ]
        box = _free_box(x(row[0].bytes), y(row[0].mean_recall), 6.5 * len(name), boxes)
        boxes.append(box)
        parts.append(f'<text x="{box[0]:.1f}" y="{box[1] + 9:.1f}" font-size="11">{name}</text>')
    write_text(path, "\n".join([*parts, "</svg>"]) + "\n")


Box: TypeAlias = tuple[float, float, float, float]
"""Left, top, width and height of a label or point, in pixels."""


def _free_box(x: float, y: float, width: float, boxes: Sequence[Box]) -> Box:
    """Find a place for a label near the point (x, y) that overlaps none of ``boxes``.

    Tries left of the point, then above and below it at growing distances.
    """
    height = 12.0
    corners = [(x - 8 - width, y - 6)]
    for step in range(1, 12):
        for distance in (-6 - 13 * step, -6 + 13 * step):
            corners += [(x - 8 - width, y + distance), (x - width / 2, y + distance)]
    for left, top in corners:
        if all(
            left + width < a or a + w < left or top + height < b or b + h < top
            for a, b, w, h in boxes
        ):
            return left, top, width, height
    return *corners[0], width, height


def results_table(points: Sequence[Point]) -> list[str]:
    """Return a Markdown table with a row for each reduction; each type has bytes: mean recall."""
    dtypes = list(COLOURS)
    rows = []
    for name in dict.fromkeys(point.reduction for point in points):
        row = {point.dtype: point for point in points if point.reduction == name}
        cells = [f"{row[dtype].bytes:,.0f}: {row[dtype].mean_recall:.1f}" for dtype in dtypes]
        rows.append([name, f"{row[dtypes[0]].vectors:.0f}", *cells])
    return markdown_table(["images", "vectors", *dtypes], rows)


def main() -> None:
    """Measure the models, write the plot, print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "model", type=Path, help="model or run folder whose images get fewer vectors"
    )
    parser.add_argument(
        "others", nargs="*", metavar="NAME=MODEL",
        help="further models, with all their vectors, and their names in table and plot",
    )  # fmt: skip
    parser.add_argument(
        "--plot", type=Path, default=Path("docs/recall_vs_bytes.svg"),
        help="SVG file to write (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--page", type=Path, help="Markdown page whose table is replaced")
    options = parser.parse_args()
    points = measure(*_load(options.model))
    for other in options.others:
        name, equals, folder = other.partition("=")
        if not equals:
            parser.error(f"{other}: expected NAME=MODEL")
        points += measure(*_load(Path(folder)), [(name, VectorReduction())])
    plot(points, options.plot, "Demo set: mean recall against bytes per image")
    lines = results_table(points)
    if options.page is not None:
        replace_section(options.page, "recall_vs_bytes", lines)
    print("\n".join(lines))


def _load(folder: Path) -> tuple[RetrievalModel, Split]:
    """Load a model and the validation split of the dataset it was trained on."""
    model = load_model(find_checkpoint(folder))
    data = resolve(model.config.data.dataset).path
    return model, ensure_store(data, model.titles, workers=1).split("valid")


if __name__ == "__main__":
    main()
