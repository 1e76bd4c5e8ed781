"""Batches: what models take (torch from here on), and a split as evaluation sees it, in order.

Training's batches are made in :mod:`.epochs`. Shapes: B pairs of a batch, L tokens of its longest
title, T content tokens of the batch, G its bags, S pixels a side.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from typing import Self, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from bagformer_cli.data.images import CLIP_MEAN, CLIP_STD, decode, resize
from bagformer_cli.data.regions import RegionFile
from bagformer_cli.data.store.split import Split
from bagformer_cli.text.bags import TokenBags

Item = TypeVar("Item")
Made = TypeVar("Made")


@dataclass(frozen=True)
class TextBatch:
    """Titles as the text encoder takes them.

    Args:
        input_ids: [B, L] int64, padded to the batch's longest title.
        attention_mask: [B, L] bool, True keeps.
        token_index: [T] int64, positions in the flattened [B * L] of the bags' tokens, bag by bag.
        bag_starts: [G] int64, where each bag begins in ``token_index``: ``embedding_bag``'s
            offsets.
        bag_offsets: [B + 1] int64, title i owns bags ``bag_offsets[i]:bag_offsets[i + 1]``.
    """

    input_ids: Tensor
    attention_mask: Tensor
    token_index: Tensor
    bag_starts: Tensor
    bag_offsets: Tensor

    def __len__(self) -> int:
        return len(self.input_ids)

    @classmethod
    def from_tokens(cls, tokens: TokenBags, pad_id: int) -> TextBatch:
        """Pad packed titles to the longest of them."""
        count = len(tokens)
        lengths = np.diff(tokens.token_offsets)
        longest = int(lengths.max(initial=0))
        mask = np.arange(longest) < lengths[:, None]
        ids = np.full((count, longest), pad_id, np.int64)
        ids[mask] = tokens.ids
        positions = np.flatnonzero(mask)  # [T'] of every token, special ones too
        sizes = tokens.bag_ends - tokens.bag_starts
        starts = np.zeros(len(sizes) + 1, np.int64)
        np.cumsum(sizes, out=starts[1:])
        within = np.arange(starts[-1]) - np.repeat(starts[:-1], sizes)
        index = positions[np.repeat(tokens.bag_starts, sizes) + within]
        return cls(
            torch.from_numpy(ids),
            torch.from_numpy(mask),
            torch.from_numpy(index),
            torch.from_numpy(starts[:-1].copy()),
            torch.tensor(tokens.bag_offsets, dtype=torch.int64),
        )

    def part(self, first: int, end: int) -> TextBatch:
        """Titles ``first`` to ``end``, padded as the whole is."""
        bags = slice(int(self.bag_offsets[first]), int(self.bag_offsets[end]))
        ends = torch.cat([self.bag_starts, self.bag_starts.new_tensor([len(self.token_index)])])
        tokens = slice(int(ends[bags.start]), int(ends[bags.stop]))
        return TextBatch(
            self.input_ids[first:end],
            self.attention_mask[first:end],
            self.token_index[tokens] - first * self.input_ids.shape[1],
            self.bag_starts[bags] - tokens.start,
            self.bag_offsets[first : end + 1] - bags.start,
        )

    def to(self, device: torch.device | str) -> Self:
        """The same on another device."""
        return _to(self, device)


@dataclass(frozen=True)
class Masked:
    """What masked modelling hides of a batch.

    Args:
        input_ids: [Q, L] the titles as they are shown.
        chosen: [Q, L] bool, which tokens must be told.
        seeds: [B] int64, each sample's chance: what of its image is hidden.
    """

    input_ids: Tensor
    chosen: Tensor
    seeds: Tensor

    def to(self, device: torch.device | str) -> Self:
        """The same on another device."""
        return _to(self, device)


@dataclass(frozen=True)
class Batch:
    """B images with their titles, and which of all Q × B pairs belong together.

    Args:
        text: [Q] titles: B of them, or ``titles_per_image`` times B.
        raw: [B, S, S, 3] uint8, the images, or float32 regions; see :meth:`pixels`.
        own: [Q] int64, the place of each title's own image.
        positives: [Q, B] bool, title by image.
        text_groups: [Q] int64, equal for equal titles.
        image_groups: [B] int64, equal for equal images.
        query_ids: [Q] int64.
        image_ids: [B] int64.
        masked: What masked modelling hides, where it is trained.
    """

    text: TextBatch
    raw: Tensor
    own: Tensor
    positives: Tensor
    text_groups: Tensor
    image_groups: Tensor
    query_ids: Tensor
    image_ids: Tensor
    masked: Masked | None = None

    def __len__(self) -> int:
        return len(self.raw)

    def part(self, first: int, end: int) -> Batch:
        """Images ``first`` to ``end`` with their titles."""
        each = len(self.own) // len(self)
        titles, images = slice(first * each, end * each), slice(first, end)
        masked = self.masked
        return Batch(
            self.text.part(titles.start, titles.stop),
            self.raw[images],
            self.own[titles] - first,
            self.positives[titles, images],
            self.text_groups[titles],
            self.image_groups[images],
            self.query_ids[titles],
            self.image_ids[images],
            None
            if masked is None
            else Masked(masked.input_ids[titles], masked.chosen[titles], masked.seeds[images]),
        )

    def pixels(self) -> Tensor:
        """[B, 3, S, S] float32, normalised on the batch's device; regions as they are."""
        return normalised(self.raw) if self.raw.dtype == torch.uint8 else self.raw

    def to(self, device: torch.device | str) -> Self:
        """The same on another device."""
        return _to(self, device)


def image_batches(
    split: Split,
    size: int,
    batch_size: int,
    *,
    exact: bool = True,
    workers: int | None = None,
) -> Iterator[Tensor]:
    """All images of a split in its order, as evaluation sees them.

    Args:
        split: A preprocessed split.
        size: S.
        batch_size: Images at a time; the last batch may be smaller.
        exact: Decode JPEGs in full, as the original does.
        workers: Threads that decode ahead; None: one a CPU core, at most 8.

    Yields:
        [b, 3, S, S] float32, normalised.
    """
    hint = None if exact else size

    def make(begin: int) -> Tensor:
        positions = range(begin, min(begin + batch_size, len(split.image_ids)))
        raw = np.empty((len(positions), size, size, 3), np.uint8)
        for row, position in enumerate(positions):
            where = split.image_name(position)
            raw[row] = resize(decode(split.image_bytes(position), hint, where), size)
        return normalised(torch.from_numpy(raw))

    if workers is None:
        workers = min(8, os.cpu_count() or 1)
    return prefetch(make, range(0, len(split.image_ids), batch_size), workers)


def region_batches(split: Split, regions: RegionFile, batch_size: int) -> Iterator[Tensor]:
    """All images of a split in its order as their regions, [b, R, F + 5]."""
    for begin in range(0, len(split.image_ids), batch_size):
        ids = split.image_ids[begin : begin + batch_size]
        yield torch.from_numpy(regions.batch(ids.tolist()))


def text_batches(tokens: TokenBags, batch_size: int, pad_id: int) -> Iterator[TextBatch]:
    """All titles in order, ``batch_size`` at a time."""
    for begin in range(0, len(tokens), batch_size):
        chosen = np.arange(begin, min(begin + batch_size, len(tokens)))
        yield TextBatch.from_tokens(tokens.select(chosen), pad_id)


def pixels_of(image: Image.Image, size: int) -> Tensor:
    """One decoded image as evaluation sees it: [3, S, S] float32."""
    return normalised(torch.tensor(resize(image, size))[None])[0]


def normalised(raw: Tensor) -> Tensor:
    """[B, S, S, 3] uint8 to [B, 3, S, S] float32 with CLIP's mean and standard deviation."""
    scaled = raw.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format)
    mean = torch.tensor(CLIP_MEAN, device=raw.device).view(3, 1, 1)
    deviation = torch.tensor(CLIP_STD, device=raw.device).view(3, 1, 1)
    return scaled.div_(255).sub_(mean).div_(deviation)


def _to(batch: Item, device: torch.device | str) -> Item:
    values = {field.name: getattr(batch, field.name) for field in fields(batch)}  # type: ignore[arg-type]
    moved = {name: value.to(device) for name, value in values.items() if value is not None}
    return replace(batch, **moved)  # type: ignore[type-var]


def prefetch(make: Callable[[Item], Made], items: Iterable[Item], workers: int) -> Iterator[Made]:
    """``make`` of each item, in order, some ahead by threads (Pillow decodes without the GIL)."""
    if workers < 1:
        yield from map(make, items)
        return
    queue: deque[Future[Made]] = deque()
    source = iter(items)
    with ThreadPoolExecutor(workers, thread_name_prefix="batches") as pool:
        try:
            for item in source:
                queue.append(pool.submit(make, item))
                if len(queue) > workers + 1:
                    yield queue.popleft().result()
            while queue:
                yield queue.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
