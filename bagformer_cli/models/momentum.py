"""The momentum encoder and its queues (ALBEF, section 3; MoCo).

The momentum encoder is a slow copy of the model: after every optimizer step each of its weights
becomes ``m · own + (1 - m) · model's``. Its outputs change slowly, so that vectors of earlier
batches are still useful as candidates: a queue keeps the last C items of each side. A queue of
C = 4 items after batches (a b c) and (d e)::

    after a b c:   [a b c ·]      added = 3
    after d e:     [e b c d]      added = 5, the oldest (a) was overwritten; next position 5 % 4 = 1

Neither class is a ``Module``: no optimizer, checkpoint or ``train()`` of the model may reach them.
Their state is saved with a run's (``training.resume``).

Shapes: C items of a queue, L vectors of an item at most, D dimensions, b new items.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from bagformer_cli.data.batches import Batch
from bagformer_cli.encoders.states import States
from bagformer_cli.models.build import RetrievalModel
from bagformer_cli.models.dual import Encoded
from bagformer_cli.transfer import to_device
from bagformer_cli.vectors.multi_vectors import MultiVectors, offsets_of


class MomentumEncoder:
    """An exponential moving average of a whole model: towers, projections, cross-encoder.

    It runs without dropout. Batch normalisation uses each batch's own statistics, as in training:
    the running statistics would belong to older weights.

    Args:
        model: The model to follow; the momentum encoder starts as its copy.
        rate: m, the share of its previous weights that it keeps at each step, in [0, 1].
    """

    def __init__(self, model: RetrievalModel, rate: float) -> None:
        self.rate = rate
        shared = {id(part): part for part in (model.titles, model.config)}  # never changed
        self.model = copy.deepcopy(model, shared).requires_grad_(False).eval()
        for module in self.model.modules():
            if isinstance(module, _BatchNorm):
                module.train()

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move every weight a step of ``1 - m`` towards the model's."""
        own: list[Tensor] = list(self.model.parameters())
        theirs: list[Tensor] = list(model.parameters())
        torch._foreach_lerp_(own, theirs, 1 - self.rate)

    @torch.no_grad()
    def encode(self, batch: Batch, chunk: int | None = None) -> tuple[Encoded, Encoded]:
        """Encode the titles and the images of a batch.

        Args:
            batch: The batch.
            chunk: Images encoded per forward pass; the result then has no encoder states.
                None: the whole batch at once.
        """
        if chunk is None or chunk >= len(batch):
            return self.model.encode_texts(batch.text), self.model.encode_images(batch.pixels())
        texts, images = [], []
        for first in range(0, len(batch), chunk):
            part = batch.part(first, min(first + chunk, len(batch)))
            texts.append(self.model.encode_texts(part.text, states=False))
            images.append(self.model.encode_images(part.pixels(), states=False))
        return concatenate_vectors(texts), concatenate_vectors(images)


class FeatureQueue:
    """A ring buffer of the last C items of one side and their groups (see ``data.positives``).

    Args:
        size: C. More items are more negatives for the contrastive loss, and more memory.
        length: L; 1 for single-vector scores.
        dim: D.
        device: Device of the vectors; lengths and groups stay on the CPU.
    """

    def __init__(
        self, size: int, length: int, dim: int, device: torch.device | str = "cpu"
    ) -> None:
        self.vectors = torch.zeros(size, length, dim, device=device)
        self.lengths = torch.zeros(size, dtype=torch.int64)
        self.groups = torch.full((size,), -1, dtype=torch.int64)
        self.added = 0

    def __len__(self) -> int:
        """Return the number of items in the queue, at most C."""
        return min(self.added, len(self.vectors))

    def add(self, items: MultiVectors, groups: Tensor) -> None:
        """Add b items and drop the oldest; if b > C, only the last C are added."""
        size, longest = self.vectors.shape[:2]
        skipped = max(0, len(items) - size)
        items, groups = items[skipped:], groups[skipped:]
        slots = (self.added + skipped + torch.arange(len(items))) % size
        # Pad the new items to L: row i of ``used`` marks the vectors that item i has.
        rows = self.vectors.new_zeros(len(items), longest, items.dim)
        used = _used_rows(items.lengths, longest, rows.device)
        rows.view(-1, items.dim).index_copy_(0, used, items.values.detach().to(rows.dtype))
        self.vectors.index_copy_(0, to_device(slots, rows.device), rows)
        self.lengths[slots] = items.lengths
        self.groups[slots] = groups.cpu()
        self.added += skipped + len(items)

    def items(self) -> MultiVectors:
        """Return all items, in the order of the ring's slots."""
        count = len(self)
        lengths, longest = self.lengths[:count], self.vectors.shape[1]
        values = self.vectors[:count].view(-1, self.vectors.shape[2])
        if bool((lengths < longest).any()):  # otherwise the ring itself is packed: no copy
            values = values.index_select(0, _used_rows(lengths, longest, values.device))
        return MultiVectors(values, offsets_of(lengths))

    def state_dict(self) -> dict[str, Tensor]:
        """Return the tensors to save."""
        return {
            "vectors": self.vectors,
            "lengths": self.lengths,
            "groups": self.groups,
            "added": torch.tensor(self.added),
        }

    def load_state_dict(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore :meth:`state_dict`."""
        self.vectors.copy_(tensors["vectors"])
        self.lengths.copy_(tensors["lengths"])
        self.groups.copy_(tensors["groups"])
        self.added = int(tensors["added"])


def _used_rows(lengths: Tensor, longest: int, device: torch.device) -> Tensor:
    """Return the rows of a padded [items * longest] table that hold vectors, without waiting."""
    used = torch.arange(longest) < lengths[:, None]
    return to_device(used.flatten().nonzero().flatten(), device)


@dataclass
class QueuePair:
    """The queues of titles and of images of one scorer."""

    texts: FeatureQueue
    images: FeatureQueue

    def state_dict(self) -> dict[str, Tensor]:
        """Return the tensors to save."""
        return {
            f"{side}.{name}": value
            for side, queue in (("texts", self.texts), ("images", self.images))
            for name, value in queue.state_dict().items()
        }

    def load_state_dict(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore :meth:`state_dict`."""
        for side, queue in (("texts", self.texts), ("images", self.images)):
            queue.load_state_dict(tensors_under(tensors, side))


def tensors_under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Select the tensors named ``prefix.NAME`` and return them as ``NAME``."""
    start = f"{prefix}."
    return {
        name.removeprefix(start): value for name, value in tensors.items() if name.startswith(start)
    }


def concatenate_vectors(parts: Iterable[Encoded], *, features: bool = False) -> Encoded:
    """Concatenate the vectors of encoded chunks and drop the encoder states.

    Args:
        parts: Chunks of one side, in order.
        features: Keep ``Encoded.features``, which masked patches need.
    """
    parts = list(parts)
    late = [part.late for part in parts if part.late is not None]
    kept = [p.features for p in parts if p.features is not None] if features else []
    return Encoded(
        MultiVectors.concatenate([part.vectors for part in parts]),
        torch.cat([part.cls for part in parts]),
        States(parts[0].cls.new_zeros(0)),
        MultiVectors.concatenate(late) if late else None,
        features=States.concatenate(kept) if kept else None,
    )
