"""Drawing functions of toys, sweets and presents."""

from __future__ import annotations

from bagformer_cli.demo.canvas import (
    BODY,
    CREAM,
    GLASS,
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


def teddy(p: Pen) -> None:
    """Draw a sitting teddy bear with a bow tie."""
    for x in (0.26, 0.74):
        p.dot(x, 0.12, 0.115, BODY)
        p.dot(x, 0.12, 0.06, CREAM)
    for x in (0.16, 0.84):
        p.oval(x, 0.60, 0.11, 0.16, BODY)
    p.oval(0.5, 0.70, 0.29, 0.28, BODY)
    for x in (0.24, 0.76):
        p.dot(x, 0.87, 0.14, BODY)
        p.dot(x, 0.88, 0.075, CREAM)
    p.oval(0.5, 0.29, 0.30, 0.26, BODY)
    p.oval(0.5, 0.37, 0.13, 0.10, CREAM)
    p.oval(0.5, 0.325, 0.045, 0.032, (40, 30, 30))
    for x in (0.38, 0.62):
        p.dot(x, 0.25, 0.034, (30, 24, 24))
    if p.among(2):
        p.oval(0.5, 0.74, 0.16, 0.16, LIGHT)
    p.bow(0.5, 0.545, p.vary(0.15, 0.19))


def toycar(p: Pen) -> None:
    """Draw a toy car from the side; the roof in the part colour."""
    if p.among(2):
        p.polygon([(0.22, 0.46), (0.32, 0.22), (0.66, 0.22), (0.80, 0.46)], PART)
        p.polygon([(0.29, 0.46), (0.36, 0.28), (0.47, 0.28), (0.47, 0.46)], GLASS)
        p.polygon([(0.53, 0.46), (0.53, 0.28), (0.63, 0.28), (0.72, 0.46)], GLASS)
    else:
        p.box(0.10, 0.20, 0.72, 0.50, PART, 0.05)
        for x in (0.17, 0.36, 0.55):
            p.box(x, 0.27, x + 0.13, 0.42, GLASS, 0.02)
    p.box(0.02, 0.43, 0.98, 0.74, BODY, 0.09)
    wheel = p.vary(0.125, 0.15)
    for x in (0.25, 0.75):
        p.dot(x, 0.75, wheel, RUBBER)
        p.dot(x, 0.75, 0.065, METAL)
    p.dot(0.94, 0.55, 0.04, (255, 236, 150))
    p.line([(0.5, 0.50), (0.5, 0.70)], 0.014)
    p.box(0.02, 0.64, 0.10, 0.70, METAL, 0.01)


def duck(p: Pen) -> None:
    """Draw a bath duck from the side; the bill in the part colour."""
    p.blob(
        [
            (0.02, 0.50),
            (0.20, 0.58),
            (0.44, 0.50),
            (0.80, 0.56),
            (0.90, 0.72),
            (0.76, 0.92),
            (0.40, 0.95),
            (0.12, 0.84),
        ]
    )
    head = p.vary(0.22, 0.25)
    p.dot(0.66, 0.30, head, BODY)
    p.polygon([(0.50, 0.44), (0.82, 0.44), (0.84, 0.62), (0.46, 0.62)])
    p.blob([(0.84, 0.26), (0.99, 0.30), (0.98, 0.40), (0.84, 0.42)], PART)
    p.line([(0.86, 0.345), (0.96, 0.35)], 0.014, (110, 60, 40))
    p.dot(0.72, 0.24, 0.042, (250, 250, 250))
    p.dot(0.73, 0.24, 0.026, (24, 24, 28))
    p.blob([(0.24, 0.66), (0.44, 0.62), (0.60, 0.72), (0.46, 0.82), (0.28, 0.78)], SHADE)
    if p.among(2):
        p.line([(0.48, 0.52), (0.66, 0.57), (0.84, 0.52)], 0.07, PART, smooth=True)


def kite(p: Pen) -> None:
    """Draw a diamond kite with a tail of bows in the part colour."""
    wide = p.vary(0.30, 0.36)
    p.line([(0.5, 0.66), (0.44, 0.78), (0.56, 0.88), (0.48, 0.99)], 0.022, STEEL, smooth=True)
    p.polygon([(0.5, 0.01), (0.5 + wide, 0.30), (0.5, 0.70), (0.5 - wide, 0.30)])
    p.polygon([(0.5, 0.70), (0.41, 0.565), (0.59, 0.565)], PART)
    p.line([(0.5, 0.02), (0.5, 0.70)], 0.02, WOOD)
    p.line([(0.5 - wide, 0.30), (0.5 + wide, 0.30)], 0.02, WOOD)
    for x, y in ((0.455, 0.79), (0.545, 0.88), (0.48, 0.965)):
        p.bow(x, y, 0.085)


def cake(p: Pen) -> None:
    """Draw a two-tier cake on a plate; the icing in the part colour, candles on top."""
    p.oval(0.5, 0.93, 0.48, 0.055, (236, 236, 238))
    p.box(0.10, 0.56, 0.90, 0.92, BODY, 0.05)
    upper = p.vary(0.22, 0.27)
    p.box(upper, 0.26, 1 - upper, 0.60, BODY, 0.05)
    for x0, x1, y in ((0.10, 0.90, 0.56), (upper, 1 - upper, 0.26)):
        p.box(x0, y - 0.03, x1, y + 0.05, PART, 0.03)
        n = round((x1 - x0) / 0.1)
        for i in range(n):
            p.dot(x0 + (i + 0.5) * (x1 - x0) / n, y + 0.055, 0.042, PART)
    for x in (0.36, 0.5, 0.64) if p.among(2) else (0.5,):
        p.box(x - 0.022, 0.10, x + 0.022, 0.25, (250, 246, 232))
        p.oval(x, 0.065, 0.024, 0.045, (255, 186, 60))


def icecream(p: Pen) -> None:
    """Draw an ice cream in a waffle cone, a cherry or a stick of the part colour on top."""
    p.polygon([(0.26, 0.50), (0.74, 0.50), (0.5, 0.99)], (222, 168, 100))
    for i in range(3):
        p.line([(0.32 + i * 0.12, 0.52), (0.58 + i * 0.03, 0.80 - i * 0.12)], 0.014, (176, 122, 66))
        p.line([(0.68 - i * 0.12, 0.52), (0.42 - i * 0.03, 0.80 - i * 0.12)], 0.014, (176, 122, 66))
    if p.among(2):
        p.dot(0.5, 0.36, 0.29, BODY)
        for x in (0.27, 0.42, 0.58, 0.73):
            p.dot(x, 0.50, 0.085, BODY)
    else:
        p.oval(0.5, 0.46, 0.31, 0.12, BODY)
        p.oval(0.5, 0.32, 0.24, 0.12, BODY)
        p.oval(0.5, 0.20, 0.16, 0.10, BODY)
        p.arc(0.5, 0.32, 0.24, 0.12, (20, 160), 0.016, SHADE)
        p.arc(0.5, 0.46, 0.31, 0.12, (20, 160), 0.016, SHADE)
    p.dot(0.5, 0.095, p.vary(0.075, 0.095), PART)
    p.line([(0.51, 0.06), (0.57, 0.01)], 0.018, (90, 110, 60))


def giftbox(p: Pen) -> None:
    """Draw a gift box with a lid, a ribbon and a bow in the part colour."""
    p.box(0.10, 0.44, 0.90, 0.98, BODY, 0.02)
    p.box(0.04, 0.30, 0.96, 0.46, BODY, 0.02)
    p.line([(0.06, 0.465), (0.94, 0.465)], 0.018)
    half = p.vary(0.055, 0.075)
    p.box(0.5 - half, 0.30, 0.5 + half, 0.98, PART)
    if p.among(2):
        p.box(0.10, 0.66, 0.90, 0.66 + half * 1.6, PART)
    for side in (-1, 1):
        p.arc(0.5 + side * 0.15, 0.19, 0.15, 0.11, (0, 360), 0.06, PART)
    p.dot(0.5, 0.25, 0.06, PART)
    p.line([(0.56, 0.30), (0.68, 0.50)], 0.014, (120, 110, 100))
    p.polygon([(0.64, 0.54), (0.70, 0.47), (0.84, 0.53), (0.80, 0.72), (0.62, 0.68)], PAPER)
    p.line([(0.68, 0.57), (0.79, 0.60)], 0.014, (190, 60, 70))
    p.line([(0.67, 0.63), (0.77, 0.655)], 0.014, (190, 60, 70))
