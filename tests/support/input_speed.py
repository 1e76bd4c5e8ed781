"""Processor time of one core for a training image, by stage.

    python -m tests.support.input_speed

Random JPEGs of quality 85 become 256 x 256 pixels with the default augmentation.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from random import Random

import numpy as np
from PIL import Image

from bagformer_cli.data.augment import augment, random_resized_crop
from bagformer_cli.data.images import decode

SIDES = (400, 800)
SIZE, USEFUL = 256, 418
"""Side of the input; side beyond which a decoded image gains nothing (``TrainPixels``)."""


def jpeg(side: int) -> bytes:
    """Encode smooth random colours with a little noise."""
    random = np.random.default_rng(0)
    coarse = random.integers(0, 255, (side // 16, side // 16, 3), dtype=np.uint8)
    smooth = Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)
    noisy = np.asarray(smooth).astype(np.int16) + random.integers(-8, 8, (side, side, 3))
    out = io.BytesIO()
    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(out, "JPEG", quality=85)
    return out.getvalue()


def milliseconds(work: Callable[[int], object], rounds: int = 80) -> float:
    """Mean processor time of ``work(seed)``."""
    work(0)
    start = time.process_time()
    for seed in range(rounds):
        work(seed)
    return (time.process_time() - start) / rounds * 1e3


def main() -> None:
    """Print a line for each size."""
    for side in SIDES:
        data = jpeg(side)
        image = decode(data, USEFUL)
        decoding = milliseconds(lambda _, data=data: decode(data, USEFUL))  # type: ignore[misc]
        crop = milliseconds(
            lambda seed, image=image: random_resized_crop(image, SIZE, Random(seed), (0.5, 1.0))  # type: ignore[misc]
        )
        whole = milliseconds(lambda seed, image=image: augment(image, SIZE, Random(seed)))  # type: ignore[misc]
        rest = whole - crop
        print(f"{side} x {side}, {len(data) / 1e3:.0f} KB: decode {decoding:.1f} ms,", end=" ")
        print(f"crop {crop:.1f} ms, flip and RandAugment {rest:.1f} ms,", end=" ")
        print(f"{1e3 / (decoding + whole):.0f} pairs/s")


if __name__ == "__main__":
    main()
