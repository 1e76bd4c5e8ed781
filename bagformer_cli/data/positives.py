"""Positives: which titles and images match, decided once before training.

Titles that are equal (except for white space and case) are one *text group*; equal image files are
one *image group*. Two groups match if the ground truth pairs any of their members. So a pair that
matches by id, by an equal title or by an equal image is a positive, and no objective takes it for
a negative. A worked example::

    query 0 "red dress"    answered by image 0        text groups   0 → 1, 1 → 1, 2 → 0
    query 1 "Red  dress"   answered by image 1        image groups  0 → 0, 1 → 1, 2 → 0
    query 2 "bag"          answered by image 2        (images 0 and 2 are the same file)

    matching groups  (1, 0), (1, 1), (0, 0)     as keys with 2 image groups: 2, 3, 0 → [0, 2, 3]
    queries × images [[1, 1, 1],                query 0 matches image 1 by its equal title, and
                      [1, 1, 1],                image 2, the same file as image 0
                      [1, 0, 1]]

Keys are sorted, so the matches of a text group are one run of the array, found by binary search.

Shapes: Q queries, N images, M answers (pairs of the ground truth), B and B' members of a batch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bagformer_cli.data.store.split import Split


@dataclass(frozen=True)
class Positives:
    """The matching groups of a split.

    Args:
        text_groups: [Q] group of each query.
        image_groups: [N] group of each image.
        image_group_count: Number of image groups.
        keys: Sorted ``text group × image_group_count + image group`` of every match.
    """

    text_groups: NDArray[np.int64]
    image_groups: NDArray[np.int64]
    image_group_count: int
    keys: NDArray[np.int64]

    @classmethod
    def of(cls, split: Split) -> Positives:
        """Find the positives of a preprocessed split."""
        return cls.build(split.texts, split.image_hash, split.item_offsets, split.items)

    @classmethod
    def build(
        cls,
        texts: Iterable[str],
        image_hash: NDArray[np.int64],
        item_offsets: NDArray[np.int64],
        items: NDArray[np.int64],
    ) -> Positives:
        """Group texts and images, and find the matching groups.

        Args:
            texts: [Q] titles; equal ones may differ in white space and case.
            image_hash: [N] hashes; equal for equal images.
            item_offsets: [Q + 1] query q is answered by ``items[item_offsets[q]:...[q + 1]]``.
            items: [M] positions of images.

        >>> found = Positives.build(["red dress", "Red  dress", "bag"], np.array([7, 8, 7]),
        ...                         np.array([0, 1, 2, 3]), np.array([0, 1, 2]))
        >>> found.matrix(found.text_groups, found.image_groups).astype(int).tolist()[0]
        [1, 1, 1]
        """
        _, text_groups = np.unique([text_hash(text) for text in texts], return_inverse=True)
        distinct, image_groups = np.unique(image_hash, return_inverse=True)
        queries = np.repeat(np.arange(len(item_offsets) - 1), np.diff(item_offsets))
        keys = text_groups[queries] * len(distinct) + image_groups[items]
        return cls(text_groups, image_groups, len(distinct), np.unique(keys))

    def matrix(
        self, text_groups: NDArray[np.int64], image_groups: NDArray[np.int64]
    ) -> NDArray[np.bool_]:
        """Look up which of B texts match which of B' images.

        Costs a sort of the B' images and one step per match, so a queue of many thousand images
        is cheap.

        Args:
            text_groups: [B] groups of texts of the split.
            image_groups: [B'] groups of images of the split.

        Returns:
            [B, B'] bool.
        """
        found = np.zeros((len(text_groups), len(image_groups)), bool)
        # 1. The image groups that match each text: a run of ``keys``.
        first = text_groups * self.image_group_count
        rows, keys = _runs(self.keys, first, first + self.image_group_count - 1)
        groups = self.keys[keys] - first[rows]
        # 2. The images of the batch in each of these groups: a run of the sorted batch.
        order = np.argsort(image_groups, kind="stable")
        match, columns = _runs(image_groups[order], groups, groups)
        found[rows[match], order[columns]] = True
        return found

    def contain(
        self, text_groups: NDArray[np.int64], image_groups: NDArray[np.int64]
    ) -> NDArray[np.bool_]:
        """Tell for pairs of groups, of any shapes that fit each other, whether they match."""
        wanted = text_groups * self.image_group_count + image_groups
        place = np.searchsorted(self.keys, wanted).clip(max=max(0, len(self.keys) - 1))
        if not len(self.keys):
            return np.zeros(wanted.shape, bool)
        found: NDArray[np.bool_] = self.keys[place] == wanted
        return found


def _runs(
    ascending: NDArray[np.int64], lowest: NDArray[np.int64], highest: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Find all (i, j) with ``lowest[i] <= ascending[j] <= highest[i]``; [n] of i, [n] of j.

    >>> owners, indexes = _runs(np.array([2, 5, 5, 9]), np.array([5, 0]), np.array([5, 3]))
    >>> owners.tolist(), indexes.tolist()
    ([0, 0, 1], [1, 2, 0])
    """
    begins = np.searchsorted(ascending, lowest, "left")
    counts = np.searchsorted(ascending, highest, "right") - begins
    owners = np.repeat(np.arange(len(lowest)), counts)
    within = np.arange(len(owners)) - np.repeat(counts.cumsum() - counts, counts)
    return owners, begins[owners] + within


def text_hash(text: str) -> int:
    """Hash a title to 64 bits; white space and case do not matter."""
    plain = " ".join(text.split()).casefold()
    digest = hashlib.blake2b(plain.encode("utf-8"), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)
