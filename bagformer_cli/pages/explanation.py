"""The page and the PNG image of ``xmr score --explain``: which cells of the image each bag fits.

Every bag has a grey copy of the image. The colour of a cell is the cosine of bag and cell; all
copies of a title have one scale. A frame marks the best cell, whose cosine is the bag's part of
the score, so the numbers under the copies add up to the score.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from bagformer_cli.data.images import decode
from bagformer_cli.errors import InputError
from bagformer_cli.messages import tr
from bagformer_cli.models.score_explanation import ScoreExplanation, ScorePart
from bagformer_cli.outputs import write_output
from bagformer_cli.pages.explanation_picture import draw
from bagformer_cli.pages.heat_map import Scale, overlays, part_name, png
from bagformer_cli.pages.html import data_uri, render

PAGE_SIDE = 640
"""Longer side in pixels of the image in the page."""


def require_explanation_file(path: Path) -> None:
    """Check that a file name ends in ``.html``, ``.htm`` or ``.png``.

    Raises:
        InputError: It has another ending.
    """
    if path.suffix.lower() not in {".html", ".htm", ".png"}:
        raise InputError(
            tr("An explanation is written as an HTML page or a PNG image."),
            where=path,
            expected=f"{path.stem}.html, {path.stem}.png",
        )


def write_explanation(path: Path, image: bytes, explained: Sequence[ScoreExplanation]) -> None:
    """Write the explanation of an image and some titles as a page or a PNG image.

    Args:
        path: The file; its ending says which of the two.
        image: The content of the image's file.
        explained: One explanation for each title.

    Raises:
        InputError: The ending is another one, or no installed font has the titles' characters.
    """
    require_explanation_file(path)
    if path.suffix.lower() == ".png":
        write_output(path, png(draw(decode(image), explained)))
    else:
        write_output(path, explanation_page(image, explained))


@dataclass(frozen=True)
class _ShownPart:
    """A part of a score, as the template reads it."""

    name: str
    score: str
    share: str
    overlay: str | None
    frame: str


def explanation_page(image: bytes, explained: Sequence[ScoreExplanation]) -> str:
    """Return the explanation of an image and some titles as one HTML page."""
    shown = decode(image)
    shown.thumbnail((PAGE_SIDE, PAGE_SIDE), Image.Resampling.LANCZOS)
    return render(
        "explanation.html",
        title=tr("Parts of the score"),
        image=data_uri(png(shown), PAGE_SIDE),
        forward=tr("text → image"),
        backward=tr("image → text"),
        mean=tr("mean"),
        ratio=f"{shown.width} / {shown.height}",
        titles=[
            {
                "title": one.title,
                "t2i": f"{one.t2i:.3f}",
                "sum": " + ".join(f"{part.score:.3f}" for part in one.parts),
                "mean": f"{one.t2i / len(one.parts):.3f}",
                "i2t": f"{one.i2t:.3f}",
                "scale": _scale_note(one),
                "parts": _parts(one),
            }
            for one in explained
        ],
    )


def _scale_note(explained: ScoreExplanation) -> str:
    scale = Scale.of(explained.parts)
    if scale is None:
        return tr("This model compares whole images, so there is no map.")
    return tr(
        "Colour: cosine of bag and patch, from {low} (dark) to {high} (light). Frame: the best "
        "patch. Without a frame the whole image fits best.",
        low=f"{scale.low:.2f}",
        high=f"{scale.high:.2f}",
    )


def _parts(explained: ScoreExplanation) -> list[_ShownPart]:
    return [
        _ShownPart(
            part_name(part),
            f"{part.score:.3f}",
            f"{100 * part.share:.0f} %",
            None if colours is None else data_uri(colours),
            _frame(part),
        )
        for part, colours in zip(explained.parts, overlays(explained.parts), strict=True)
    ]


def _frame(part: ScorePart) -> str:
    """Return the CSS of the frame around the best cell; empty if it is the whole image."""
    cell = part.cell
    if cell is None:
        return ""
    width, height = 100 / cell.columns, 100 / cell.rows
    return (
        f"left:{width * (cell.column - 1):.3f}%;top:{height * (cell.row - 1):.3f}%;"
        f"width:{width:.3f}%;height:{height:.3f}%"
    )
