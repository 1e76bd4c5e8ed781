"""Augmentation of training images: random resized crop, flip, RandAugment.

The settings are those of ALBEF, which BagFormer trains with: RandAugment(2, 7) draws two of ten
operations, all equally likely, and applies each with probability one half.

The augmentation of a sample depends on (seed, epoch, sample) alone. The number of workers, the
order of samples and a resumed run do not change it.
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
_APPLY = 0.5  # probability with which ALBEF applies a drawn operation
_REFERENCE = 256  # image side for which ALBEF chose a translation of up to 10 pixels


def random_of_sample(seed: int, epoch: int, sample: int) -> Random:
    """Make the random generator of one sample in one epoch."""
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
    """Augment one image.

    Args:
        image: RGB.
        size: S, side of the result in pixels.
        random: See :func:`random_of_sample`.
        crop_scale: Smallest and largest share of the image's area that a crop keeps.
        flip: Flip half of the images, left to right.
        randaugment: Number of operations and their magnitude (0 to 10); None: no RandAugment.

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
    """Crop a random part with sides between 3:4 and 4:3; resize it to S × S (bicubic).

    If ten draws do not fit into the image, the crop is the largest one in its centre.

    Args:
        image: RGB.
        size: S.
        random: Random generator.
        scale: Smallest and largest share of the image's area.
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
