"""Training-time variation of images: random resized crop, mirror, RandAugment.

The settings are ALBEF's, which BagFormer trains with: RandAugment(2, 7) draws two of ten
operations with equal chance, and each is carried out with probability one half.

What happens to sample k in epoch e depends on (seed, e, k) alone: neither the number of workers
nor the order of the samples nor a resumed run changes it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from random import Random

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageOps

Operation = Callable[[Image.Image, float, Random], Image.Image]

_RATIO = (3 / 4, 4 / 3)
_GREY = (128, 128, 128)
_APPLY = 0.5  # ALBEF carries out every drawn operation with this probability
_REFERENCE = 256  # pixels a side for which ALBEF's translation of up to 10 pixels was made


def sample_random(seed: int, epoch: int, sample: int) -> Random:
    """The source of chance for one sample in one epoch."""
    return Random((seed << 96) ^ (epoch << 64) ^ sample)


def augment(
    image: Image.Image,
    size: int,
    random: Random,
    *,
    crop_scale: tuple[float, float] = (0.5, 1.0),
    flip: bool = True,
    randaugment: tuple[int, int] | None = (2, 7),
) -> NDArray[np.uint8]:
    """Vary one image.

    Args:
        image: RGB.
        size: S, pixels a side of the result.
        random: From :func:`sample_random`.
        crop_scale: Least and most of the picture's area that is kept.
        flip: Mirror every second image, left to right.
        randaugment: Number of operations and their magnitude (0 to 10), or None.

    Returns:
        [S, S, 3] uint8.
    """
    image = random_resized_crop(image, size, random, crop_scale)
    if flip and random.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if randaugment is not None:
        count, magnitude = randaugment
        for operation in random.choices(OPERATIONS, k=count):
            if random.random() < _APPLY:
                image = operation(image, magnitude / 10, random)
    return np.asarray(image)


def random_resized_crop(
    image: Image.Image, size: int, random: Random, scale: tuple[float, float]
) -> Image.Image:
    """A random part of the picture, between 3:4 and 4:3, brought to S × S (bicubic).

    After ten misses it is the largest part in the middle whose sides keep to that range.
    """
    width, height = image.size
    low, high = math.log(_RATIO[0]), math.log(_RATIO[1])
    for _ in range(10):
        area = width * height * random.uniform(*scale)
        ratio = math.exp(random.uniform(low, high))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            top, left = random.randint(0, height - h), random.randint(0, width - w)
            break
    else:
        w = min(width, max(1, round(height * _RATIO[1])))
        h = min(height, max(1, round(width / _RATIO[0])))
        top, left = (height - h) // 2, (width - w) // 2
    part = (left, top, left + w, top + h)
    return image.resize((size, size), Image.Resampling.BICUBIC, box=part)


def _identity(image: Image.Image, level: float, random: Random) -> Image.Image:
    return image


def _autocontrast(image: Image.Image, level: float, random: Random) -> Image.Image:
    return ImageOps.autocontrast(image)


def _equalize(image: Image.Image, level: float, random: Random) -> Image.Image:
    return ImageOps.equalize(image)


def _brightness(image: Image.Image, level: float, random: Random) -> Image.Image:
    return ImageEnhance.Brightness(image).enhance(0.1 + 1.8 * level)


def _sharpness(image: Image.Image, level: float, random: Random) -> Image.Image:
    return ImageEnhance.Sharpness(image).enhance(0.1 + 1.8 * level)


def _shear_x(image: Image.Image, level: float, random: Random) -> Image.Image:
    return _affine(image, (1, _signed(0.3 * level, random), 0, 0, 1, 0))


def _shear_y(image: Image.Image, level: float, random: Random) -> Image.Image:
    return _affine(image, (1, 0, 0, _signed(0.3 * level, random), 1, 0))


def _translate_x(image: Image.Image, level: float, random: Random) -> Image.Image:
    shift = _signed(10 * level * image.width / _REFERENCE, random)
    return _affine(image, (1, 0, shift, 0, 1, 0))


def _translate_y(image: Image.Image, level: float, random: Random) -> Image.Image:
    shift = _signed(10 * level * image.height / _REFERENCE, random)
    return _affine(image, (1, 0, 0, 0, 1, shift))


def _rotate(image: Image.Image, level: float, random: Random) -> Image.Image:
    angle = _signed(30 * level, random)
    return image.rotate(angle, Image.Resampling.BILINEAR, fillcolor=_GREY)


def _affine(image: Image.Image, matrix: tuple[float, ...]) -> Image.Image:
    return image.transform(
        image.size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR, fillcolor=_GREY
    )


def _signed(value: float, random: Random) -> float:
    return -value if random.random() < 0.5 else value


OPERATIONS: tuple[Operation, ...] = (
    _identity,
    _autocontrast,
    _equalize,
    _brightness,
    _sharpness,
    _shear_x,
    _shear_y,
    _translate_x,
    _translate_y,
    _rotate,
)
