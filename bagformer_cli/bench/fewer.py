"""Recall against bytes: what shorter lists and smaller types cost on a model's own embeddings.

Beside one model's lists, made shorter in every way that ``xmr encode`` has, stand models that were
taught to need fewer. The table goes into a page between two marks.

    python -m bagformer_cli.bench.fewer runs/demo shrinktofast=runs/shrunk --page docs/methods.md
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from bagformer_cli.bench.trials import write_page
from bagformer_cli.data.store.split import Split
from bagformer_cli.datasets import ensure_store, resolve
from bagformer_cli.evaluation.evaluate import encode_split
from bagformer_cli.evaluation.metrics import Positives, best_ranks, recall
from bagformer_cli.files import write_text
from bagformer_cli.index.compression.reduction import Fewer
from bagformer_cli.interaction.maxsim import score_texts
from bagformer_cli.models.build import RetrievalModel
from bagformer_cli.models.checkpoint import find_checkpoint, load_model
from bagformer_cli.progress import SILENT, Progress
from bagformer_cli.vectors.multi_vectors import MultiVectors
from bagformer_cli.vectors.residual_codes import RESIDUAL, Codebook
from bagformer_cli.vectors.storage import DTYPES

WAYS: tuple[tuple[str, Fewer], ...] = (
    ("all", Fewer()),
    *((f"pool {factor}", Fewer(pool=factor)) for factor in (2, 3, 4, 6, 8)),
    *((f"prune {share}", Fewer(prune=share)) for share in (0.5, 0.25, 0.125)),
    ("keep 1", Fewer(keep=1)),
)
BATCH = 64
COLOURS = {
    "float32": "#888888",
    "float16": "#1f77b4",
    "int8": "#d62728",
    "residual4": "#2ca02c",
    "residual2": "#9467bd",
}


@dataclass(frozen=True, slots=True)
class Point:
    """One way of storing an image.

    Attributes:
        way: How its list was made shorter.
        dtype: Of the stored vectors.
        vectors: An image's, in the mean.
        bytes: An image's, in the mean, scales included.
        shared: Bytes of the codebook, which all images have in common.
        mean_recall: Text to image, percent.
    """

    way: str
    dtype: str
    vectors: float
    bytes: float
    shared: int
    mean_recall: float


def run(
    model: RetrievalModel,
    split: Split,
    ways: Sequence[tuple[str, Fewer]] = WAYS,
    progress: Progress = SILENT,
) -> list[Point]:
    """Recall of a split with its images stored in each of the ways; titles stay as they are.

    Args:
        model: The model.
        split: Its images and queries.
        ways: Names, and how lists are made shorter.
        progress: Where to report.
    """
    images, texts = encode_split(model, split, BATCH, states=False, progress=progress)
    positives = Positives(split.item_offsets, split.items, len(split.image_ids))
    points = []
    for way, fewer in ways:
        short = fewer(images.vectors.to("cpu"))
        for name in COLOURS:
            stored = stored_as(short, name)
            book = stored.codebook
            with torch.no_grad():
                scores = score_texts(texts.vectors.to("cpu"), stored.to(dtype=torch.float32))
            found = recall(best_ranks(scores.numpy(), positives))
            count = len(stored)
            points.append(
                Point(
                    way,
                    name,
                    len(stored.values) / count,
                    stored.nbytes / count,
                    0 if book is None else 2 * book.centroids.numel(),
                    100 * found.mean,
                )
            )
    return points


def stored_as(vectors: MultiVectors, name: str) -> MultiVectors:
    """The same items in a stored type; the codebook of codes is made from them."""
    if name in RESIDUAL:
        return vectors.code(Codebook.train(vectors.values, RESIDUAL[name]))
    return vectors.to(dtype=DTYPES[name])


def plot(points: Sequence[Point], path: Path, title: str) -> None:
    """Write the points as an SVG: bytes an image (logarithmic) against mean recall."""
    width, height, left, top = 860, 600, 60, 60
    low = math.floor(math.log2(min(p.bytes for p in points))) - 1  # room for names
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
        place = left + 4 + 90 * number
        parts.append(
            f'<circle cx="{place}" cy="40" r="4" fill="{colour}"/>'
            f'<text x="{place + 8}" y="44">{name}</text>'
        )
    parts.append(
        f'<text x="{width / 2:.0f}" y="{height - 12}" text-anchor="middle">bytes an image</text>'
        f'<text x="16" y="{height / 2:.0f}" transform="rotate(-90 16 {height / 2:.0f})" '
        'text-anchor="middle">mean recall, %</text>'
    )
    taken = [(x(p.bytes) - 5, y(p.mean_recall) - 5, 10.0, 10.0) for p in points]
    for way in dict.fromkeys(point.way for point in points):
        own = sorted((p for p in points if p.way == way), key=lambda p: p.bytes)
        line = "L".join(f"{x(p.bytes):.1f} {y(p.mean_recall):.1f}" for p in own)
        parts.append(f'<path d="M{line}" fill="none" stroke="#ccc"/>')
        parts += [
            f'<circle cx="{x(p.bytes):.1f}" cy="{y(p.mean_recall):.1f}" r="4" '
            f'fill="{COLOURS[p.dtype]}"/>'
            for p in own
        ]
        across, down = _free(x(own[0].bytes), y(own[0].mean_recall), 6.5 * len(way), taken)
        parts.append(f'<text x="{across:.1f}" y="{down + 9:.1f}" font-size="11">{way}</text>')
    write_text(path, "\n".join([*parts, "</svg>"]) + "\n")


def _free(
    x: float, y: float, width: float, taken: list[tuple[float, float, float, float]]
) -> tuple[float, float]:
    """Where a name beside a point meets nothing that is ``taken``; it is taken then.

    Left of the point, else above or below it, ever farther; boxes are left, top, width, height.
    """
    height = 12.0
    places = [(x - 8 - width, y - 6)]
    for step in range(1, 12):
        for far in (-6 - 13 * step, -6 + 13 * step):
            places += [(x - 8 - width, y + far), (x - width / 2, y + far)]
    free = next(
        (
            (a, b)
            for a, b in places
            if all(
                a + width < c or c + w < a or b + height < d or d + h < b for c, d, w, h in taken
            )
        ),
        places[0],
    )
    taken.append((*free, width, height))
    return free


def table(points: Sequence[Point]) -> list[str]:
    """A row for each way: bytes an image and mean recall in each type."""
    names = list(COLOURS)
    lines = [
        f"| way | vectors | {' | '.join(names)} |",
        f"|---|{'---|' * (len(names) + 1)}",
    ]
    for way in dict.fromkeys(point.way for point in points):
        own = {point.dtype: point for point in points if point.way == way}
        cells = [f"{own[name].bytes:,.0f}: {own[name].mean_recall:.1f}" for name in names]
        lines.append(f"| {way} | {own[names[0]].vectors:.0f} | {' | '.join(cells)} |")
    return lines


def main() -> None:
    """Measure one model's lists made shorter, and other models' as they are; draw and tabulate."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path, help="whose lists are made shorter")
    parser.add_argument("others", nargs="*", metavar="NAME=MODEL", help="each on its own data")
    parser.add_argument("--plot", type=Path, default=Path("docs/fewer_vectors.svg"))
    parser.add_argument("--page", type=Path)
    options = parser.parse_args()
    points = run(*_opened(options.model))
    for other in options.others:
        name, equals, folder = other.partition("=")
        if not equals:
            parser.error(f"{other}: NAME=MODEL was expected")
        points += run(*_opened(Path(folder)), [(name, Fewer())])
    plot(points, options.plot, "Demo set: mean recall against bytes of an image")
    lines = table(points)
    if options.page is not None:
        write_page(options.page, "fewer", lines)
    print("\n".join(lines))


def _opened(folder: Path) -> tuple[RetrievalModel, Split]:
    """A model, and the validation split of the data that it was trained on."""
    model = load_model(find_checkpoint(folder))
    data = resolve(model.config.data.dataset).path
    return model, ensure_store(data, model.titles, workers=1).split("valid")


if __name__ == "__main__":
    main()
