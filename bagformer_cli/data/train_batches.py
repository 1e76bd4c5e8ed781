"""Training batches: titles, varied images, positives and masks of the pairs that are sampled.

Shapes: B images of a batch, Q titles, S side of an image in pixels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import count

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from bagformer_cli.config import DataConfig
from bagformer_cli.data.augment import augment, random_of_sample
from bagformer_cli.data.batches import Batch, Masked, TextBatch, prefetch
from bagformer_cli.data.images import resize
from bagformer_cli.data.kept_outputs import KeptOutputs
from bagformer_cli.data.masking import TokenMasking
from bagformer_cli.data.positives import Positives
from bagformer_cli.data.regions import RegionFile
from bagformer_cli.data.sampler import PairSampler, Sampling
from bagformer_cli.data.store.split import Split
from bagformer_cli.text.bags import TokenBags

_MASKING = 1  # keeps the random numbers of masking apart from others of the same sample


class TrainBatches:
    """Training batches of images with their titles, epoch after epoch.

    A batch follows from the seed and its number alone (see ``sampler.py``): the augmentation and
    the masking of a sample from (seed, epoch, sample). The last samples of an epoch, too few for a
    batch, are left out.

    Args:
        split: A preprocessed split with images and tokens.
        config: Augmentation, titles per image, threads, memory for decoded images.
        sampling: Batch size, seed, processes.
        image_size: S.
        pad_id: Id of the padding token.
        regions: Regions to use instead of pixels; None: pixels.
        masking: Chooses the tokens to mask; None: no masked modelling.

    Attributes:
        neighbours: [titles of the split, K - 1] positions of the images nearest to each title,
            without its own; -1 where a title has fewer. If set, batches are made of groups of K
            images.
        drawn: Neighbours of a group, drawn from the title's in each epoch; None: all.
        outputs: Outputs of frozen towers; each batch gets its rows. None: all is encoded.
        reads_pixels: False: nothing reads the pixels, so batches have none.
        decoded: The images. Set ``decoded.as_original`` for a model with ``compat``.

    Raises:
        InputError: There are fewer pairs than one global batch takes.
    """

    def __init__(
        self,
        split: Split,
        config: DataConfig,
        sampling: Sampling,
        *,
        image_size: int,
        pad_id: int,
        regions: RegionFile | None = None,
        masking: TokenMasking | None = None,
    ) -> None:
        self.split, self.config, self.sampling = split, config, sampling
        self.image_size, self.pad_id = image_size, pad_id
        self.regions, self.masking = regions, masking
        self.positives = Positives.of(split)
        self.neighbours: NDArray[np.int64] | None = None
        self.drawn: int | None = None
        self.outputs: KeptOutputs | None = None
        self.reads_pixels = True
        self._sampler = PairSampler(split, sampling, config.titles_per_image)
        self.decoded = DecodedImages(split, self._useful_size(), config.cache_mb << 20)

    @property
    def per_epoch(self) -> int:
        """Number of batches in an epoch."""
        return self._sampler.per_epoch

    def iterate(self, first: int = 0) -> Iterator[Batch]:
        """Yield batches without end, from number ``first`` (counted over all epochs)."""
        return prefetch(self.batch, count(first), self.config.workers)

    def batch(self, number: int) -> Batch:
        """Make one batch, by its number counted over all epochs."""
        epoch, samples, pairs = self._sampler.batch(number, self.neighbours, self.drawn)
        queries = self._sampler.queries[pairs.reshape(-1)]
        images = self._sampler.images[pairs[:, 0]]
        text_groups = self.positives.text_groups[queries]
        image_groups = self.positives.image_groups[images]
        tokens = self.split.tokens.select(queries)
        return Batch(
            TextBatch.from_tokens(tokens, self.pad_id),
            torch.from_numpy(self._raw(images, epoch, samples)),
            torch.arange(len(images)).repeat_interleave(pairs.shape[1]),
            torch.from_numpy(self.positives.matrix(text_groups, image_groups)),
            torch.from_numpy(text_groups),
            torch.from_numpy(image_groups),
            torch.from_numpy(self.split.query_ids[queries]),
            torch.from_numpy(self.split.image_ids[images]),
            self._masked(tokens, epoch, samples, pairs.shape[1]),
            None if self.outputs is None else self.outputs.rows(queries, images),
        )

    def _masked(
        self, tokens: TokenBags, epoch: int, samples: NDArray[np.int64], titles_per_image: int
    ) -> Masked | None:
        """Mask the titles by (seed, epoch, sample); None without masked modelling."""
        if self.masking is None:
            return None
        randoms = [
            np.random.default_rng([self.sampling.seed % 2**64, epoch, int(sample), _MASKING])
            for sample in samples
        ]
        seeds = np.array([random.integers(2**63 - 1) for random in randoms])
        shown, targets = self.masking.hide(
            tokens, [random for random in randoms for _ in range(titles_per_image)]
        )
        text = TextBatch.from_tokens(shown, self.pad_id)
        padded = torch.zeros_like(text.attention_mask)
        padded[text.attention_mask] = torch.from_numpy(targets)
        return Masked(text.input_ids, padded, torch.from_numpy(seeds))

    def _raw(
        self, images: NDArray[np.int64], epoch: int, samples: NDArray[np.int64]
    ) -> NDArray[np.uint8] | NDArray[np.float32]:
        """Augmented pixels [B, S, S, 3] uint8, or regions [B, R, F + 5] float32; or nothing."""
        if not self.reads_pixels:
            return np.empty((len(images), 0, 0, 3), np.uint8)
        if self.regions is not None:
            return self.regions.batch(self.split.image_ids[images].tolist())
        raw = np.empty((len(images), self.image_size, self.image_size, 3), np.uint8)
        for row, (sample, image) in enumerate(zip(samples.tolist(), images.tolist(), strict=True)):
            raw[row] = self._pixels(image, epoch, sample)
        return raw

    def _pixels(self, image: int, epoch: int, sample: int) -> NDArray[np.uint8]:
        decoded = self.decoded[image]
        settings = self.config.augment
        if settings is None:
            return resize(decoded, self.image_size)
        return augment(
            decoded,
            self.image_size,
            random_of_sample(self.sampling.seed, epoch, sample),
            crop_scale=settings.crop_scale,
            flip=settings.flip,
            randaugment=settings.randaugment,
        )

    def _useful_size(self) -> int:
        """Side in pixels from which even the smallest crop need not be enlarged."""
        if self.config.augment is None:
            return self.image_size
        least = max(0.1, self.config.augment.crop_scale[0])
        return round(self.image_size / math.sqrt(least * 3 / 4))  # crops have sides of at most 4:3


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
    """

    def __init__(self, split: Split, useful_size: int, budget: int) -> None:
        self._split, self._size = split, useful_size
        self.as_original = False
        self._kept: dict[int, Image.Image] | None = None
        if len(split.image_ids) * useful_size**2 * 3 <= budget:
            self._kept = {}

    def __getitem__(self, position: int) -> Image.Image:
        if self._kept is None:
            return self._decode(position)
        image = self._kept.get(position)
        if image is None:
            image = self._kept[position] = _shrunk(self._decode(position), self._size)
        return image

    def _decode(self, position: int) -> Image.Image:
        return self._split.image(position, self._size, as_original=self.as_original)


def _shrunk(image: Image.Image, side: int) -> Image.Image:
    """Scale an image down so that its shorter side has at most ``side`` pixels."""
    scale = side / min(image.size)
    if scale >= 1:
        return image
    size = (round(image.width * scale), round(image.height * scale))
    return image.resize(size, Image.Resampling.BICUBIC)
