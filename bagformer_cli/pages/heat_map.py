"""Heat maps of cosines: colours over a grey copy of an image, from dark purple to light yellow."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bagformer_cli.messages import tr
from bagformer_cli.models.score_explanation import ScorePart

OPACITY = 0.6
"""Opacity of the colours, from 0 to 1: the image under them stays visible."""

COLOURS = np.array(
    [(0, 0, 4), (66, 10, 104), (147, 38, 103), (221, 81, 58), (252, 165, 10), (252, 255, 164)]
)
"""RGB from the lowest to the highest cosine: six colours of matplotlib's inferno. They grow lighter
evenly, so that the order is seen without colour, too."""


@dataclass(frozen=True)
class Scale:
    """The range of cosines that heat maps show, so that they can be compared.

    Attributes:
        low: This cosine and lower ones get the darkest colour.
        high: This cosine and higher ones get the lightest colour.
    """

    low: float
    high: float

    @classmethod
    def of(cls, parts: Sequence[ScorePart]) -> Scale | None:
        """Span the cosines of all parts of a title; None if the image has no grid."""
        maps = [part.cosines for part in parts if part.cosines is not None]
        if not maps:
            return None
        return cls(min(float(one.min()) for one in maps), max(float(one.max()) for one in maps))

    def overlay(self, cosines: NDArray[np.float32]) -> Image.Image:
        """Draw the colours of one map.

        Args:
            cosines: [rows, columns].

        Returns:
            An RGBA image of columns × rows pixels, one per cell.
        """
        span = max(self.high - self.low, 1e-9)
        heat = np.clip((cosines - self.low) / span, 0, 1)
        steps = np.linspace(0, 1, len(COLOURS))
        channels = [np.interp(heat, steps, COLOURS[:, channel]) for channel in range(3)]
        opacity = np.full(cosines.shape, 255 * OPACITY)
        return Image.fromarray(np.rint(np.stack([*channels, opacity], -1)).astype(np.uint8))


def overlays(parts: Sequence[ScorePart]) -> list[bytes | None]:
    """Draw the colours of all parts of a title on one scale.

    Returns:
        For each part the content of a PNG file; None where the image has no grid.
    """
    scale = Scale.of(parts)
    return [
        None if scale is None or part.cosines is None else png(scale.overlay(part.cosines))
        for part in parts
    ]


def part_name(part: ScorePart) -> str:
    """Return the characters of a part, or the words for a vector of the whole title."""
    return tr("whole title") if part.text is None else part.text


def png(image: Image.Image) -> bytes:
    """Return an image as the content of a PNG file."""
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()
