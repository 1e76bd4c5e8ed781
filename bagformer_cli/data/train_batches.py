"""Training batches: titles, varied images, positives and masks of the pairs that are sampled.

Shapes: B images of a batch, Q titles, S side of an image in pixels.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from functools import partial
from itertools import count

import numpy as np
import torch
from numpy.typing import NDArray

from bagformer_cli.config import DataConfig
from bagformer_cli.data.batches import Batch, Masked, TextBatch
from bagformer_cli.data.kept_outputs import KeptOutputs
from bagformer_cli.data.masking import TokenMasking
from bagformer_cli.data.positives import Positives
from bagformer_cli.data.prefetch import prefetch
from bagformer_cli.data.regions import RegionFile
from bagformer_cli.data.sampler import PairSampler, Sampling
from bagformer_cli.data.store.split import Split
from bagformer_cli.data.train_pixels import PART, PixelWorkers, TrainPixels, pixel_workers
from bagformer_cli.machine import usable_cores
from bagformer_cli.text.bags import TokenBags

AHEAD_BYTES = 2 << 30
"""Bytes of pixels of the batches that exist at the same time, unless two need more."""
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
        pixels: Makes the pixels. Set ``pixels.decoded.as_original`` for a model with ``compat``.

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
        cache = config.cache_mb << 20
        self.pixels = TrainPixels(split, config.augment, image_size, sampling.seed, cache)

    @property
    def per_epoch(self) -> int:
        """Number of batches in an epoch."""
        return self._sampler.per_epoch

    def iterate(self, first: int = 0, *, pinned: bool = False) -> Iterator[Batch]:
        """Yield batches without end.

        Args:
            first: Number of the first one, counted over all epochs.
            pinned: Make them in page-locked memory, from which a GPU copies without waiting.
        """
        threads = min(self.workers, self._together())
        with pixel_workers(self.pixels, self.workers) as workers:
            make = partial(self._batch, workers=workers, pinned=pinned)
            yield from prefetch(make, count(first), threads, min(threads + 2, self._fitting()))

    def batch(self, number: int) -> Batch:
        """Make one batch, by its number counted over all epochs, in this thread."""
        return self._batch(number, PixelWorkers(self.pixels, None))

    @property
    def workers(self) -> int:
        """Number of workers: ``data.workers``, or this process's share of the cores."""
        wanted = self.config.workers
        if wanted is not None:
            return wanted
        return max(1, usable_cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))

    def _together(self) -> int:
        """Batches that are made at the same time: enough parts for all workers."""
        parts = math.ceil(self.sampling.batch_size / PART)
        return min(math.ceil(self.workers / parts), self._fitting() - 1)

    def _fitting(self) -> int:
        """Batches that may exist at the same time; 2: one is made while one is trained on."""
        return max(2, AHEAD_BYTES // (self.sampling.batch_size * self.image_size**2 * 3))

    def _batch(self, number: int, workers: PixelWorkers, pinned: bool = False) -> Batch:
        epoch, samples, pairs = self._sampler.batch(number, self.neighbours, self.drawn)
        queries = self._sampler.queries[pairs.reshape(-1)]
        images = self._sampler.images[pairs[:, 0]]
        text_groups = self.positives.text_groups[queries]
        image_groups = self.positives.image_groups[images]
        tokens = self.split.tokens.select(queries)
        batch = Batch(
            TextBatch.from_tokens(tokens, self.pad_id),
            torch.from_numpy(self._raw(images, epoch, samples, workers)),
            torch.arange(len(images)).repeat_interleave(pairs.shape[1]),
            torch.from_numpy(self.positives.matrix(text_groups, image_groups)),
            torch.from_numpy(text_groups),
            torch.from_numpy(image_groups),
            torch.from_numpy(self.split.query_ids[queries]),
            torch.from_numpy(self.split.image_ids[images]),
            self._masked(tokens, epoch, samples, pairs.shape[1]),
            None if self.outputs is None else self.outputs.rows(queries, images),
        )
        return batch.pinned() if pinned else batch

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
        self,
        images: NDArray[np.int64],
        epoch: int,
        samples: NDArray[np.int64],
        workers: PixelWorkers,
    ) -> NDArray[np.uint8] | NDArray[np.float32]:
        """Augmented pixels [B, S, S, 3] uint8, or regions [B, R, F + 5] float32; or nothing."""
        if not self.reads_pixels:
            return np.empty((len(images), 0, 0, 3), np.uint8)
        if self.regions is not None:
            return self.regions.batch(self.split.image_ids[images].tolist())
        return workers.make(images, epoch, samples)
