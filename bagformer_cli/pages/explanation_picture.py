"""Draw the explanation of scores as one PNG image, for slides and papers.

::

    title                    one line for each title, with its score
    [image] [image] [image]  one copy for each part of the score
    bag 0.61 bag 0.42 …      the part's characters and its score
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw

from bagformer_cli.messages import tr
from bagformer_cli.models.score_explanation import GridCell, ScoreExplanation, ScorePart
from bagformer_cli.pages.fonts import Font, font_for
from bagformer_cli.pages.heat_map import Scale, part_name

SIDE = 240
"""Longer side in pixels of a copy of the image."""

COLUMNS = 5
"""Copies in a row."""

GAP = 20
TEXT = 20
LINE = 30


@dataclass(frozen=True)
class _Sheet:
    """A white sheet and its pens."""

    image: Image.Image
    draw: ImageDraw.ImageDraw
    font: Font

    def write(self, x: int, y: int, text: str, width: int) -> None:
        """Write one line; what does not fit ``width`` is replaced by an ellipsis."""
        if self.font.getlength(text) > width:
            while text and self.font.getlength(text + "…") > width:
                text = text[:-1]
            text += "…"
        self.draw.text((x, y), text, "#1d1f23", font=self.font)


def draw(image: Image.Image, explained: Sequence[ScoreExplanation]) -> Image.Image:
    """Draw one block for each title.

    Args:
        image: The image.
        explained: The explanations of its scores.

    Returns:
        An RGB image.

    Raises:
        InputError: No installed font has the titles' characters.
    """
    copy = image.convert("RGB")
    copy.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    step_x, step_y = copy.width + GAP, copy.height + LINE + GAP
    names = [_caption(part) for one in explained for part in one.parts]
    font = font_for("".join([*(_headline(one) for one in explained), *names, "…"]), TEXT)
    rows = [-(-len(one.parts) // COLUMNS) for one in explained]
    columns = min(COLUMNS, max(len(one.parts) for one in explained))
    width = GAP + max(columns, 3) * step_x
    height = GAP + sum(LINE + GAP // 2 + count * step_y for count in rows)
    sheet = Image.new("RGB", (width, height), "white")
    pens = _Sheet(sheet, ImageDraw.Draw(sheet), font)
    y = GAP
    for one, count in zip(explained, rows, strict=True):
        pens.write(GAP, y, _headline(one), width - 2 * GAP)
        y += LINE + GAP // 2
        scale = Scale.of(one.parts)
        for number, part in enumerate(one.parts):
            row, column = divmod(number, COLUMNS)
            left, top = GAP + column * step_x, y + row * step_y
            _draw_part(pens, copy, part, scale, left, top)
        y += count * step_y
    return sheet


def _headline(explained: ScoreExplanation) -> str:
    direction = tr("text → image").replace("→", "to")  # the font of Pillow has no arrow
    return f"{explained.title}    {direction} {explained.t2i:.3f}"


def _caption(part: ScorePart) -> str:
    return f"{part_name(part)} {part.score:.3f}"


def _draw_part(
    pens: _Sheet, copy: Image.Image, part: ScorePart, scale: Scale | None, left: int, top: int
) -> None:
    """Draw a copy of the image with its colours, the frame of the best cell, and the caption."""
    if scale is None or part.cosines is None:
        pens.image.paste(copy, (left, top))
    else:
        pens.image.paste(copy.convert("L"), (left, top))
        colours = scale.overlay(part.cosines).resize(copy.size, Image.Resampling.NEAREST)
        pens.image.paste(colours, (left, top), colours)
    if part.cell is not None:
        x0, y0, x1, y1 = _box(part.cell, copy, left, top)
        pens.draw.rectangle((x0, y0, x1, y1), None, "black", 4)
        pens.draw.rectangle((x0 + 1, y0 + 1, x1 - 1, y1 - 1), None, "white", 2)
    pens.write(left, top + copy.height + 4, _caption(part), copy.width)


def _box(
    cell: GridCell, image: Image.Image, left: int, top: int
) -> tuple[float, float, float, float]:
    """Return left, top, right and bottom of a cell of an image that is drawn at left, top."""
    width, height = image.width / cell.columns, image.height / cell.rows
    x, y = left + (cell.column - 1) * width, top + (cell.row - 1) * height
    return x, y, x + width - 1, y + height - 1
