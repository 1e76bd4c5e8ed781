"""Drawing functions of electronics and beauty."""

from __future__ import annotations

from bagformer_cli.demo.canvas import BODY, CREAM, LIGHT, PART, RUBBER, SCREEN, SHADE, Pen


def fan(p: Pen) -> None:
    """Draw an electric fan: ring and foot in the body's cloth, blades in the part colour."""
    p.box(0.45, 0.60, 0.55, 0.90, BODY)
    p.mirrored([(0.36, 0.84), (0.22, 0.92), (0.22, 0.99)])
    p.dot(0.5, 0.36, 0.36, BODY)
    p.dot(0.5, 0.36, 0.27, (234, 238, 242))
    turn = p.vary(0, 0.4)
    for i in range(3):
        p.pie(0.5, 0.36, 0.25, 0.25, (i * 120 + turn * 100, i * 120 + turn * 100 + 62), PART)
    p.arc(0.5, 0.36, 0.17, 0.17, (0, 360), 0.012, (150, 156, 164))
    p.dot(0.5, 0.36, 0.075, BODY)
    p.dot(0.5, 0.945, 0.022, (250, 250, 250))


def headphones(p: Pen) -> None:
    """Draw over-ear headphones: band and shells in the body's cloth, pads in the part colour."""
    p.arc(0.5, 0.50, 0.39, 0.46, (180, 360), p.vary(0.09, 0.12), BODY)
    for side in (-1, 1):
        x = 0.5 + side * 0.36
        p.box(x - 0.12, 0.46, x + 0.12, 0.92, BODY, 0.10)
        pad = 0.5 + side * 0.25
        p.box(pad - 0.07, 0.48, pad + 0.07, 0.90, PART, 0.06)
    if p.among(2):
        p.line([(0.14, 0.9), (0.2, 0.97), (0.34, 0.99)], 0.02, RUBBER, smooth=True)


def phonecase(p: Pen) -> None:
    """Draw a phone case from the back, with a camera window and a ring stand."""
    p.box(0.24, 0.01, 0.76, 0.99, BODY, 0.09)
    if p.among(2):
        p.box(0.28, 0.04, 0.55, 0.29, (40, 40, 46), 0.05)
        for x, y in ((0.35, 0.11), (0.47, 0.11), (0.35, 0.21)):
            p.dot(x, y, 0.042, (120, 134, 150))
    else:
        p.box(0.28, 0.04, 0.44, 0.35, (40, 40, 46), 0.05)
        for y in (0.11, 0.195, 0.28):
            p.dot(0.36, y, 0.038, (120, 134, 150))
    p.arc(0.5, p.vary(0.58, 0.66), 0.13, 0.13, (0, 360), 0.055, PART)
    p.line([(0.745, 0.26), (0.745, 0.40)], 0.03, SHADE)


def gamepad(p: Pen) -> None:
    """Draw a game controller with two grips, sticks and buttons in the part colour."""
    p.blob(
        [
            (0.20, 0.26),
            (0.5, 0.30),
            (0.80, 0.26),
            (0.95, 0.46),
            (0.99, 0.80),
            (0.88, 0.86),
            (0.72, 0.64),
            (0.5, 0.62),
            (0.28, 0.64),
            (0.12, 0.86),
            (0.01, 0.80),
            (0.05, 0.46),
        ]
    )
    cross = p.vary(0.032, 0.042)
    p.box(0.19, 0.45 - cross, 0.37, 0.45 + cross, (44, 44, 50), 0.01)
    p.box(0.28 - cross, 0.36, 0.28 + cross, 0.54, (44, 44, 50), 0.01)
    for dx, dy in ((0, -0.075), (0, 0.075), (-0.075, 0), (0.075, 0)):
        p.dot(0.73 + dx, 0.44 + dy, 0.042, PART)
    for x in (0.40, 0.60):
        p.dot(x, 0.56, 0.085, (52, 52, 60))
        p.dot(x, 0.56, 0.045, PART)
    shoulder = p.vary(0.17, 0.215)
    for x in (0.20, 0.80):
        p.box(x - 0.10, shoulder, x + 0.10, 0.26, PART, 0.03)
    p.box(0.45, 0.38, 0.55, 0.44, LIGHT, 0.02)


def camera(p: Pen) -> None:
    """Draw a camera: body, big lens with a coloured ring, viewfinder hump."""
    p.mirrored([(0.38, 0.14), (0.33, 0.26), (0.34, 0.34)], SHADE)
    p.box(0.03, 0.26, 0.97, 0.86, BODY, 0.07)
    p.box(0.03, 0.26, 0.97, 0.36, SHADE, 0.04)
    p.box(0.10, 0.20, 0.24, 0.27, PART, 0.02)
    lens = p.vary(0.24, 0.27)
    p.dot(0.5, 0.58, lens, PART)
    p.dot(0.5, 0.58, lens - 0.055, (40, 40, 46))
    p.dot(0.5, 0.58, lens - 0.12, SCREEN)
    p.dot(0.46, 0.53, 0.04, (190, 214, 236))
    p.box(0.74, 0.40, 0.90, 0.48, (250, 246, 226), 0.02)
    if p.among(2):
        p.dot(0.16, 0.44, 0.03, (230, 60, 50))


def hairdryer(p: Pen) -> None:
    """Draw a hair dryer from the side: barrel, nozzle, handle, back grille."""
    p.polygon([(0.50, 0.50), (0.70, 0.50), (0.74, 0.95), (0.56, 0.97)])
    p.box(0.26, 0.14, 0.86, 0.54, BODY, p.vary(0.12, 0.18))
    p.dot(0.78, 0.34, 0.20, BODY)
    p.dot(0.80, 0.34, 0.12, (70, 70, 78))
    p.polygon([(0.28, 0.17), (0.03, 0.24), (0.03, 0.44), (0.28, 0.51)], PART)
    p.box(0.26, 0.15, 0.31, 0.53, SHADE)
    p.box(0.59, 0.62, 0.65, 0.76, PART, 0.02)
    if p.among(2):
        p.arc(0.72, 0.94, 0.10, 0.05, (40, 180), 0.025, RUBBER)


def perfume(p: Pen) -> None:
    """Draw a perfume bottle: square or round flask, golden neck, cap in the part colour."""
    if p.among(2):
        p.box(0.18, 0.40, 0.82, 0.97, BODY, 0.06)
    else:
        p.oval(0.5, 0.68, 0.36, 0.30, BODY)
    p.box(0.42, 0.30, 0.58, 0.42, (230, 200, 130))
    if p.among(2):
        p.box(0.36, 0.05, 0.64, 0.31, PART, 0.03)
    else:
        p.dot(0.5, 0.18, 0.15, PART)
    p.box(0.37, 0.60, 0.63, 0.80, CREAM, 0.02)
    p.line([(0.42, 0.67), (0.58, 0.67)], 0.014, (120, 100, 80))
    p.line([(0.42, 0.73), (0.58, 0.73)], 0.014, (120, 100, 80))


def lipstick(p: Pen) -> None:
    """Draw a lipstick: case in the body's cloth, stick in the part colour, its cap next to it."""
    p.box(0.12, 0.54, 0.46, 0.98, BODY, 0.02)
    tip = p.vary(0.03, 0.10)
    p.box(0.16, 0.40, 0.42, 0.55, (232, 204, 136))
    p.polygon([(0.19, 0.41), (0.19, 0.16), (0.33, tip), (0.39, tip + 0.06), (0.39, 0.41)], PART)
    if p.among(2):
        p.box(0.56, 0.42, 0.90, 0.98, BODY, 0.03)
        p.box(0.56, 0.90, 0.90, 0.98, (232, 204, 136), 0.02)
    else:
        p.box(0.54, 0.64, 0.99, 0.98, BODY, 0.03)
        p.box(0.54, 0.64, 0.62, 0.98, (232, 204, 136), 0.02)
