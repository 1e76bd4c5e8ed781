"""Divide the photographs of ``xmr demo --photos`` into folds, with outputs of frozen towers.

``photographs.py`` imports it. Both towers are frozen, so they encode every photograph and title
once; the outputs are kept in a file. A :class:`Part` is some of the photographs with their titles,
in the form that training and evaluation read.

Shapes: N photographs, Q titles, M answers (pairs of a title and a photograph that it describes).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from bagformer_cli.data.kept_outputs import KeptOutputs
from bagformer_cli.data.store.split import Split
from bagformer_cli.data.store.store import Store
from bagformer_cli.encoders.pooling import pool_grid
from bagformer_cli.encoders.weight_files import load_tensors, save_tensors
from bagformer_cli.models.build import RetrievalModel
from bagformer_cli.text.bags import TokenBags
from bagformer_cli.training.frozen_towers import keep_outputs

Integers = NDArray[np.int64]
Flags = NDArray[np.bool_]
SPLITS = ("train", "valid", "test")
PRODUCTS = "test"  # the product photographs; the other splits have the stamps


@dataclass(frozen=True)
class Photographs:
    """All photographs with their titles.

    Attributes:
        texts: [Q] the titles; equal ones are one title.
        tokens: Their tokens and bags.
        offsets: [Q + 1] title q describes the photographs ``items[offsets[q]:offsets[q + 1]]``.
        items: [M] positions of photographs.
        hashes: [N] hash of each file.
        products: [N] True for a product photograph, False for a stamp.
        outputs: Outputs of the frozen towers for all titles and photographs.
    """

    texts: Sequence[str]
    tokens: TokenBags
    offsets: Integers
    items: Integers
    hashes: Integers
    products: Flags
    outputs: KeptOutputs

    @classmethod
    def of(cls, store: Store, outputs: KeptOutputs) -> Photographs:
        """Join the splits of the dataset, in the order of :data:`SPLITS`."""
        splits = [store.split(name) for name in SPLITS]
        starts = np.cumsum([0, *(len(split.image_ids) for split in splits)])
        answers = np.concatenate([np.diff(split.item_offsets) for split in splits])
        products = [np.full(len(split.image_ids), split.name == PRODUCTS) for split in splits]
        return cls(
            [text for split in splits for text in split.texts],
            TokenBags.concatenate([split.tokens for split in splits]),
            np.concatenate([[0], np.cumsum(answers)]),
            np.concatenate(
                [split.items + start for split, start in zip(splits, starts[:-1], strict=True)]
            ),
            np.concatenate([split.image_hash for split in splits]),
            np.concatenate(products),
            outputs,
        )

    @property
    def answer_titles(self) -> Integers:
        """[M] position of the title of each answer."""
        return np.repeat(np.arange(len(self.texts)), np.diff(self.offsets))

    def groups(self) -> tuple[Integers, Integers]:
        """Number the groups that no fold may divide: photographs linked by shared titles.

        Returns:
            The group of each photograph [N] and of each title [Q].
        """
        titles, photos = len(self.texts), len(self.hashes)
        links = coo_array(
            (np.ones(len(self.items)), (self.answer_titles, self.items + titles)),
            shape=(titles + photos,) * 2,
        )
        found = connected_components(links, directed=False)[1].astype(np.int64)
        return found[titles:], found[:titles]

    def folds(self, count: int, seed: int) -> Integers:
        """Deal the groups of photographs to folds; each fold gets as many of either kind.

        Args:
            count: Number of folds.
            seed: Random seed of the deal.

        Returns:
            [N] the fold of each photograph, from 0.
        """
        groups = self.groups()[0]
        random = np.random.default_rng([seed, count])
        fold = np.empty(groups.max() + 1, np.int64)
        for kind in (self.products, ~self.products):
            members = random.permutation(np.unique(groups[kind]))
            fold[members] = np.arange(len(members)) % count
        return fold[groups]

    def with_bag_means(self) -> Photographs:
        """Return a copy with each token's state divided by the number of tokens of its bag.

        Bag-wise models compute the sum over a bag, which is then the mean of its tokens.
        """
        starts, ends = self.tokens.bag_starts, self.tokens.bag_ends
        scale = np.ones(len(self.tokens.ids), np.float32)
        for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
            scale[start:end] = 1 / max(1, end - start)
        assert self.outputs.titles is not None
        titles = self.outputs.titles * torch.from_numpy(scale)[:, None]
        return replace(self, outputs=replace(self.outputs, titles=titles))


class Part(Split):
    """Some photographs with their titles, in memory, read like a split of a store.

    Args:
        whole: All photographs.
        chosen: [N] True for the photographs of this part.

    Attributes:
        photos: [n] positions of its photographs in ``whole``.
        queries: [q] positions of its titles in ``whole``.
        outputs: Outputs of the frozen towers for this part.
    """

    image_ids: Integers
    image_hash: Integers
    query_ids: Integers
    texts: Sequence[str]  # type: ignore[assignment]
    tokens: TokenBags
    items: Integers

    def __init__(self, whole: Photographs, chosen: Flags) -> None:
        self.name, self.dataset, self.path = "photographs", Path(), Path()
        self.photos = np.flatnonzero(chosen)
        kept = chosen[whole.items]
        self.queries, counts = np.unique(whole.answer_titles[kept], return_counts=True)
        position = np.cumsum(chosen) - 1
        self.image_ids, self.image_hash = self.photos, whole.hashes[chosen]
        self.query_ids = self.queries
        self.texts = [whole.texts[query] for query in self.queries]
        self.tokens = whole.tokens.select(self.queries)
        self.items = position[whole.items[kept]]
        self._offsets = np.concatenate([[0], np.cumsum(counts)])
        self.outputs = _rows(whole, self.photos, self.queries)

    @property
    def item_offsets(self) -> Integers:
        """[q + 1] title i describes ``items[item_offsets[i]:item_offsets[i + 1]]``."""
        return self._offsets


def _rows(whole: Photographs, photos: Integers, queries: Integers) -> KeptOutputs:
    kept, offsets = whole.outputs, whole.tokens.token_offsets
    assert kept.titles is not None
    assert kept.images is not None
    parts = [kept.titles[offsets[query] : offsets[query + 1]] for query in queries]
    lengths = np.diff(offsets)[queries]
    return KeptOutputs(
        torch.cat(parts), np.concatenate([[0], np.cumsum(lengths)]), kept.images[photos]
    )


def frozen_outputs(path: Path, model: RetrievalModel, store: Store, cells: int) -> KeptOutputs:
    """Read the outputs of the frozen towers; compute them first (a CPU minute) if there are none.

    Args:
        path: The file of the outputs.
        model: A model with a late interaction, so that all positions are kept.
        store: The dataset with the splits :data:`SPLITS`.
        cells: Average-pool the image tower's grid to this many cells, a square number. Training
            time and bytes grow in proportion.
    """
    if not path.is_file():
        found = [keep_outputs(model, model.config, store.split(name)) for name in SPLITS]
        titles = [one.titles for one in found if one is not None and one.titles is not None]
        images = [one.images for one in found if one is not None and one.images is not None]
        save_tensors({"titles": torch.cat(titles), "images": torch.cat(images)}, path)
    tensors = load_tensors(path)
    whole, grid = tensors["images"][:, :1], tensors["images"][:, 1:]
    pooled = torch.cat([whole, pool_grid(grid, cells)], dim=1)
    return KeptOutputs(titles=tensors["titles"], images=pooled)
