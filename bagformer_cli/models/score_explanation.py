"""Explain a score: how much each part of the title adds, and which grid cell it fits best.

Title 红色裙 with two bags, scored against an image of 2 × 2 patches::

                class  cell 1  cell 2  cell 3  cell 4
    红色         0.1    0.2     0.6*    0.1     0.0      part 红色: score 0.6, row 1, column 2
    裙           0.3    0.1     0.2     0.9*    0.1      part 裙:   score 0.9, row 2, column 1
                                                         t2i = 0.6 + 0.9 = 1.5

Shapes: G vectors of the title, P vectors of the image, D dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from bagformer_cli.encoders.pooling import grid_shape
from bagformer_cli.encoders.vision import VisionEncoder
from bagformer_cli.errors import InputError
from bagformer_cli.interaction.explain import explain
from bagformer_cli.messages import tr
from bagformer_cli.models.build import RetrievalModel


@dataclass(frozen=True, slots=True)
class GridCell:
    """A cell of an image's patch grid.

    Attributes:
        row: From 1, at the top.
        column: From 1, at the left.
        rows: Rows of the grid.
        columns: Columns of the grid.
    """

    row: int
    column: int
    rows: int
    columns: int

    @property
    def x(self) -> float:
        """Horizontal centre of the cell, in percent of the image's width."""
        return 100 * (self.column - 0.5) / self.columns

    @property
    def y(self) -> float:
        """Vertical centre of the cell, in percent of the image's height."""
        return 100 * (self.row - 0.5) / self.rows


@dataclass(frozen=True, slots=True)
class ScorePart:
    """One vector of a title, and the image vector that it fits best.

    Attributes:
        text: The characters of its bag or token; None: it stands for the whole title.
        score: Its term of the title's score: the largest cosine with the image's vectors.
        share: ``score`` divided by the title's score; negative if even the best cosine is. 0 if
            the title's score is not positive.
        cell: The best patch; None: a vector of the whole image (class token, code token).
        cosines: [rows, columns] float32, the cosine with every patch; None: the image has no grid.
    """

    text: str | None
    score: float
    share: float
    cell: GridCell | None
    cosines: NDArray[np.float32] | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class ScoreExplanation:
    """The parts of the score of one title and one image.

    Attributes:
        title: The title.
        t2i: Score of the title for the image: the sum of the parts' scores.
        i2t: Score of the image for the title: the sum over the image's vectors, or ``t2i`` if the
            model has one score for both directions (``model.pooling: text``).
        parts: One for each vector of the title, in the title's order.
    """

    title: str
    t2i: float
    i2t: float
    parts: list[ScorePart]


def explain_score(
    model: RetrievalModel, title: str, text_vectors: Tensor, image_vectors: Tensor
) -> ScoreExplanation:
    """Explain the score of a title and an image.

    Args:
        model: The model that made the vectors.
        title: The title.
        text_vectors: [G, D], the title's vectors.
        image_vectors: [P, D], the image's vectors.

    Raises:
        InputError: The model reads regions, which have no grid; or its score is no sum over the
            title's vectors.
    """
    pooling = model.config.model.pooling
    if not has_parts(model):
        raise InputError(
            tr("The score of this model is no sum over bags, so it has no parts to explain."),
            found=f"model.pooling: {pooling}",
            expected="each, text",
            hint=tr("Leave out --explain."),
        )
    found = explain(text_vectors, image_vectors)
    cells = image_cells(model, len(image_vectors))
    grids = _grids(found.products, cells)
    parts = [
        ScorePart(text, score, share, cells[patch], grid)
        for text, score, share, patch, grid in zip(
            title_parts(model, title, len(text_vectors)),
            found.bag_scores.tolist(),
            found.bag_shares.tolist(),
            found.patch_of_bag.tolist(),
            grids,
            strict=True,
        )
    ]
    return ScoreExplanation(title, found.t2i, found.i2t if pooling == "each" else found.t2i, parts)


def has_parts(model: RetrievalModel) -> bool:
    """Tell whether a model's score of a title for an image is a sum over the title's vectors."""
    return model.config.model.single or model.config.model.pooling in ("each", "text")


def _grids(
    products: Tensor, cells: Sequence[GridCell | None]
) -> list[NDArray[np.float32]] | list[None]:
    """Lay each title vector's cosines [G, P] out on the grid of the image's cells."""
    on_grid = [(number, cell) for number, cell in enumerate(cells) if cell is not None]
    if not on_grid:
        return [None] * len(products)
    numbers = [number for number, _ in on_grid]
    first = on_grid[0][1]
    found: NDArray[np.float32] = products[:, numbers].numpy()
    return list(found.reshape(len(products), first.rows, first.columns))


def image_cells(model: RetrievalModel, vectors: int) -> list[GridCell | None]:
    """Find the grid cell of each of an image's ``vectors``; see :attr:`ScorePart.cell`."""
    if model.config.model.single:
        return [None] * vectors
    if not isinstance(model.dual.vision_encoder, VisionEncoder):
        raise InputError(tr("This model reads regions, which have no patch grid."))
    on_grid = model.dual.grid_vectors(vectors)
    rows, columns = grid_shape(len(on_grid))
    cells: list[GridCell | None] = [None] * vectors
    for number, vector in enumerate(on_grid):
        row, column = divmod(number, columns)
        cells[vector] = GridCell(row + 1, column + 1, rows, columns)
    return cells


def title_parts(model: RetrievalModel, title: str, vectors: int) -> list[str | None]:
    """Find the characters of each of a title's ``vectors``; see :attr:`ScorePart.text`."""
    settings = model.config.model
    if settings.single:
        return [None] * vectors
    bags = model.titles([title])
    ranges = list(zip(bags.bag_starts.tolist(), bags.bag_ends.tolist(), strict=True))
    if settings.interaction == "tokenwise" and settings.bag_fusion == "late":
        ranges = [(token, token + 1) for start, end in ranges for token in range(start, end)]
    tokens = model.titles.tokenizer.encode_batch([title])
    starts, ends = tokens.starts.tolist(), tokens.ends.tolist()
    # With `keep`, the first vector is that of [CLS]: the whole title.
    parts: list[str | None] = [] if settings.keep == "all" else [None]
    for start, end in ranges:
        # Token positions count [CLS] as 0; the tokenizer's character ranges do not have it.
        first, last = max(start, 1) - 1, min(end - 1, len(starts)) - 1
        parts.append(title[starts[first] : ends[last]] if first <= last else None)
    parts = parts[: vectors - settings.codes]
    return [*parts, *[None] * (vectors - len(parts))]  # code tokens see the whole title
