"""Which titles and images belong together, known before training.

Equal titles are one *text group*, equal image files one *image group*. Two groups are linked where
the ground truth links any of their members; so in a batch a pair that matches by id, by an equal
title or by an equal image is known to be a match, and no objective takes it for a negative.

Shapes: Q queries, N images, M links, B and B' members of a batch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bagformer_cli.data.store.split import Split


@dataclass(frozen=True)
class Links:
    """The known matches of a split, between groups.

    Args:
        text_groups: [Q] the group of each query.
        image_groups: [N] the group of each image.
        image_group_count: How many image groups there are.
        keys: Sorted ``text group × image_group_count + image group`` of every linked pair.
    """

    text_groups: NDArray[np.int64]
    image_groups: NDArray[np.int64]
    image_group_count: int
    keys: NDArray[np.int64]

    @classmethod
    def of(cls, split: Split) -> Links:
        """The links of a preprocessed split."""
        return cls.build(split.texts, split.image_hash, split.item_offsets, split.items)

    @classmethod
    def build(
        cls,
        texts: Iterable[str],
        image_hash: NDArray[np.int64],
        item_offsets: NDArray[np.int64],
        items: NDArray[np.int64],
    ) -> Links:
        """Group and link.

        Args:
            texts: [Q] titles; they are equal where they differ in white space and case only.
            image_hash: [N] equal for equal images.
            item_offsets: [Q+1] into ``items``.
            items: [M] image positions.
        """
        _, text_groups = np.unique([text_hash(text) for text in texts], return_inverse=True)
        distinct, image_groups = np.unique(image_hash, return_inverse=True)
        queries = np.repeat(np.arange(len(item_offsets) - 1), np.diff(item_offsets))
        keys = text_groups[queries] * len(distinct) + image_groups[items]
        return cls(text_groups, image_groups, len(distinct), np.unique(keys))

    def positives(
        self, text_groups: NDArray[np.int64], image_groups: NDArray[np.int64]
    ) -> NDArray[np.bool_]:
        """[B, B'] bool: True where the text group and the image group are linked.

        The cost is that of sorting B' and of the matches found, so that a queue of many thousands
        may be asked about.
        """
        found = np.zeros((len(text_groups), len(image_groups)), bool)
        first = text_groups * self.image_group_count
        rows, keys = _ranges(self.keys, first, first + self.image_group_count - 1)
        linked = self.keys[keys] - first[rows]
        order = np.argsort(image_groups, kind="stable")
        match, places = _ranges(image_groups[order], linked, linked)
        found[rows[match], order[places]] = True
        return found


def _ranges(
    ascending: NDArray[np.int64], lowest: NDArray[np.int64], highest: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(i, place) of every place whose value lies between ``lowest[i]`` and ``highest[i]``."""
    begins = np.searchsorted(ascending, lowest, "left")
    counts = np.searchsorted(ascending, highest, "right") - begins
    owners = np.repeat(np.arange(len(lowest)), counts)
    within = np.arange(len(owners)) - np.repeat(counts.cumsum() - counts, counts)
    return owners, begins[owners] + within


def text_hash(text: str) -> int:
    """A 64-bit hash of a title that white space and case do not change."""
    plain = " ".join(text.split()).casefold()
    digest = hashlib.blake2b(plain.encode("utf-8"), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)
