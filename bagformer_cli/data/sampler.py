"""Choose the (title, image) pairs of each training batch, epoch after epoch.

The ground truth of a split is a list of M pairs. With one title per image, an epoch shows every
pair once: the pairs are its *samples*. With several titles per image, an epoch shows every image
once, and the images that have a title are its samples::

    pair     0  1  2  3  4        one title per image: samples 0, 1, 2, 3, 4
    query    0  0  1  2  2        two titles per image: samples (images) 0, 1, 3
    image    3  1  3  0  1

    a batch of the samples [3, 0], two titles per image, is the pairs
        [[0, 2],        image 3 with queries 0 and 1
         [3, 3]]        image 0 has one title: it is repeated

Everything follows from (seed, epoch, position): the order of an epoch from (seed, epoch), the
titles of an image from (seed, epoch, image). So a run that starts at batch n sees the batches that
an uninterrupted run sees. Each of several processes takes its part of every global batch: together
they see what one process with a batch of ``batch_size × world_size`` sees.

Shapes: Q queries, M pairs, B samples of a batch, T titles per image, K images of a group.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bagformer_cli.data.store.split import Split
from bagformer_cli.errors import InputError
from bagformer_cli.messages import tr

Integers = NDArray[np.int64]
_NEIGHBOURS = 2  # keeps the random numbers of this draw apart from others


@dataclass(frozen=True, slots=True)
class Sampling:
    """The size and the order of training batches.

    Args:
        batch_size: B, images in a batch of this process.
        seed: Random seed.
        rank: Number of this process.
        world_size: Number of processes that share every batch.
    """

    batch_size: int
    seed: int
    rank: int = 0
    world_size: int = 1


class Sample(NamedTuple):
    """The pairs of one batch.

    Args:
        epoch: Number of the epoch, from 0.
        samples: [B] the samples; with ``epoch`` they seed everything random about the batch.
        pairs: [B, T] pairs of the split; all pairs of a row have the same image.
    """

    epoch: int
    samples: Integers
    pairs: Integers


class PairSampler:
    """Chooses the pairs of each batch of a split; see the module.

    Args:
        split: A preprocessed split with images.
        sampling: Batch size, seed, processes.
        titles_per_image: T.

    Raises:
        InputError: The split has fewer samples than one global batch.
    """

    def __init__(self, split: Split, sampling: Sampling, titles_per_image: int) -> None:
        self.sampling, self.titles_per_image = sampling, titles_per_image
        self.images = split.items  # [M]
        self.queries = np.repeat(np.arange(len(split.query_ids)), np.diff(split.item_offsets))
        # The pairs of image i are by_image[first : first + count] at i's index in ``shown``.
        self._by_image = np.argsort(self.images, kind="stable")
        self._shown, self._first, self._count = np.unique(
            self.images[self._by_image], return_index=True, return_counts=True
        )
        self._samples = self._shown if titles_per_image > 1 else np.arange(len(self.images))
        self._order: tuple[int, Integers] | None = None
        whole = sampling.batch_size * sampling.world_size
        self.per_epoch = len(self._samples) // whole
        if not self.per_epoch:
            raise InputError(
                tr("There are not enough pairs of query and image for one batch."),
                where=tr("{dataset}, split {split}", dataset=split.dataset, split=split.name),
                found=len(self._samples),
                expected=tr("at least {n}", n=whole),
                hint=tr("Try a smaller batch: --set training.batch_size=N"),
            )

    def batch(
        self, number: int, neighbours: Integers | None = None, drawn: int | None = None
    ) -> Sample:
        """Choose the pairs of one batch of this process.

        Args:
            number: Number of the batch, counted over all epochs.
            neighbours: [Q, K - 1] positions of the images nearest to each title, without its own;
                -1 where a title has fewer. The batch is then made of groups of K images: one and
                its neighbours.
            drawn: Number of neighbours that a group has, drawn from the title's in each epoch.
                None: all of them, in their order.
        """
        epoch, step = divmod(number, self.per_epoch)
        size, rank, world_size = (
            self.sampling.batch_size,
            self.sampling.rank,
            self.sampling.world_size,
        )
        begin = (step * world_size + rank) * size
        samples = self._epoch(epoch)[begin : begin + size]
        pairs = self._pairs_of(samples, epoch)
        if neighbours is not None:
            pairs = self._grouped(pairs, neighbours, drawn, epoch)
        return Sample(epoch, samples, pairs)

    def _epoch(self, epoch: int) -> Integers:
        """The order of the samples in an epoch; that of the last epoch used is kept."""
        kept = self._order  # read once: several threads call this
        if kept is None or kept[0] != epoch:
            random = np.random.default_rng([self.sampling.seed % 2**64, epoch])
            kept = self._order = (epoch, random.permutation(self._samples))
        return kept[1]

    def _pairs_of(self, samples: Integers, epoch: int) -> Integers:
        """[B, T] pairs of each sample."""
        count = self.titles_per_image
        if count == 1:
            return samples[:, None]
        rows = np.searchsorted(self._shown, samples)
        pairs = np.empty((len(samples), count), np.int64)
        for row, (first, own, image) in enumerate(
            zip(self._first[rows], self._count[rows], samples, strict=True)
        ):
            random = np.random.default_rng([self.sampling.seed % 2**64, epoch, int(image)])
            # np.resize repeats the titles of an image that has fewer than T.
            pairs[row] = self._by_image[first + np.resize(random.permutation(own), count)]
        return pairs

    def _grouped(
        self, pairs: Integers, neighbours: Integers, drawn: int | None, epoch: int
    ) -> Integers:
        """Replace pairs by neighbours: every K-th pair starts a group, the others make room.

        With K = 3, pairs p0 … p5 become p0 n n p3 n n, where n are pairs of the images nearest to
        the (first) title of the group's first pair. A title that has one neighbour gives
        p0 n p2 p3 n n.
        """
        size = (neighbours.shape[1] if drawn is None else drawn) + 1
        rows = []
        for begin in range(0, len(pairs), size):
            room = min(size, len(pairs) - begin) - 1
            query = self.queries[pairs[begin, 0]]
            near = neighbours[query][neighbours[query] >= 0]
            if drawn is not None:
                random = np.random.default_rng(
                    [self.sampling.seed % 2**64, epoch, int(query), _NEIGHBOURS]
                )
                near = random.permutation(near)
            near = near[:room]
            if self.titles_per_image > 1:
                others = self._pairs_of(near, epoch)
            else:
                others = self._by_image[self._first[np.searchsorted(self._shown, near)]][:, None]
            rest = pairs[begin + 1 + len(near) : begin + 1 + room]
            rows += [pairs[begin : begin + 1], others, rest]
        return np.concatenate(rows)
