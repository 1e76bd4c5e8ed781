"""A score in words: which piece of the title it is made of, and where in the image each fits best.

Shapes: G vectors of the title, P vectors of the image, D dimensions.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from bagformer_cli.encoders.pooling import grid_shape
from bagformer_cli.encoders.vision import VisionEncoder
from bagformer_cli.errors import InputError
from bagformer_cli.interaction.explain import explain
from bagformer_cli.messages import tr
from bagformer_cli.models.build import RetrievalModel


@dataclass(frozen=True, slots=True)
class Place:
    """A cell of the grid that the model sees an image as.

    Attributes:
        row: From 1, counted from the top.
        column: From 1, counted from the left.
        rows: How many there are.
        columns: How many there are.
    """

    row: int
    column: int
    rows: int
    columns: int

    @property
    def x(self) -> float:
        """The cell's middle, in percent of the image's width from its left edge."""
        return 100 * (self.column - 0.5) / self.columns

    @property
    def y(self) -> float:
        """The cell's middle, in percent of the image's height from its top edge."""
        return 100 * (self.row - 0.5) / self.rows


@dataclass(frozen=True, slots=True)
class Fit:
    """One vector of a title, and what it met in the image.

    Attributes:
        text: Its characters, a bag's or a token's; None: it stands for the whole title.
        score: Its part of the title's score: the best cosine in the image.
        share: ``score`` in the whole, 0 to 1, below 0 where it met nothing alike; all are 0 where
            the whole is not positive.
        place: The best patch; None: the whole image (the class vector, a learned code).
    """

    text: str | None
    score: float
    share: float
    place: Place | None


@dataclass(frozen=True, slots=True)
class Explained:
    """The score of one title and one image, taken apart.

    Attributes:
        title: The title.
        t2i: The title's score for the image: the sum of the fits' scores.
        i2t: The image's score for the title.
        fits: One for each vector of the title, in the title's order.
    """

    title: str
    t2i: float
    i2t: float
    fits: list[Fit]


def explained(model: RetrievalModel, title: str, words: Tensor, image: Tensor) -> Explained:
    """Say what the score of a title and an image is made of.

    Args:
        model: What made the vectors.
        title: The title.
        words: [G, D], the title's vectors.
        image: [P, D], the image's vectors.

    Raises:
        InputError: The model reads regions, which have no grid.
    """
    met = explain(words, image)
    places = image_places(model, len(image))
    fits = [
        Fit(text, score, share, places[patch])
        for text, score, share, patch in zip(
            title_pieces(model, title, len(words)),
            met.bag_scores.tolist(),
            met.bag_shares.tolist(),
            met.patch_of_bag.tolist(),
            strict=True,
        )
    ]
    return Explained(title, met.t2i, met.i2t, fits)


def image_places(model: RetrievalModel, vectors: int) -> list[Place | None]:
    """Where in an image each of its vectors is; see :attr:`Fit.place`."""
    if model.config.model.single:
        return [None] * vectors
    if not isinstance(model.dual.vision_encoder, VisionEncoder):
        raise InputError(tr("This model reads regions: it has no grid that says where they are."))
    cells = model.dual.grid_vectors(vectors)
    rows, columns = grid_shape(len(cells))
    places: list[Place | None] = [None] * vectors
    for place, vector in enumerate(cells):
        row, column = divmod(place, columns)
        places[vector] = Place(row + 1, column + 1, rows, columns)
    return places


def title_pieces(model: RetrievalModel, title: str, vectors: int) -> list[str | None]:
    """The characters that each of a title's vectors stands for; see :attr:`Fit.text`."""
    settings = model.config.model
    if settings.single:
        return [None] * vectors
    bags = model.titles([title])
    spans = list(zip(bags.bag_starts.tolist(), bags.bag_ends.tolist(), strict=True))
    if settings.interaction == "tokenwise" and settings.bag_fusion == "late":
        spans = [(place, place + 1) for start, end in spans for place in range(start, end)]
    tokens = model.titles.tokenizer.encode_batch([title])
    starts, ends = tokens.starts.tolist(), tokens.ends.tolist()
    pieces: list[str | None] = [] if settings.keep == "all" else [None]  # its class vector
    for start, end in spans:
        first, last = max(start, 1) - 1, min(end - 1, len(starts)) - 1  # [CLS] is position 0
        pieces.append(title[starts[first] : ends[last]] if first <= last else None)
    pieces = pieces[: vectors - settings.codes]
    return [*pieces, *[None] * (vectors - len(pieces))]
