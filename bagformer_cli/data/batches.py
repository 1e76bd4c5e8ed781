"""Batches: the tensors that models take, and the images and titles of a split in order.

Here numpy ends and torch begins. A :class:`TextBatch` holds padded titles (``text/padding.py``).
Its indexes say where the tokens of every bag are, so nothing after it needs to know about padding.
Two titles, the first with two bags of 2 and 1 tokens, the second with one bag of 1 token::

    input_ids      [[CLS] 5     6     7  [SEP]]     L = 5 tokens of the longest title
                   [[CLS] 8  [SEP] [PAD] [PAD]]
    flattened        0    1     2     3     4
                     5    6     7     8     9
    token_index    [1, 2,   3,   6]                 the tokens of bag 0, bag 1 and bag 2
    bag_starts     [0,      2,   3]                 where each bag starts in token_index
    bag_offsets    [0,           2, 3]              title 0 owns bags 0 and 1, title 1 owns bag 2
    token_offsets  [0,           3, 4]              title 0 owns entries 0 to 2 of token_index

    F.embedding_bag(token_index, states.flatten(0, 1), bag_starts, mode="sum")  →  3 bag vectors

Training's batches are made in ``train_batches.py``.

**What stays on the host.** Sizes and positions that the host computes with (offsets, which pairs
match) are never moved to a GPU: reading them back would make the host wait for the GPU, and the GPU
for the host. :meth:`Batch.to` moves what is computed with on the GPU: token ids, masks, pixels.

Shapes: B images of a batch, Q titles of a batch, L tokens of the longest title, T content tokens of
all titles, G bags of all titles, S side of an image in pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from functools import cache
from typing import Any, ClassVar, Self, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from bagformer_cli.data.images import CLIP_MEAN, CLIP_STD, resize
from bagformer_cli.data.prefetch import prefetch
from bagformer_cli.data.regions import RegionFile
from bagformer_cli.data.store.split import Split
from bagformer_cli.machine import usable_cores
from bagformer_cli.text.bags import TokenBags
from bagformer_cli.text.padding import pad_titles
from bagformer_cli.transfer import to_device

Item = TypeVar("Item")


@dataclass(frozen=True)
class TextBatch:
    """Titles as the text encoder takes them; the module draws an example.

    Args:
        input_ids: [Q, L] int64, padded to the longest title of the batch.
        attention_mask: [Q, L] bool, False for padding.
        token_index: [T] int64, positions of the bags' tokens in the flattened [Q * L], bag by bag.
        bag_starts: [G] int64, start of each bag in ``token_index``; the offsets of
            ``torch.nn.functional.embedding_bag``.
        bag_offsets: [Q + 1] int64, title i owns bags ``bag_offsets[i]:bag_offsets[i + 1]``. On the
            host.
        token_offsets: [Q + 1] int64, title i owns entries ``token_offsets[i]:token_offsets[i + 1]``
            of ``token_index``. On the host.
    """

    input_ids: Tensor
    attention_mask: Tensor
    token_index: Tensor
    bag_starts: Tensor
    bag_offsets: Tensor
    token_offsets: Tensor

    ON_HOST: ClassVar[tuple[str, ...]] = ("bag_offsets", "token_offsets")

    def __len__(self) -> int:
        return len(self.input_ids)

    @classmethod
    def from_tokens(cls, tokens: TokenBags, pad_id: int) -> TextBatch:
        """Pad packed titles to the longest of them.

        >>> tokens = TokenBags(ids=np.array([1, 5, 6, 7, 2, 1, 8, 2], np.int32),
        ...     token_offsets=np.array([0, 5, 8]), bag_starts=np.array([1, 3, 6]),
        ...     bag_ends=np.array([3, 4, 7]), bag_offsets=np.array([0, 2, 3]))
        >>> batch = TextBatch.from_tokens(tokens, pad_id=0)
        >>> batch.token_index.tolist(), batch.bag_starts.tolist()
        ([1, 2, 3, 6], [0, 2, 3])
        """
        padded = pad_titles(tokens, pad_id)
        bounds = np.append(padded.bag_starts, len(padded.token_index))
        return cls(
            torch.from_numpy(padded.input_ids),
            torch.from_numpy(padded.attention_mask),
            torch.from_numpy(padded.token_index),
            torch.from_numpy(padded.bag_starts),
            torch.tensor(padded.bag_offsets, dtype=torch.int64),
            torch.from_numpy(bounds[padded.bag_offsets]),
        )

    def part(self, first: int, end: int) -> TextBatch:
        """Take titles ``first`` to ``end``; they keep the padding of the whole batch."""
        bags = slice(int(self.bag_offsets[first]), int(self.bag_offsets[end]))
        tokens = slice(int(self.token_offsets[first]), int(self.token_offsets[end]))
        return TextBatch(
            self.input_ids[first:end],
            self.attention_mask[first:end],
            self.token_index[tokens] - first * self.input_ids.shape[1],
            self.bag_starts[bags] - tokens.start,
            self.bag_offsets[first : end + 1] - bags.start,
            self.token_offsets[first : end + 1] - tokens.start,
        )

    def to(self, device: torch.device | str) -> Self:
        """Move what is computed with on a GPU to a device; offsets stay on the host."""
        return _moved(self, device)


@dataclass(frozen=True)
class Masked:
    """Titles with hidden tokens, and seeds for hiding patches, of masked modelling.

    Args:
        input_ids: [Q, L] int64, the titles with hidden tokens replaced.
        targets: [Q, L] bool, the tokens to predict. On the host.
        seeds: [B] int64, random seed of each image; it decides which patches are hidden. On the
            host.
    """

    input_ids: Tensor
    targets: Tensor
    seeds: Tensor

    ON_HOST: ClassVar[tuple[str, ...]] = ("targets", "seeds")

    def to(self, device: torch.device | str) -> Self:
        """Move the token ids to a device."""
        return _moved(self, device)


@dataclass(frozen=True)
class TowerOutputs:
    """Outputs of frozen towers for a batch, from when the split was encoded (``kept_outputs.py``).

    Args:
        texts: [Q, L, W] states of the titles, or [Q, 1, W]; None: encode them.
        images: [B, P, W] states of the images; None: encode them.
        image_mask: [B, P] bool, False for padding; None: every position counts.
    """

    texts: Tensor | None
    images: Tensor | None
    image_mask: Tensor | None = None

    ON_HOST: ClassVar[tuple[str, ...]] = ()

    def to(self, device: torch.device | str) -> Self:
        """Move all tensors to a device."""
        return _moved(self, device)

    def part(self, titles: slice, images: slice) -> TowerOutputs:
        """Take some titles and images of the batch."""
        return TowerOutputs(
            None if self.texts is None else self.texts[titles],
            None if self.images is None else self.images[images],
            None if self.image_mask is None else self.image_mask[images],
        )


@dataclass(frozen=True)
class Batch:
    """B images with their Q titles; Q is B times ``data.titles_per_image``.

    Args:
        text: The titles.
        raw: [B, S, S, 3] uint8 pixels, or [B, R, F + 5] float32 regions; see :meth:`pixels`.
            [B, 0, 0, 3] if nothing reads them, because ``outputs`` has the images.
        own: [Q] int64, index in the batch of each title's own image.
        positives: [Q, B] bool, whether the title and the image match.
        text_groups: [Q] int64, equal for equal titles (see ``positives.py``).
        image_groups: [B] int64, equal for equal images.
        query_ids: [Q] int64.
        image_ids: [B] int64.
        masked: Hidden tokens and patches; None: no masked modelling.
        outputs: Outputs of frozen towers for the titles and images; None: encode them.

    All whole numbers of this class stay on the host.
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
    outputs: TowerOutputs | None = None

    ON_HOST: ClassVar[tuple[str, ...]] = (
        "own",
        "positives",
        "text_groups",
        "image_groups",
        "query_ids",
        "image_ids",
    )

    def __len__(self) -> int:
        return len(self.raw)

    def part(self, first: int, end: int) -> Batch:
        """Take images ``first`` to ``end`` with their titles."""
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
            else Masked(masked.input_ids[titles], masked.targets[titles], masked.seeds[images]),
            None if self.outputs is None else self.outputs.part(titles, images),
        )

    def pixels(self) -> Tensor:
        """Normalise the pixels on the batch's device: [B, 3, S, S] float32; regions stay."""
        return normalised(self.raw) if self.raw.dtype == torch.uint8 else self.raw

    def to(self, device: torch.device | str) -> Self:
        """Move pixels, titles and masked titles to a device, without waiting for a GPU."""
        return _moved(self, device)

    def pinned(self) -> Self:
        """Copy what :meth:`to` moves to page-locked memory, from which a GPU copies it."""
        return _each(self, lambda tensor: tensor.pin_memory())


def image_batches(
    split: Split,
    size: int,
    batch_size: int,
    *,
    exact: bool = True,
    as_original: bool = False,
    workers: int | None = None,
) -> Iterator[Tensor]:
    """Yield all images of a split in order, resized without augmentation, for evaluation.

    Args:
        split: A preprocessed split.
        size: S.
        batch_size: Images in a batch; the last batch may be smaller.
        exact: Decode JPEGs at full size, as the original does. False is faster and changes a pixel
            by about half a grey level; see :func:`~bagformer_cli.data.images.decode`.
        as_original: Decode as the published BagFormer code does; see ``decode``.
        workers: Threads that decode ahead; None: one per usable core, at most 8.

    Yields:
        [b, 3, S, S] float32, normalised.
    """
    hint = None if exact else size

    def make(begin: int) -> Tensor:
        positions = range(begin, min(begin + batch_size, len(split.image_ids)))
        raw = np.empty((len(positions), size, size, 3), np.uint8)
        for row, position in enumerate(positions):
            raw[row] = resize(split.image(position, hint, as_original=as_original), size)
        return normalised(torch.from_numpy(raw))

    if workers is None:
        workers = min(8, usable_cores())
    return prefetch(make, range(0, len(split.image_ids), batch_size), workers)


def region_batches(split: Split, regions: RegionFile, batch_size: int) -> Iterator[Tensor]:
    """Yield the regions of all images of a split in order: [b, R, F + 5]."""
    for begin in range(0, len(split.image_ids), batch_size):
        ids = split.image_ids[begin : begin + batch_size]
        yield torch.from_numpy(regions.batch(ids.tolist()))


def text_batches(tokens: TokenBags, batch_size: int, pad_id: int) -> Iterator[TextBatch]:
    """Yield all titles in order, ``batch_size`` at a time."""
    for begin in range(0, len(tokens), batch_size):
        chosen = np.arange(begin, min(begin + batch_size, len(tokens)))
        yield TextBatch.from_tokens(tokens.select(chosen), pad_id)


def pixels_of(image: Image.Image, size: int) -> Tensor:
    """Resize and normalise one decoded image, as evaluation does: [3, S, S] float32."""
    return normalised(torch.tensor(resize(image, size))[None])[0]


def normalised(raw: Tensor) -> Tensor:
    """Normalise by CLIP's mean and deviation: [B, S, S, 3] uint8 to [B, 3, S, S] float32."""
    scaled = raw.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format)
    mean, deviation = _clip_constants(raw.device)
    return scaled.div_(255).sub_(mean).div_(deviation)


@cache
def _clip_constants(device: torch.device) -> tuple[Tensor, Tensor]:
    """CLIP's mean and deviation, [3, 1, 1]; kept, because a GPU waits for each new copy."""
    return tuple(torch.tensor(v, device=device).view(3, 1, 1) for v in (CLIP_MEAN, CLIP_STD))  # type: ignore[return-value]


def _moved(batch: Item, device: torch.device | str) -> Item:
    return _each(batch, lambda tensor: to_device(tensor, device))


def _each(batch: Item, change: Callable[[Tensor], Tensor]) -> Item:
    """Replace the tensors of a batch that do not stay on the host, and those of its parts."""
    changed: dict[str, Any] = {}
    for field in fields(batch):  # type: ignore[arg-type]
        value = getattr(batch, field.name)
        if isinstance(value, Tensor) and field.name not in batch.ON_HOST:  # type: ignore[attr-defined]
            changed[field.name] = change(value)
        elif isinstance(value, (TextBatch, Masked, TowerOutputs)):
            changed[field.name] = _each(value, change)
    return replace(batch, **changed)  # type: ignore[type-var]
