"""Drawing functions of the kitchen and the home."""

from __future__ import annotations

from bagformer_cli.demo.canvas import (
    BODY,
    GLASS,
    HOLE,
    LIGHT,
    METAL,
    PAPER,
    PART,
    RUBBER,
    SHADE,
    STEEL,
    WOOD,
    Pen,
)


def mug(p: Pen) -> None:
    """Draw a mug with a ring handle in the part colour."""
    left = p.vary(0.08, 0.14)
    p.oval(0.42, 0.90, 0.42, 0.075, PAPER)
    p.oval(0.42, 0.895, 0.30, 0.045, (206, 206, 210))
    p.arc(0.72, 0.52, 0.24, p.vary(0.20, 0.26), (270, 450), 0.085, PART)
    p.box(left, 0.14, 0.74, 0.92, BODY, 0.08)
    p.box(left, 0.14, 0.74, 0.40, BODY, 0.01)
    middle, half = (left + 0.74) / 2, (0.74 - left) / 2
    p.oval(middle, 0.15, half, 0.08, PART)
    p.oval(middle, 0.155, half - 0.04, 0.055, (88, 54, 34) if p.among(2) else (60, 38, 26))


def thermos(p: Pen) -> None:
    """Draw an insulated bottle with a coloured lid and a steel ring."""
    if p.among(2):
        p.box(0.30, 0.22, 0.70, 0.99, BODY, 0.07)
        p.box(0.32, 0.01, 0.68, 0.24, PART, 0.05)
    else:
        p.mirrored([(0.36, 0.18), (0.30, 0.30), (0.30, 0.94), (0.34, 0.99)])
        p.box(0.37, 0.04, 0.63, 0.20, PART, 0.03)
        p.arc(0.5, 0.06, 0.11, 0.06, (180, 360), 0.03, PART)
    p.arc(0.72, 0.34, 0.13, 0.15, (270, 450), 0.04, STEEL)
    p.box(0.29, 0.225, 0.71, 0.30, METAL, 0.01)
    p.box(0.29, 0.90, 0.71, 0.97, METAL, 0.01)
    if p.among(2):
        p.box(0.36, 0.50, 0.52, 0.66, PART, 0.02)
    p.box(0.60, 0.32, 0.635, 0.86, LIGHT, 0.015)


def pan(p: Pen) -> None:
    """Draw a frying pan from above with a long handle."""
    p.line([(0.58, 0.58), (0.93, 0.93)], 0.10, PART)
    p.dot(0.90, 0.90, 0.022, (240, 240, 240))
    p.line([(0.58, 0.58), (0.68, 0.68)], 0.06, METAL)
    p.dot(0.38, 0.38, 0.37, BODY)
    rim = p.vary(0.17, 0.20)
    p.dot(0.38, 0.38, rim + 0.02, SHADE)
    p.dot(0.38, 0.38, rim, (70, 70, 76))
    if p.among(2):
        p.blob(
            [(0.26, 0.36), (0.36, 0.26), (0.50, 0.34), (0.48, 0.48), (0.32, 0.48)], (250, 250, 248)
        )
        p.dot(0.38, 0.38, 0.065, (250, 190, 50))
    else:
        p.arc(0.38, 0.38, rim - 0.05, rim - 0.05, (190, 280), 0.02, (130, 130, 138))


def pot(p: Pen) -> None:
    """Draw a cooking pot with a lid and two side handles."""
    for side in (-1, 1):
        x = 0.5 + side * 0.42
        p.arc(x, 0.54, 0.08, 0.07, (0, 360), 0.04, PART)
    depth = p.vary(0.84, 0.94)
    p.mirrored([(0.13, 0.42), (0.14, depth - 0.08), (0.20, depth)])
    p.pie(0.5, 0.42, 0.39, p.vary(0.17, 0.24), (180, 360), PART)
    p.box(0.09, 0.39, 0.91, 0.45, METAL, 0.02)
    p.box(0.43, 0.10, 0.57, 0.22, (52, 50, 52), 0.04)
    p.box(0.22, 0.54, 0.26, depth - 0.1, LIGHT, 0.02)


def kettle(p: Pen) -> None:
    """Draw an electric kettle: spout, side handle, base."""
    p.arc(0.70, 0.48, 0.25, 0.28, (250, 460), 0.075, PART)
    p.polygon([(0.26, 0.26), (0.06, 0.16), (0.10, 0.30), (0.24, 0.44)])
    p.mirrored([(0.29, 0.16), (0.25, 0.24), (p.vary(0.16, 0.21), 0.84)])
    p.pie(0.5, 0.17, 0.21, 0.11, (180, 360), PART)
    p.dot(0.5, 0.065, 0.035, PART)
    p.box(0.13, 0.84, 0.87, 0.93, PART, 0.03)
    p.line([(0.13, 0.90), (0.05, 0.94), (0.03, 0.80), (0.09, 0.72)], 0.035, RUBBER, smooth=True)
    if p.among(2):
        p.box(0.34, 0.40, 0.41, 0.72, GLASS, 0.03)
    p.dot(0.60, 0.77, 0.028, (250, 90, 60))


def teapot(p: Pen) -> None:
    """Draw a round teapot: curved spout, ear handle, lid with a knob."""
    p.arc(0.76, 0.56, 0.21, 0.20, (260, 460), 0.06, PART)
    p.line([(0.30, 0.68), (0.16, 0.58), (0.10, 0.42), (0.03, 0.36)], 0.11, BODY, smooth=True)
    p.oval(0.49, 0.60, 0.33, p.vary(0.27, 0.31))
    p.box(0.34, 0.84, 0.64, 0.91, SHADE, 0.02)
    p.pie(0.49, 0.37, 0.20, 0.12, (180, 360), PART)
    p.box(0.27, 0.36, 0.71, 0.40, PART, 0.015)
    p.dot(0.49, 0.22, 0.05, PART)


def pillow(p: Pen) -> None:
    """Draw a cushion with a border in the part colour; square or with tassels."""
    p.blob(
        [
            (0.05, 0.06),
            (0.5, 0.12),
            (0.95, 0.06),
            (0.88, 0.5),
            (0.95, 0.94),
            (0.5, 0.88),
            (0.05, 0.94),
            (0.12, 0.5),
        ],
        PART,
    )
    p.blob(
        [
            (0.12, 0.13),
            (0.5, 0.18),
            (0.88, 0.13),
            (0.83, 0.5),
            (0.88, 0.87),
            (0.5, 0.82),
            (0.12, 0.87),
            (0.17, 0.5),
        ]
    )
    style = p.among(3)
    if style == 2:  # a button and folds
        p.dot(0.5, 0.5, 0.05, PART)
        for dx, dy in ((0.16, 0.13), (-0.16, 0.13), (0.16, -0.13), (-0.16, -0.13)):
            p.line([(0.5 + dx * 0.5, 0.5 + dy * 0.5), (0.5 + dx, 0.5 + dy)], 0.014)
    elif style == 1:  # tassels
        for x, y in ((0.05, 0.05), (0.95, 0.05), (0.05, 0.95), (0.95, 0.95)):
            p.dot(x, y, 0.05, PART)
    p.line([(0.2, 0.24), (0.3, 0.32)], 0.014)
    p.line([(0.8, 0.24), (0.7, 0.32)], 0.014)


def lamp(p: Pen) -> None:
    """Draw a table lamp: shade, stem, round foot."""
    p.box(0.475, 0.44, 0.525, 0.90, METAL)
    p.oval(0.5, 0.91, p.vary(0.20, 0.26), 0.07, PART)
    p.box(0.44, 0.56, 0.56, 0.84, PART, 0.05)
    top = p.vary(0.16, 0.30)
    p.mirrored([(0.5 - top, 0.04), (0.10, 0.50)])
    p.mirrored([(0.30, 0.50), (0.18, 0.66), (0.30, 0.66)], (255, 246, 206))
    p.box(0.475, 0.60, 0.525, 0.70, METAL)
    p.oval(0.5, 0.50, 0.40, 0.06, (255, 236, 160))
    p.dot(0.5, 0.53, 0.06, (255, 252, 232))
    p.line([(0.5 - top, 0.05), (0.5 + top, 0.05)], 0.022)
    p.line([(0.66, 0.50), (0.66, 0.64)], 0.014, STEEL)


def vase(p: Pen) -> None:
    """Draw a vase with three flowers in the part colour."""
    for x, y in ((0.30, 0.20), (0.52, 0.11), (0.72, 0.22)):
        p.line([(x, y), (0.5, 0.52)], 0.02, (70, 140, 76))
        for dx, dy in ((0.06, 0), (-0.06, 0), (0, 0.06), (0, -0.06)):
            p.dot(x + dx, y + dy, 0.055, PART)
        p.dot(x, y, 0.035, (252, 236, 190))
    p.oval(0.36, 0.38, 0.08, 0.03, (70, 140, 76))
    belly = p.vary(0.20, 0.27)
    if p.among(2):
        p.blob(
            [
                (0.40, 0.46),
                (0.5 - belly, 0.70),
                (0.40, 0.97),
                (0.60, 0.97),
                (0.5 + belly, 0.70),
                (0.60, 0.46),
            ]
        )
    else:
        p.mirrored([(0.36, 0.46), (0.41, 0.56), (0.5 - belly, 0.76), (0.40, 0.97)])
    p.oval(0.5, 0.465, 0.12, 0.025, SHADE)


def chair(p: Pen) -> None:
    """Draw a dining chair seen from the front at an angle: back, seat, four legs."""
    for x0, x1, y in (
        (0.24, 0.20, 0.98),
        (0.76, 0.80, 0.98),
        (0.36, 0.36, 0.88),
        (0.64, 0.64, 0.88),
    ):
        p.line([(x0, 0.60), (x1, y)], 0.045, WOOD)
    if p.among(2):
        p.box(0.24, 0.03, 0.76, 0.52, BODY, 0.10)
        p.box(0.38, 0.16, 0.62, 0.22, HOLE, 0.03)
    else:
        p.box(0.22, 0.03, 0.78, p.vary(0.19, 0.25), BODY, 0.05)
        for x in (0.27, 0.5, 0.73):
            p.box(x - 0.035, 0.18, x + 0.035, 0.58, BODY)
    p.polygon([(0.24, 0.50), (0.76, 0.50), (0.86, 0.66), (0.14, 0.66)], PART)
    p.box(0.14, 0.65, 0.86, 0.71, SHADE, 0.02)


def sofa(p: Pen) -> None:
    """Draw a two-seat sofa with cushions in the part colour."""
    for x in (0.14, 0.86):
        p.box(x - 0.03, 0.80, x + 0.03, 0.92, WOOD, 0.01)
    p.box(0.12, 0.20, 0.88, 0.66, BODY, 0.08)
    p.box(0.10, 0.56, 0.90, 0.84, BODY, 0.04)
    for x0, x1 in ((0.01, 0.17), (0.83, 0.99)):
        p.box(x0, 0.40, x1, 0.84, BODY, p.vary(0.05, 0.08))
    p.line([(0.17, 0.60), (0.83, 0.60)], 0.022)
    p.line([(0.5, 0.22), (0.5, 0.80)], 0.018)
    p.line([(0.175, 0.44), (0.175, 0.82)], 0.014)
    p.line([(0.825, 0.44), (0.825, 0.82)], 0.014)
    p.polygon([(0.22, 0.36), (0.40, 0.34), (0.42, 0.56), (0.20, 0.58)], PART)
    if p.among(2):
        p.polygon([(0.62, 0.34), (0.80, 0.36), (0.82, 0.58), (0.60, 0.56)], PART)


def clock(p: Pen) -> None:
    """Draw a twin-bell alarm clock."""
    for side in (-1, 1):
        p.pie(0.5 + side * 0.22, 0.20, 0.16, 0.15, (180 + side * 25, 360 + side * 25), PART)
        p.line([(0.5 + side * 0.24, 0.84), (0.5 + side * 0.32, 0.96)], 0.07, PART)
    p.line([(0.42, 0.08), (0.58, 0.08)], 0.035, STEEL)
    p.line([(0.5, 0.08), (0.5, 0.2)], 0.03, STEEL)
    p.dot(0.5, 0.56, 0.38, BODY)
    p.dot(0.5, 0.56, p.vary(0.23, 0.26), (252, 250, 244))
    for x, y in ((0.5, 0.38), (0.68, 0.56), (0.5, 0.74), (0.32, 0.56)):
        p.dot(x, y, 0.02, (50, 50, 54))
    p.line([(0.5, 0.56), (0.5, 0.42)], 0.03, (40, 40, 44))
    p.line([(0.5, 0.56), (0.60, 0.62)], 0.03, (40, 40, 44))
