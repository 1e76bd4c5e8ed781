"""Drawing functions of hats, shoes, bags, and what else goes with an outfit."""

from __future__ import annotations

from bagformer_cli.demo.canvas import (
    BODY,
    GOLD,
    HOLE,
    LIGHT,
    METAL,
    PAPER,
    PART,
    SHADE,
    STEEL,
    STRAW,
    Pen,
)


def cap(p: Pen) -> None:
    """Draw a baseball cap from the side, its brim in the part colour."""
    p.pie(0.42, 0.62, 0.36, 0.44, (180, 360))
    p.box(0.06, 0.58, 0.78, 0.68, BODY, 0.02)
    brim = p.vary(0.92, 0.99)
    p.blob(
        [(0.60, 0.60), (0.80, 0.58), (brim, 0.66), (brim - 0.03, 0.73), (0.78, 0.69), (0.58, 0.70)],
        PART,
    )
    p.dot(0.42, 0.18, 0.04, PART)
    p.line([(0.42, 0.2), (0.52, 0.4), (0.56, 0.6)], 0.014, smooth=True)
    p.line([(0.42, 0.2), (0.26, 0.38), (0.2, 0.6)], 0.014, smooth=True)
    if p.among(2):
        p.star(0.36, 0.44, 0.09)
    p.line([(0.08, 0.66), (0.72, 0.66)], 0.014)


def sunhat(p: Pen) -> None:
    """Draw a wide-brimmed hat with a ribbon."""
    p.oval(0.5, 0.68, 0.49, p.vary(0.17, 0.21), STRAW)
    p.oval(0.5, 0.64, 0.49, p.vary(0.14, 0.17))
    p.mirrored([(0.40, 0.20), (0.28, 0.28), (0.25, 0.62), (0.40, 0.70)], smooth=True)
    p.mirrored([(0.255, 0.48), (0.245, 0.62), (0.36, 0.685), (0.36, 0.55)], PART)
    p.polygon([(0.36, 0.55), (0.64, 0.55), (0.64, 0.685), (0.36, 0.685)], PART)
    if p.among(2):
        p.bow(0.70, 0.58, 0.12)


def beanie(p: Pen) -> None:
    """Draw a knitted hat with a pompom."""
    p.pie(0.5, 0.70, 0.38, 0.50, (180, 360))
    p.box(0.09, 0.66, 0.91, 0.90, BODY, 0.06)
    for i in range(8):
        x = 0.16 + i * 0.097
        p.line([(x, 0.69), (x, 0.87)], 0.016)
    for x in (0.3, 0.5, 0.7):
        p.line([(0.5 + (x - 0.5) * 0.4, 0.26), (x, 0.64)], 0.014)
    p.line([(0.11, 0.665), (0.89, 0.665)], 0.02)
    ball = p.vary(0.12, 0.155)
    p.dot(0.5, 0.16, ball, PART)
    for i in range(5):
        p.dot(0.44 + 0.05 * (i % 3), 0.11 + 0.05 * (i % 2), 0.012, (255, 255, 255))


def sneaker(p: Pen) -> None:
    """Draw a running shoe from the side with a thick coloured sole."""
    p.polygon(
        [
            (0.06, 0.68),
            (0.06, 0.34),
            (0.13, 0.24),
            (0.22, 0.32),
            (0.36, 0.26),
            (0.44, 0.24),
            (0.66, 0.48),
            (0.86, 0.54),
            (0.95, 0.66),
            (0.95, 0.70),
        ]
    )
    p.blob([(0.70, 0.70), (0.76, 0.54), (0.90, 0.56), (0.96, 0.68)], LIGHT)
    sole = p.vary(0.10, 0.14)
    p.box(0.03, 0.68, 0.98, 0.68 + sole, PART, 0.05)
    p.line([(0.06, 0.68 + sole * 0.62), (0.95, 0.68 + sole * 0.62)], 0.014, (70, 66, 66))
    for i in range(4):
        x = 0.42 + i * 0.07
        p.line([(x, 0.30 + i * 0.075), (x + 0.09, 0.27 + i * 0.075)], 0.026, (250, 250, 250))
    if p.among(2):
        p.line([(0.18, 0.60), (0.34, 0.62), (0.58, 0.50)], 0.04, PART, smooth=True)
    else:
        for i in range(3):
            p.line([(0.24 + i * 0.09, 0.62), (0.32 + i * 0.09, 0.46)], 0.035, PART)
    p.oval(0.28, 0.285, 0.09, 0.03, SHADE)


def heel(p: Pen) -> None:
    """Draw a high-heeled court shoe from the side, with a bow or a plain toe."""
    thin = p.among(2)
    p.polygon(
        [
            (0.05, 0.12),
            (0.16, 0.10),
            (0.22, 0.26),
            (0.42, 0.46),
            (0.62, 0.62),
            (0.76, 0.62),
            (0.97, 0.76),
            (0.96, 0.82),
            (0.66, 0.82),
            (0.44, 0.68),
            (0.24, 0.48),
            (0.09, 0.38),
        ]
    )
    if thin:
        p.polygon([(0.08, 0.34), (0.22, 0.44), (0.13, 0.86), (0.09, 0.86)], PART)
    else:
        p.polygon([(0.08, 0.34), (0.25, 0.46), (0.22, 0.86), (0.08, 0.86)], PART)
    p.line([(0.10, 0.38), (0.26, 0.50), (0.46, 0.69), (0.66, 0.82), (0.95, 0.82)], 0.028, PART)
    p.blob([(0.17, 0.14), (0.30, 0.32), (0.50, 0.53), (0.42, 0.50), (0.24, 0.32)], (226, 196, 160))
    if p.among(2):
        p.bow(0.74, 0.62, 0.09)


def boot(p: Pen) -> None:
    """Draw a high boot from the side: shaft, foot, sole, a strap with a buckle."""
    top = p.vary(0.02, 0.14)
    p.polygon(
        [
            (0.26, top),
            (0.60, top),
            (0.60, 0.52),
            (0.70, 0.64),
            (0.90, 0.70),
            (0.94, 0.86),
            (0.24, 0.86),
            (0.22, 0.70),
            (0.28, 0.56),
        ]
    )
    p.box(0.22, 0.86, 0.96, 0.92, PART, 0.02)
    p.box(0.22, 0.90, 0.44, 0.985, PART, 0.01)
    p.polygon([(0.26, 0.56), (0.60, 0.52), (0.63, 0.60), (0.25, 0.64)], PART)
    p.box(0.40, 0.525, 0.48, 0.635, GOLD, 0.01)
    p.line([(0.34, top + 0.06), (0.34, 0.80)], 0.03, METAL)
    p.line([(0.34, top + 0.08), (0.34, 0.80)], 0.010, (70, 70, 76))
    p.box(0.255, top, 0.605, top + 0.06, SHADE, 0.01)


def handbag(p: Pen) -> None:
    """Draw a handbag with a bent handle, a flap and a clasp."""
    p.arc(0.5, 0.36, p.vary(0.20, 0.26), 0.31, (180, 360), 0.055, PART)
    p.mirrored([(0.18, 0.34), (0.06, 0.88), (0.10, 0.93)])
    flap = p.among(3)
    if flap == 0:
        p.mirrored([(0.17, 0.33), (0.15, 0.50), (0.5, 0.66)], LIGHT)
        p.line([(0.15, 0.50), (0.5, 0.66), (0.85, 0.50)], 0.018)
        p.dot(0.5, 0.63, 0.05, (238, 206, 118))
    elif flap == 1:
        p.box(0.17, 0.33, 0.83, 0.43, PART, 0.02)
        p.box(0.45, 0.38, 0.55, 0.50, (238, 206, 118), 0.02)
    else:
        p.line([(0.19, 0.40), (0.81, 0.40)], 0.022)
        for x in (0.27, 0.73):
            p.box(x - 0.03, 0.34, x + 0.03, 0.56, PART, 0.01)
    p.line([(0.10, 0.86), (0.90, 0.86)], 0.012)


def backpack(p: Pen) -> None:
    """Draw a backpack from the front: round top, large pocket, loop and side straps."""
    p.arc(0.5, 0.10, 0.10, 0.09, (180, 360), 0.04, SHADE)
    for x in (0.13, 0.87):
        p.box(x - 0.07, 0.46, x + 0.07, 0.88, SHADE, 0.05)
    p.box(0.16, 0.08, 0.84, 0.96, BODY, p.vary(0.16, 0.26))
    p.box(0.24, 0.56, 0.76, 0.90, PART, 0.06)
    p.line([(0.27, 0.64), (0.73, 0.64)], 0.018, (70, 66, 66))
    p.line([(0.21, 0.42), (0.3, 0.37), (0.5, 0.35), (0.7, 0.37), (0.79, 0.42)], 0.02, smooth=True)
    p.dot(0.78, 0.43, 0.025, (236, 236, 240))
    if p.among(2):
        for x in (0.36, 0.64):
            p.box(x - 0.025, 0.12, x + 0.025, 0.56, PART, 0.01)
    p.box(0.44, 0.20, 0.56, 0.27, (244, 240, 230), 0.02)


def suitcase(p: Pen) -> None:
    """Draw a wheeled suitcase with a drawn handle and bands."""
    up = p.pick(0.02, 0.10)
    p.line([(0.36, 0.24), (0.36, up + 0.02), (0.64, up + 0.02), (0.64, 0.24)], 0.035, STEEL)
    p.box(0.42, up - 0.01, 0.58, up + 0.05, (60, 60, 66), 0.02)
    for x in (0.28, 0.72):
        p.box(x - 0.05, 0.90, x + 0.05, 0.99, (60, 60, 66), 0.03)
    p.box(0.18, 0.22, 0.82, 0.94, BODY, 0.08)
    if p.among(2):
        for x in (0.30, 0.70):
            p.box(x - 0.045, 0.22, x + 0.045, 0.94, PART, 0.0)
    else:
        for x, y in ((0.18, 0.22), (0.64, 0.22), (0.18, 0.76), (0.64, 0.76)):
            p.box(x, y, x + 0.18, y + 0.18, PART, 0.06)
    for y in (0.44, 0.58, 0.72):
        p.line([(0.20, y), (0.80, y)], 0.014)
    p.arc(0.5, 0.24, 0.07, 0.05, (180, 360), 0.03, (60, 60, 66))
    p.line([(0.56, 0.24), (0.60, 0.34)], 0.014, (60, 60, 66))
    p.box(0.54, 0.33, 0.68, 0.52, PAPER, 0.02)
    p.line([(0.57, 0.39), (0.65, 0.39)], 0.014, (120, 120, 126))
    p.line([(0.57, 0.45), (0.65, 0.45)], 0.014, (120, 120, 126))


def umbrella(p: Pen) -> None:
    """Draw an open umbrella from the side with a hooked handle."""
    p.line([(0.5, 0.03), (0.5, 0.86)], 0.03, STEEL)
    p.arc(0.58, 0.86, 0.08, 0.10, (0, 180), 0.045, PART)
    p.line([(0.5, 0.70), (0.5, 0.86)], 0.045, PART)
    p.pie(0.5, 0.52, 0.48, p.vary(0.40, 0.45), (180, 360))
    for x in (0.10, 0.30, 0.50, 0.70, 0.90):
        p.oval(x, 0.535, 0.10, 0.05, HOLE)
    p.line([(0.5, 0.52), (0.5, 0.86)], 0.03, STEEL)
    p.line([(0.5, 0.70), (0.5, 0.86)], 0.045, PART)
    for dx in (0.20, 0.40):
        for side in (-1, 1):
            p.line(
                [(0.5, 0.10), (0.5 + side * dx * 0.75, 0.28), (0.5 + side * dx, 0.49)],
                0.012,
                smooth=True,
            )
    p.dot(0.5, 0.07, 0.025, PART)


def watch(p: Pen) -> None:
    """Draw a wrist watch: strap in the body's cloth, dial in the part colour."""
    half = p.vary(0.12, 0.15)
    p.mirrored(
        [(0.5 - half * 0.8, 0.01), (0.5 - half, 0.30), (0.5 - half, 0.70), (0.5 - half * 0.8, 0.99)]
    )
    for y in (0.80, 0.86, 0.92):
        p.dot(0.5, y, 0.018, (60, 52, 50))
    p.box(0.5 - half, 0.06, 0.5 + half, 0.10, (214, 214, 220), 0.01)
    if p.among(2):
        p.dot(0.5, 0.5, 0.26, (202, 206, 214))
        p.dot(0.5, 0.5, 0.205, PART)
    else:
        p.box(0.25, 0.27, 0.75, 0.73, (202, 206, 214), 0.08)
        p.box(0.30, 0.32, 0.70, 0.68, PART, 0.05)
    for x, y in ((0.5, 0.35), (0.65, 0.5), (0.5, 0.65), (0.35, 0.5)):
        p.dot(x, y, 0.016, (250, 250, 250))
    p.line([(0.5, 0.5), (0.5, 0.39)], 0.024, (30, 30, 34))
    p.line([(0.5, 0.5), (0.59, 0.55)], 0.024, (30, 30, 34))
    p.box(0.755, 0.47, 0.80, 0.53, (202, 206, 214), 0.01)
