"""Training's batches, epoch after epoch: each follows from (seed, epoch, position) alone.

Shapes: B images of a batch, Q titles, S pixels a side.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from bagformer_cli.config import DataConfig
from bagformer_cli.data.augment import augment, sample_random
from bagformer_cli.data.batches import Batch, Masked, TextBatch, prefetch
from bagformer_cli.data.images import decode, resize
from bagformer_cli.data.masking import TokenMasking
from bagformer_cli.data.positives import Positives
from bagformer_cli.data.regions import RegionFile
from bagformer_cli.data.store.split import Split
from bagformer_cli.errors import InputError
from bagformer_cli.messages import tr
from bagformer_cli.text.bags import TokenBags

_HIDING = 1  # tells this chance of a sample from any other


class TrainBatches:
    """Training batches of images and their titles, epoch after epoch.

    An epoch shows every (title, image) pair once; with ``titles_per_image`` above 1 it shows every
    image once, with so many of its titles.

    Everything follows from (seed, epoch, position): the order of an epoch from (seed, epoch), a
    sample's variation from (seed, epoch, sample). So a run that starts at batch n sees what the
    unbroken run saw. With several ranks, each takes its part of every global batch: together they
    see what one process with a batch of ``batch_size × world_size`` sees. A last batch that
    would not be full is left out.

    ``neighbours``, where set, are [Q, K - 1] positions of the images nearest to each title, without
    its own: a batch is then made of groups of K images, one and its neighbours.

    Args:
        split: A preprocessed split with images and tokens.
        config: Variation, decoding threads, memory for decoded images.
        image_size: S.
        batch_size: B, images in a batch of this rank.
        pad_id: The token that fills up.
        seed: See above.
        regions: What stands for an image's pixels; None: its pixels.
        rank: Which of ``world_size`` processes this is.
        world_size: How many processes share each epoch.
        masking: How tokens are hidden for masked modelling; None: it is not trained.

    Raises:
        InputError: There are fewer pairs than one (global) batch takes.
    """

    def __init__(
        self,
        split: Split,
        config: DataConfig,
        *,
        image_size: int,
        batch_size: int,
        pad_id: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        regions: RegionFile | None = None,
        masking: TokenMasking | None = None,
    ) -> None:
        self.split, self.config, self.regions = split, config, regions
        self.masking = masking
        self.neighbours: NDArray[np.int64] | None = None
        self.image_size, self.batch_size = image_size, batch_size
        self.pad_id, self.seed = pad_id, seed
        self.rank, self.world_size = rank, world_size
        self.positives = Positives.of(split)
        self.items = split.items
        self.queries = np.repeat(np.arange(len(split.query_ids)), np.diff(split.item_offsets))
        self._by_image = np.argsort(self.items, kind="stable")
        self._shown, self._first, self._count = np.unique(
            self.items[self._by_image], return_index=True, return_counts=True
        )
        several = config.titles_per_image > 1
        self._samples = self._shown if several else np.arange(len(self.items))
        self.per_epoch = len(self._samples) // (batch_size * world_size)
        if not self.per_epoch:
            raise InputError(
                tr("There are not enough pairs of a query and an image for one batch."),
                where=split.path,
                found=len(self._samples),
                expected=tr("at least {n}", n=batch_size * world_size),
                hint=tr("Try a smaller batch: --set training.batch_size=N"),
            )
        self._images = TrainImages(split, self._useful_size(), config.cache_mb << 20)

    def __len__(self) -> int:
        return self.per_epoch

    def iterate(self, first: int = 0) -> Iterator[Batch]:
        """Batches without end, from number ``first`` (counted over all epochs) on."""

        def numbers() -> Iterator[int]:
            number = first
            while True:
                yield number
                number += 1

        return prefetch(self.batch, numbers(), self.config.workers)

    def batch(self, number: int) -> Batch:
        """Batch ``number``, counted over all epochs."""
        epoch, step = divmod(number, self.per_epoch)
        size = self.batch_size
        begin = (step * self.world_size + self.rank) * size
        samples = self._order(epoch)[begin : begin + size]
        pairs = self._pairs_of(samples, epoch)
        if self.neighbours is not None:
            pairs = self._grouped(pairs, epoch)
        queries, images = self.queries[pairs.reshape(-1)], self.items[pairs[:, 0]]
        raw = self._raw(images, epoch, samples)
        text_groups = self.positives.text_groups[queries]
        image_groups = self.positives.image_groups[images]
        tokens = self.split.tokens.select(queries)
        return Batch(
            TextBatch.from_tokens(tokens, self.pad_id),
            torch.from_numpy(raw),
            torch.arange(size).repeat_interleave(pairs.shape[1]),
            torch.from_numpy(self.positives.matrix(text_groups, image_groups)),
            torch.from_numpy(text_groups),
            torch.from_numpy(image_groups),
            torch.from_numpy(self.split.query_ids[queries]),
            torch.from_numpy(self.split.image_ids[images]),
            self._masked(tokens, epoch, samples, pairs.shape[1]),
        )

    def _masked(
        self, tokens: TokenBags, epoch: int, samples: NDArray[np.int64], each: int
    ) -> Masked | None:
        """What is hidden of samples with ``each`` titles: by (seed, epoch, sample) alone."""
        if self.masking is None:
            return None
        chances = [
            np.random.default_rng([self.seed % 2**64, epoch, int(sample), _HIDING])
            for sample in samples
        ]
        seeds = np.array([chance.integers(2**63 - 1) for chance in chances])
        shown, chosen = self.masking.hide(tokens, [c for c in chances for _ in range(each)])
        text = TextBatch.from_tokens(shown, self.pad_id)
        places = torch.zeros_like(text.attention_mask)
        places[text.attention_mask] = torch.from_numpy(chosen)
        return Masked(text.input_ids, places, torch.from_numpy(seeds))

    def _raw(
        self, images: NDArray[np.int64], epoch: int, samples: NDArray[np.int64]
    ) -> NDArray[np.uint8] | NDArray[np.float32]:
        """What stands for the batch's images: varied pixels, or regions."""
        if self.regions is not None:
            return self.regions.batch(self.split.image_ids[images].tolist())
        raw = np.empty((len(images), self.image_size, self.image_size, 3), np.uint8)
        for row, (sample, image) in enumerate(zip(samples.tolist(), images.tolist(), strict=True)):
            raw[row] = self._pixels(image, epoch, sample)
        return raw

    def _grouped(self, pairs: NDArray[np.int64], epoch: int) -> NDArray[np.int64]:
        """Groups of images: a pair's own and those nearest to its (first) title.

        Every K-th pair of the batch begins a group; the others make room for its neighbours, each
        with titles of its own. An image that no title names brings nothing and is passed over.
        """
        assert self.neighbours is not None
        each = self.neighbours.shape[1] + 1
        rows = []
        for begin in range(0, len(pairs), each):
            room = min(each, len(pairs) - begin) - 1
            near = self.neighbours[self.queries[pairs[begin, 0]]][:room]
            if self.config.titles_per_image > 1:
                others = self._pairs_of(near, epoch)
            else:
                others = self._by_image[self._first[np.searchsorted(self._shown, near)]][:, None]
            rows += [pairs[begin : begin + 1], others]
        return np.concatenate(rows)

    def _pairs_of(self, samples: NDArray[np.int64], epoch: int) -> NDArray[np.int64]:
        """[B, titles an image] the pairs of each sample; all of a row have the same image."""
        each = self.config.titles_per_image
        if each == 1:
            return samples[:, None]
        rows = np.searchsorted(self._shown, samples)
        pairs = np.empty((len(samples), each), np.int64)
        for row, (first, count, image) in enumerate(
            zip(self._first[rows], self._count[rows], samples, strict=True)
        ):
            random = np.random.default_rng([self.seed % 2**64, epoch, int(image)])
            pairs[row] = self._by_image[first + np.resize(random.permutation(count), each)]
        return pairs

    def _useful_size(self) -> int:
        """Pixels a side from which even the smallest crop need not be enlarged."""
        if self.config.augment is None:
            return self.image_size
        least = max(0.1, self.config.augment.crop_scale[0])
        return round(self.image_size / math.sqrt(least * 3 / 4))

    def _order(self, epoch: int) -> NDArray[np.int64]:
        """[M] the order of the samples (pairs, or images) in an epoch."""
        kept = self.__dict__.get("_last_order")
        if kept is None or kept[0] != epoch:
            random = np.random.default_rng([self.seed % 2**64, epoch])
            kept = self._last_order = (epoch, random.permutation(self._samples))
        order: NDArray[np.int64] = kept[1]
        return order

    def _pixels(self, image: int, epoch: int, sample: int) -> NDArray[np.uint8]:
        picture = self._images[image]
        settings = self.config.augment
        if settings is None:
            return resize(picture, self.image_size)
        return augment(
            picture,
            self.image_size,
            sample_random(self.seed, epoch, sample),
            crop_scale=settings.crop_scale,
            flip=settings.flip,
            randaugment=settings.randaugment,
        )


class TrainImages:
    """Decoded images of a split, all kept in memory where they fit the budget, else none.

    Kept images are scaled down to what training needs of them, so an epoch costs no decoding and
    less resizing; whether they are depends on the split and the settings alone, so a resumed run
    sees the same pixels.

    Args:
        split: Whose images.
        useful_size: Pixels a side beyond which nothing is gained.
        budget: Bytes of memory for pixels.
    """

    def __init__(self, split: Split, useful_size: int, budget: int) -> None:
        self._split, self._size = split, useful_size
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
        where = self._split.image_name(position)
        return decode(self._split.image_bytes(position), self._size, where)


def _shrunk(image: Image.Image, side: int) -> Image.Image:
    """The image with a shorter side of at most ``side`` pixels."""
    scale = side / min(image.size)
    if scale >= 1:
        return image
    size = (round(image.width * scale), round(image.height * scale))
    return image.resize(size, Image.Resampling.BICUBIC)
