"""The pixels of training images: decoded, augmented, and made by workers that scale with cores.

Images that fit in memory (``data.cache_mb``) are decoded once; threads then augment them. Images
that do not fit are decoded again in each epoch. Processes do that: Pillow releases Python's lock
while it decodes, but not for the rest of the work on an image, so that threads hold each other back
on many cores. A batch is made in parts, so that all workers work on the batch that is needed next::

    batch 7   │ part 0 │ part 1 │ part 2 │ part 3 │      parts of PART images
    worker      0        1        2        0

The pixels of a sample depend on (seed, epoch, sample) alone: neither the number nor the kind of
workers changes them.

Shapes: B images of a batch, S side of an image in pixels.
"""

from __future__ import annotations

import math
import signal
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bagformer_cli.config import AugmentConfig
from bagformer_cli.data.augment import augment, random_of_sample
from bagformer_cli.data.images import resize
from bagformer_cli.data.store.split import Split
from bagformer_cli.data.workers import end_with_parent
from bagformer_cli.errors import XmrError
from bagformer_cli.messages import tr

PART = 32
"""Images that one worker makes at a time."""


class TrainPixels:
    """Makes the augmented pixels of training images.

    Args:
        split: A split with images.
        augmentation: How images vary; None: they are only resized.
        size: S.
        seed: Random seed.
        cache: Bytes of memory for decoded images.

    Attributes:
        decoded: The images. Set ``decoded.as_original`` for a model with ``compat``.
    """

    def __init__(
        self, split: Split, augmentation: AugmentConfig | None, size: int, seed: int, cache: int
    ) -> None:
        self.augmentation, self.size, self.seed = augmentation, size, seed
        self.decoded = DecodedImages(split, self._useful_size(), cache)

    def make(
        self, images: NDArray[np.int64], epoch: int, samples: NDArray[np.int64]
    ) -> NDArray[np.uint8]:
        """Make the pixels of some samples.

        Args:
            images: [B] positions of the images in the split.
            epoch: The epoch, which with the samples seeds the augmentation.
            samples: [B] the samples that the images belong to.

        Returns:
            [B, S, S, 3] uint8.
        """
        raw = np.empty((len(images), self.size, self.size, 3), np.uint8)
        for row, (image, sample) in enumerate(zip(images.tolist(), samples.tolist(), strict=True)):
            raw[row] = self._one(image, epoch, sample)
        return raw

    def _one(self, image: int, epoch: int, sample: int) -> NDArray[np.uint8]:
        decoded = self.decoded[image]
        settings: AugmentConfig | None = self.augmentation
        if settings is None:
            return resize(decoded, self.size)
        return augment(
            decoded,
            self.size,
            random_of_sample(self.seed, epoch, sample),
            crop_scale=settings.crop_scale,
            flip=settings.flip,
            randaugment=settings.randaugment,
        )

    def _useful_size(self) -> int:
        """Side in pixels from which even the smallest crop need not be enlarged."""
        if self.augmentation is None:
            return self.size
        least = max(0.1, self.augmentation.crop_scale[0])
        return round(self.size / math.sqrt(least * 3 / 4))  # crops have sides of at most 4:3


class DecodedImages:
    """The images of a split, decoded on first access; all are kept in memory if they fit, or none.

    Kept images are scaled down to the useful size, so later epochs cost no decoding and less
    resizing. Whether images are kept depends on the split and the settings alone: a resumed run
    sees the same pixels.

    Args:
        split: A split with images.
        useful_size: Side in pixels beyond which training gains nothing.
        budget: Bytes of memory for pixels.

    Attributes:
        as_original: See :func:`~bagformer_cli.data.images.decode`. Set it before the first access.
        are_kept: Whether the images fit.
    """

    def __init__(self, split: Split, useful_size: int, budget: int) -> None:
        self._split, self._size = split, useful_size
        self.as_original = False
        self.are_kept = len(split.image_ids) * useful_size**2 * 3 <= budget
        self._kept: dict[int, Image.Image] = {}

    def __getitem__(self, position: int) -> Image.Image:
        if not self.are_kept:
            return self._decode(position)
        image = self._kept.get(position)
        if image is None:
            image = self._kept[position] = _shrunk(self._decode(position), self._size)
        return image

    def _decode(self, position: int) -> Image.Image:
        return self._split.image(position, self._size, as_original=self.as_original)


class PixelWorkers:
    """Makes the pixels of a batch with several workers.

    Args:
        pixels: Makes the pixels of one part.
        pool: Threads of this process, or processes of :func:`pixel_workers`; None: no workers.
    """

    def __init__(self, pixels: TrainPixels, pool: Executor | None) -> None:
        self._pixels, self._pool = pixels, pool

    def make(
        self, images: NDArray[np.int64], epoch: int, samples: NDArray[np.int64]
    ) -> NDArray[np.uint8]:
        """Make the pixels of a batch; see :meth:`TrainPixels.make`."""
        if self._pool is None:
            return self._pixels.make(images, epoch, samples)
        work = _in_worker if isinstance(self._pool, ProcessPoolExecutor) else self._pixels.make
        bounds = [slice(begin, begin + PART) for begin in range(0, len(images), PART)]
        try:
            jobs = [self._pool.submit(work, images[b], epoch, samples[b]) for b in bounds]
            parts = [job.result() for job in jobs]
        except BrokenProcessPool as error:
            raise _lost() from error
        return parts[0] if len(parts) == 1 else np.concatenate(parts)


@contextmanager
def pixel_workers(pixels: TrainPixels, count: int) -> Iterator[PixelWorkers]:
    """Start workers that live as long as the block: processes, or threads for images in memory.

    Args:
        pixels: Makes the pixels of one part. Processes get a copy: change nothing afterwards.
        count: Number of workers; 0: the calling thread does the work.
    """
    if not count:
        yield PixelWorkers(pixels, None)
        return
    pool: Executor
    if pixels.decoded.are_kept:
        pool = ThreadPoolExecutor(count, thread_name_prefix="batches-pixels")
    else:
        # spawn: fork would copy the threads and the GPU context of this process
        pool = ProcessPoolExecutor(
            count, mp_context=get_context("spawn"), initializer=_start, initargs=(pixels,)
        )
    try:
        yield PixelWorkers(pixels, pool)
    finally:
        pool.shutdown(cancel_futures=True)


_pixels_of_worker: TrainPixels | None = None


def _start(pixels: TrainPixels) -> None:
    """Prepare a worker process."""
    global _pixels_of_worker
    _pixels_of_worker = pixels
    end_with_parent()
    # Ctrl-C reaches every process of a terminal. The trainer finishes its step and saves; its
    # workers end when it closes the pool, or when it dies.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _in_worker(
    images: NDArray[np.int64], epoch: int, samples: NDArray[np.int64]
) -> NDArray[np.uint8]:
    assert _pixels_of_worker is not None
    return _pixels_of_worker.make(images, epoch, samples)


def _lost() -> XmrError:
    return XmrError(
        tr("A process that decodes images has ended."),
        expected=tr("enough memory for all of them"),
        hint=tr("Try fewer: --set data.workers=2, or none: --set data.workers=0"),
    )


def _shrunk(image: Image.Image, side: int) -> Image.Image:
    """Scale an image down so that its shorter side has at most ``side`` pixels."""
    scale = side / min(image.size)
    if scale >= 1:
        return image
    size = (round(image.width * scale), round(image.height * scale))
    return image.resize(size, Image.Resampling.BICUBIC)
