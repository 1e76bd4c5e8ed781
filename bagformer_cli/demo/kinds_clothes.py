"""Drawing functions of the clothes: T-shirt, hoodie, coat, dress, skirt, trousers, small wear."""

from __future__ import annotations

from bagformer_cli.demo.canvas import (
    BODY,
    COTTON,
    GOLD,
    HOLE,
    LACE,
    LEATHER,
    LIGHT,
    LINING,
    METAL,
    PART,
    SHADE,
    STEEL,
    WOOD,
    Pen,
)


def tshirt(p: Pen) -> None:
    """Draw a T-shirt, round or V neck, with a coloured collar and pocket."""
    sleeve = p.vary(0.42, 0.5)
    waist = p.vary(0.25, 0.28)
    p.mirrored(
        [
            (0.40, 0.10),
            (0.30, 0.12),
            (0.02, 0.30),
            (0.12, sleeve),
            (0.26, sleeve - 0.08),
            (waist, 0.92),
        ]
    )
    if p.among(2):
        p.oval(0.5, 0.10, 0.125, 0.10, PART)
        p.oval(0.5, 0.085, 0.09, 0.075, SHADE)
    else:
        p.polygon([(0.37, 0.09), (0.5, 0.30), (0.63, 0.09)], PART)
        p.polygon([(0.41, 0.09), (0.5, 0.23), (0.59, 0.09)], SHADE)
    p.box(0.56, 0.40, 0.70, 0.56, PART, 0.02)
    p.line([(waist + 0.02, 0.88), (1 - waist - 0.02, 0.88)], 0.012)
    p.line([(0.26, sleeve - 0.1), (0.29, 0.26)], 0.012)
    p.line([(0.74, sleeve - 0.1), (0.71, 0.26)], 0.012)


def hoodie(p: Pen) -> None:
    """Draw a hooded sweater with long sleeves, a pouch and strings."""
    cuff = p.vary(0.70, 0.78)
    p.mirrored(
        [(0.33, 0.20), (0.20, 0.26), (0.03, cuff), (0.13, cuff + 0.05), (0.25, 0.48), (0.25, 0.95)]
    )
    for x in (0.08, 0.92):
        p.dot(x, cuff + 0.02, 0.055, PART)
    p.blob([(0.32, 0.22), (0.33, 0.06), (0.5, 0.01), (0.67, 0.06), (0.68, 0.22), (0.5, 0.34)])
    p.blob(
        [(0.37, 0.20), (0.40, 0.09), (0.5, 0.07), (0.60, 0.09), (0.63, 0.20), (0.5, 0.29)], LINING
    )
    p.polygon([(0.36, 0.62), (0.64, 0.62), (0.72, 0.84), (0.28, 0.84)], PART)
    for x in (0.45, 0.55):
        p.line([(x, 0.28), (x, p.vary(0.44, 0.52))], 0.03, COTTON)
    p.box(0.25, 0.91, 0.75, 0.97, SHADE, 0.01)


def coat(p: Pen) -> None:
    """Draw a long coat with lapels, a belt and buttons."""
    hem = p.vary(0.24, 0.30)
    p.mirrored(
        [
            (0.42, 0.04),
            (0.30, 0.09),
            (0.16, 0.58),
            (0.26, 0.61),
            (0.32, 0.36),
            (0.33, 0.52),
            (hem, 0.98),
        ]
    )
    p.line([(0.5, 0.2), (0.5, 0.98)], 0.014)
    p.polygon([(0.42, 0.03), (0.5, 0.30), (0.34, 0.22), (0.33, 0.09)], LIGHT)
    p.polygon([(0.58, 0.03), (0.5, 0.30), (0.66, 0.22), (0.67, 0.09)], LIGHT)
    p.line([(0.42, 0.04), (0.5, 0.30), (0.58, 0.04)], 0.014)
    p.polygon([(0.42, 0.03), (0.5, 0.24), (0.58, 0.03)], (96, 88, 92))
    p.box(0.31, 0.50, 0.69, 0.57, PART, 0.01)
    p.box(0.46, 0.485, 0.54, 0.585, (232, 200, 120), 0.01)
    for y in (0.36, 0.44, 0.66, 0.76):
        p.dot(0.46, y, 0.018, (70, 60, 56))
        if p.size and y != 0.36:
            p.dot(0.56, y, 0.018, (70, 60, 56))
    for side in (-1, 1):
        p.line([(0.5 + side * 0.09, 0.72), (0.5 + side * 0.17, 0.70)], 0.018)


def dress(p: Pen) -> None:
    """Draw a dress with a fitted waist and a wide skirt; sleeves or straps."""
    waist = p.vary(0.40, 0.46)
    flare = p.vary(0.06, 0.14)
    if p.among(2):  # short puffed sleeves
        for x in (0.25, 0.75):
            p.oval(x, 0.17, 0.09, 0.11)
        neck = [(0.42, 0.06), (0.28, 0.09), (0.34, 0.26), (0.39, waist)]
    else:  # straps
        for x in (0.38, 0.62):
            p.line([(x, 0.01), (x - (x - 0.5) * 0.2, 0.16)], 0.035, BODY)
        neck = [(0.40, 0.12), (0.34, 0.12), (0.34, 0.26), (0.39, waist)]
    p.mirrored([*neck, (flare + 0.04, 0.86), (flare, 0.95), (0.3, 0.985)])
    for i in range(9):  # lace
        p.dot(flare + 0.03 + i * (0.94 - 2 * flare) / 8, 0.955 if 0 < i < 8 else 0.93, 0.05, LACE)
    if neck[0][1] < 0.1:
        p.pie(0.5, 0.05, 0.10, 0.10, (0, 180), HOLE)
        p.arc(0.5, 0.05, 0.11, 0.11, (0, 180), 0.018)
    p.box(0.375, waist - 0.035, 0.625, waist + 0.035, PART, 0.01)
    if p.among(2):
        p.bow(0.5, waist, 0.10)
    for x in (0.36, 0.5, 0.64):
        p.line([(0.5 + (x - 0.5) * 0.5, waist + 0.08), (0.5 + (x - 0.5) * 1.7, 0.94)], 0.010)


def skirt(p: Pen) -> None:
    """Draw a short flared skirt with folds and a waistband."""
    flare = p.vary(0.02, 0.10)
    p.arc(0.5, 0.035, 0.05, 0.035, (150, 400), 0.025, STEEL)
    p.line([(0.5, 0.06), (0.5, 0.10)], 0.025, STEEL)
    p.line([(0.22, 0.10), (0.78, 0.10)], 0.035, WOOD)
    p.mirrored([(0.30, 0.16), (flare, 0.82), (0.2, 0.88), (0.34, 0.855), (0.46, 0.885)])
    for x in (0.22, 0.36, 0.5, 0.64, 0.78):
        p.line([(0.5 + (x - 0.5) * 0.62, 0.28), (0.5 + (x - 0.5) * 1.25, 0.85)], 0.014)
    p.box(0.29, 0.14, 0.71, 0.24, PART, 0.02)
    for x in (0.33, 0.67):
        p.box(x - 0.035, 0.08, x + 0.035, 0.20, STEEL, 0.01)
    if p.among(2):
        p.dot(0.5, 0.19, 0.03, GOLD)


def trousers(p: Pen) -> None:
    """Draw long trousers, straight or tapered, with coloured cuffs."""
    ankle = p.pick(0.27, 0.31, 0.22)
    gap = p.vary(0.02, 0.05)
    p.polygon([(0.29, 0.03), (0.5, 0.03), (0.5, 0.34), (0.5 - gap, 0.97), (ankle, 0.97)])
    p.polygon([(0.71, 0.03), (0.5, 0.03), (0.5, 0.34), (0.5 + gap, 0.97), (1 - ankle, 0.97)])
    p.box(0.285, 0.03, 0.715, 0.11, LEATHER, 0.01)
    p.box(0.44, 0.02, 0.56, 0.12, GOLD, 0.01)
    p.box(0.47, 0.045, 0.53, 0.095, LEATHER)
    p.line([(0.5, 0.09), (0.5, 0.36)], 0.012)
    p.line([(0.32, 0.14), (0.40, 0.22)], 0.014)
    p.line([(0.68, 0.14), (0.60, 0.22)], 0.014)
    for a, b in ((ankle, 0.5 - gap), (0.5 + gap, 1 - ankle)):
        p.box(a - 0.005, 0.88, b + 0.005, 0.97, PART, 0.01)


def shorts(p: Pen) -> None:
    """Draw wide shorts with a waistband and strings."""
    side = p.vary(0.04, 0.10)
    p.polygon([(0.22, 0.12), (0.5, 0.12), (0.5, 0.48), (0.47, 0.88), (side, 0.86)])
    p.polygon([(0.78, 0.12), (0.5, 0.12), (0.5, 0.48), (0.53, 0.88), (1 - side, 0.86)])
    p.line([(0.5, 0.24), (0.5, 0.5)], 0.014)
    p.box(0.21, 0.09, 0.79, 0.21, PART, 0.02)
    for x in (0.46, 0.54):
        p.line([(x, 0.19), (x + (x - 0.5) * 0.9, 0.42)], 0.03, COTTON)
    for turn in (1, -1):
        for inset in (0.03, 0.11):
            top, bottom = 0.24 + inset * 0.4, side + inset + 0.015
            ends = [(0.5 + turn * (0.5 - top), 0.22), (0.5 + turn * (0.5 - bottom), 0.84)]
            p.line(ends, 0.028, COTTON)
    p.line([(side + 0.02, 0.81), (0.47, 0.83)], 0.014)
    p.line([(1 - side - 0.02, 0.81), (0.53, 0.83)], 0.014)


def scarf(p: Pen) -> None:
    """Draw a scarf: a loop about the neck and two hanging ends with fringes."""
    p.arc(0.5, 0.26, 0.32, 0.24, (0, 360), 0.17)
    length = p.vary(0.78, 0.86)
    p.polygon([(0.34, 0.38), (0.55, 0.36), (0.50, length), (0.24, length - 0.03)])
    short = p.vary(0.64, 0.74)
    p.polygon([(0.52, 0.36), (0.70, 0.36), (0.80, short), (0.57, short + 0.03)])
    p.blob([(0.36, 0.40), (0.52, 0.32), (0.68, 0.40), (0.62, 0.50), (0.44, 0.50)])
    for i in range(5):
        x = 0.26 + i * 0.055
        p.line([(x, length - 0.02), (x - 0.01, length + 0.11)], 0.03, PART)
        x = 0.595 + i * 0.046
        p.line([(x, short), (x + 0.01, short + 0.12)], 0.028, PART)
    p.arc(0.5, 0.26, 0.24, 0.16, (20, 160), 0.012, SHADE)


def socks(p: Pen) -> None:
    """Draw a pair of socks with coloured cuffs, heels and toes."""
    top = p.vary(0.06, 0.14)
    for dx in (0.0, 0.40):
        p.line([(0.23 + dx, top + 0.1), (0.23 + dx, 0.66)], 0.23, BODY)
        p.line([(0.23 + dx, 0.74), (0.44 + dx, 0.86)], 0.22, BODY)
        p.dot(0.20 + dx, 0.74, 0.10, PART)
        p.dot(0.455 + dx, 0.865, 0.095, PART)
        p.box(0.10 + dx, top, 0.36 + dx, top + 0.13, PART, 0.02)
        for i in range(4):
            x = 0.14 + dx + i * 0.06
            p.line([(x, top + 0.02), (x, top + 0.11)], 0.012, (90, 84, 84))


def gloves(p: Pen) -> None:
    """Draw a pair of mittens or five-fingered gloves with cuffs."""
    fingers = p.among(2)
    cuff = p.vary(0.90, 0.98)
    for x, side in ((0.26, -1), (0.74, 1)):
        if fingers:
            for i, top in enumerate((0.20, 0.08, 0.06, 0.14)):
                dx = (i - 1.5) * 0.085 * -side
                p.line([(x + dx, top + 0.04), (x + dx * 0.9, 0.5)], 0.082, BODY)
            p.box(x - 0.165, 0.38, x + 0.165, 0.72, BODY, 0.05)
        else:
            p.blob(
                [
                    (x - 0.16, 0.70),
                    (x - 0.18, 0.32),
                    (x - 0.10, 0.10),
                    (x + 0.10, 0.10),
                    (x + 0.18, 0.32),
                    (x + 0.16, 0.70),
                ]
            )
        inner = x - side * 0.15
        p.line([(inner, 0.60), (inner - side * 0.09, 0.38)], 0.10, BODY)
        p.box(x - 0.17, 0.70, x + 0.17, cuff, PART, 0.03)
        for i in range(4):
            p.line(
                [(x - 0.12 + i * 0.08, 0.73), (x - 0.12 + i * 0.08, cuff - 0.03)],
                0.012,
                (90, 84, 84),
            )


def tie(p: Pen) -> None:
    """Draw a necktie with a clip."""
    width = p.vary(0.13, 0.17)
    p.polygon([(0.42, 0.16), (0.58, 0.16), (0.5 + width, 0.82), (0.5, 0.98), (0.5 - width, 0.82)])
    p.polygon([(0.38, 0.01), (0.62, 0.01), (0.575, 0.18), (0.425, 0.18)])
    p.line([(0.425, 0.175), (0.575, 0.175)], 0.016)
    p.box(0.36, 0.44, 0.64, 0.52, PART, 0.01)
    p.line([(0.40, 0.48), (0.60, 0.48)], 0.01, (250, 245, 220))


def apron(p: Pen) -> None:
    """Draw a kitchen apron with a neck loop, ties and a large pocket."""
    p.arc(0.5, 0.12, 0.15, 0.13, (180, 360), 0.03, PART)
    p.mirrored([(0.34, 0.10), (0.33, 0.30), (0.16, 0.42), (p.vary(0.13, 0.18), 0.93), (0.24, 0.96)])
    p.line([(0.42, 0.60), (0.40, 0.44)], 0.03, WOOD)
    p.oval(0.395, 0.39, 0.05, 0.07, WOOD)
    p.line([(0.56, 0.60), (0.58, 0.42)], 0.035, METAL)
    p.box(0.53, 0.33, 0.63, 0.44, METAL, 0.02)
    p.box(0.34, 0.54, 0.66, 0.76, PART, 0.03)
    p.line([(0.34, 0.59), (0.66, 0.59)], 0.012, (90, 84, 84))
    for side in (-1, 1):
        p.line(
            [(0.5 + side * 0.34, 0.44), (0.5 + side * 0.46, 0.52), (0.5 + side * 0.44, 0.66)],
            0.03,
            PART,
            smooth=True,
        )
    p.line([(0.35, 0.15), (0.65, 0.15)], 0.014)
