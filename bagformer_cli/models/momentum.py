"""The momentum model and its queues: steady targets and many negatives for small batches (ALBEF).

Neither is a module, so that no optimizer, checkpoint or ``train()`` of the model reaches them;
their state is saved and restored with a run's.

Shapes: C items a queue holds, L vectors an item has at most, D dimensions, b new items.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from bagformer_cli.data.batches import Batch
from bagformer_cli.models.build import RetrievalModel
from bagformer_cli.models.dual import Encoded
from bagformer_cli.vectors.multi_vectors import MultiVectors


class MomentumModel:
    """An exponential moving average of a whole model: towers, projections, slow scorer.

    It sees no dropout. Batch normalisation takes each batch's own statistics, as in training: the
    moving ones of weights that lag behind would fit neither.

    Args:
        model: What it follows; equal to it at first.
        rate: m of ``m · own + (1 - m) · model's``, once an optimizer step.
    """

    def __init__(self, model: RetrievalModel, rate: float) -> None:
        self.rate = rate
        shared = {id(part): part for part in (model.titles, model.config)}  # never changed
        self.model = copy.deepcopy(model, shared).requires_grad_(False).eval()
        for module in self.model.modules():
            if isinstance(module, _BatchNorm):
                module.train()

    @torch.no_grad()
    def follow(self, model: nn.Module) -> None:
        """Take one step towards ``model``."""
        own: list[Tensor] = list(self.model.parameters())
        theirs: list[Tensor] = list(model.parameters())
        torch._foreach_lerp_(own, theirs, 1 - self.rate)

    @torch.no_grad()
    def encode(self, batch: Batch, chunk: int | None = None) -> tuple[Encoded, Encoded]:
        """Titles and images of a batch, ``chunk`` images at a time (None: at once).

        In several chunks only vectors are kept, no states.
        """
        if chunk is None or chunk >= len(batch):
            return self.model.encode_texts(batch.text), self.model.encode_images(batch.pixels())
        texts, images = [], []
        for first in range(0, len(batch), chunk):
            part = batch.part(first, min(first + chunk, len(batch)))
            texts.append(self.model.encode_texts(part.text, states=False))
            images.append(self.model.encode_images(part.pixels(), states=False))
        return joined(texts), joined(images)

    def state(self) -> dict[str, Tensor]:
        """What is saved."""
        return self.model.state_dict()

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from :meth:`state`."""
        self.model.load_state_dict(tensors)


class FeatureQueue:
    """The last C items of one side that the momentum model encoded, and the group of each.

    A ring: what is new takes the place of what is oldest, wherever the ring's end falls in a batch.

    Args:
        size: C.
        length: L; 1 for one-vector scores.
        dim: D.
        device: Where the vectors are kept; counts and groups stay on the CPU.
    """

    def __init__(
        self, size: int, length: int, dim: int, device: torch.device | str = "cpu"
    ) -> None:
        self.vectors = torch.zeros(size, length, dim, device=device)
        self.lengths = torch.zeros(size, dtype=torch.int64)
        self.groups = torch.full((size,), -1, dtype=torch.int64)
        self.added = 0

    def __len__(self) -> int:
        """How many items are in it."""
        return min(self.added, len(self.vectors))

    def add(self, items: MultiVectors, groups: Tensor) -> None:
        """Put in ``b`` items; of more than C the last."""
        size, longest = self.vectors.shape[:2]
        skipped = max(0, len(items) - size)
        items, groups = items[skipped:], groups[skipped:]
        places = (self.added + skipped + torch.arange(len(items))) % size
        rows = self.vectors.new_zeros(len(items), longest, items.dim)
        inside = torch.arange(longest) < items.lengths[:, None]
        rows[inside.to(rows.device)] = items.values.detach().to(rows.dtype)
        self.vectors[places.to(rows.device)] = rows
        self.lengths[places] = items.lengths
        self.groups[places] = groups.cpu()
        self.added += skipped + len(items)

    def items(self) -> MultiVectors:
        """All that is in it, in the ring's order."""
        count = len(self)
        lengths = self.lengths[:count]
        inside = torch.arange(self.vectors.shape[1]) < lengths[:, None]
        values = self.vectors[:count][inside.to(self.vectors.device)]
        return MultiVectors(values, torch.cat([lengths.new_zeros(1), lengths.cumsum(0)]))

    def state(self) -> dict[str, Tensor]:
        """What is saved."""
        return {
            "vectors": self.vectors,
            "lengths": self.lengths,
            "groups": self.groups,
            "added": torch.tensor(self.added),
        }

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from :meth:`state`."""
        self.vectors.copy_(tensors["vectors"])
        self.lengths.copy_(tensors["lengths"])
        self.groups.copy_(tensors["groups"])
        self.added = int(tensors["added"])


@dataclass
class Queues:
    """Both sides' queues of one scorer."""

    texts: FeatureQueue
    images: FeatureQueue

    def state(self) -> dict[str, Tensor]:
        """What is saved."""
        return {
            f"{side}.{name}": value
            for side, queue in (("texts", self.texts), ("images", self.images))
            for name, value in queue.state().items()
        }

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from :meth:`state`."""
        for side, queue in (("texts", self.texts), ("images", self.images)):
            queue.load_state(within(tensors, side))


def within(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose name begins with ``prefix.``, under the rest of it."""
    start = f"{prefix}."
    return {
        name.removeprefix(start): value for name, value in tensors.items() if name.startswith(start)
    }


def joined(parts: Iterable[Encoded], *, features_too: bool = False) -> Encoded:
    """One batch of several, vectors alone, or with features; nothing for the slow scorer."""
    parts = list(parts)
    late = [part.late for part in parts if part.late is not None]
    features = [p.features for p in parts if p.features is not None] if features_too else []
    masks = [part.mask for part in parts if part.mask is not None]
    return Encoded(
        MultiVectors.concatenate([part.vectors for part in parts]),
        torch.cat([part.cls for part in parts]),
        parts[0].states.new_zeros(0),
        torch.cat(masks) if features and masks else None,
        MultiVectors.concatenate(late) if late else None,
        features=torch.cat(features) if features else None,
    )
