"""``MultiVectors``: what every model here turns titles and images into.

Every item (a title or an image) has a few vectors. They are packed into one matrix, item after
item; ``offsets`` says where each item begins::

    item          0         1      2 (none)   3
    offsets   0 ─────── 3 ──── 5 ──── 5 ────────── 9
    values    [ v v v | v v |       | v v v v ]        [N, D]

Nothing is padded: the other items of a batch change neither the vectors nor the scores of an item.

Shapes: n items, N vectors in total, D dimensions; residual codes are [N, W] bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from bagformer_cli.transfer import to_device
from bagformer_cli.vectors.arrays import Vectors
from bagformer_cli.vectors.residual_codes import Codebook
from bagformer_cli.vectors.stored_arrays import RESIDUAL4


def offsets_of(lengths: Tensor) -> Tensor:
    """Return the offsets [n+1] int64 of consecutive items with these lengths [n].

    Example:
        >>> offsets_of(torch.tensor([3, 2, 0, 4]))
        tensor([0, 3, 5, 5, 9])
    """
    offsets = torch.zeros(len(lengths) + 1, dtype=torch.int64)
    torch.cumsum(lengths, 0, out=offsets[1:])
    return offsets


class MultiVectors:
    """Packed vectors of n items: item ``i`` owns ``values[offsets[i]:offsets[i+1]]``.

    An item may have no vectors; it then scores 0 with everything. The offsets stay on the CPU
    wherever ``values`` is: sizes are known without waiting for a GPU.

    Args:
        values: [N, D] floating point, or int8 with ``scales``, or uint8 residual codes [N, W] with
            ``codebook``.
        offsets: [n+1] int64, from 0 to N, not decreasing. Moved to the CPU.
        scales: [n] float32, for int8 only: item ``i`` stands for ``values * scales[i]``. One scale
            per item, not per vector: the largest dot product is then the largest integer product.
        codebook: Decodes residual codes; for uint8 only.

    Raises:
        ValueError: The offsets do not fit ``values``, or type, scales and codebook do not fit each
            other.

    Example:
        >>> items = MultiVectors(torch.randn(5, 16), torch.tensor([0, 3, 5]))
        >>> items
        MultiVectors(items=2, vectors=5, dim=16, dtype=float32, device=cpu)
        >>> items.lengths
        tensor([3, 2])
    """

    __slots__ = ("_lengths", "codebook", "offsets", "scales", "values")

    def __init__(
        self,
        values: Tensor,
        offsets: Tensor,
        scales: Tensor | None = None,
        codebook: Codebook | None = None,
    ) -> None:
        if values.ndim != 2:
            raise ValueError(f"values must be a matrix [N, D], found {list(values.shape)}")
        offsets = offsets.detach().to(device="cpu", dtype=torch.int64)
        if offsets.ndim != 1 or len(offsets) == 0:
            raise ValueError(f"offsets must be [n + 1], found {list(offsets.shape)}")
        lengths = offsets.diff()
        ends = int(offsets[0]), int(offsets[-1])
        if ends != (0, len(values)) or (len(lengths) and int(lengths.min()) < 0):
            raise ValueError(
                f"offsets must not decrease and go from 0 to {len(values)}, the number of vectors; "
                f"found {ends[0]} … {ends[1]}"
            )
        if (values.dtype == torch.int8) != (scales is not None):
            raise ValueError(
                "int8 vectors need one scale per item and other types none; found "
                f"{values.dtype} {'without' if scales is None else 'with'} scales"
            )
        if codebook is not None:
            if values.dtype != torch.uint8 or values.shape[1] != codebook.width:
                raise ValueError(
                    f"residual codes must be uint8 with {codebook.width} bytes per vector "
                    f"(codebook.width), found {values.dtype} with {values.shape[1]}"
                )
        elif values.dtype != torch.int8 and not values.is_floating_point():
            raise ValueError(
                "values must be floating point or int8, or residual codes with a codebook; found "
                f"{values.dtype}"
            )
        if scales is not None:
            if scales.shape != lengths.shape:
                raise ValueError(
                    f"scales must be one per item, {list(lengths.shape)}; "
                    f"found {list(scales.shape)}"
                )
            scales = scales.detach().to(device=values.device, dtype=torch.float32)
        self.values = values
        self.offsets = offsets
        self.scales = scales
        self.codebook = codebook
        self._lengths = lengths

    @classmethod
    def from_list(cls, items: Sequence[Tensor]) -> MultiVectors:
        """Pack one tensor [n_i, D] per item. Gradients flow through.

        Raises:
            ValueError: There is no item (D is then unknown), or D differs.
        """
        if not items:
            raise ValueError("from_list needs at least one item: D is unknown without one")
        if any(item.ndim != 2 or item.shape[1] != items[0].shape[-1] for item in items):
            shapes = sorted({tuple(item.shape) for item in items})[:4]
            raise ValueError(f"every item must be a matrix [n, D] with the same D, found {shapes}")
        return cls(torch.cat(list(items)), offsets_of(torch.tensor([len(item) for item in items])))

    @classmethod
    def from_dense(cls, values: Tensor, mask: Tensor | None = None) -> MultiVectors:
        """Pack padded items.

        Args:
            values: [n, L, D].
            mask: [n, L] bool, False for padding; None: every item has L vectors, and contiguous
                ``values`` are not copied.
        """
        if mask is not None:
            return cls(values[mask], offsets_of(mask.sum(dim=1).cpu()))
        n, length, dim = values.shape
        return cls(values.reshape(n * length, dim), torch.arange(n + 1) * length)

    @classmethod
    def from_arrays(cls, vectors: Vectors) -> MultiVectors:
        """Take items of numpy arrays; copies nothing."""
        scales = None if vectors.scales is None else torch.from_numpy(vectors.scales)
        return cls(torch.from_numpy(vectors.values), torch.from_numpy(vectors.offsets), scales)

    def arrays(self) -> Vectors:
        """Return the items as float32 numpy arrays, on the CPU."""
        items = self.to("cpu", torch.float32)
        return Vectors(items.values.detach().numpy(), items.offsets.numpy())

    def to_list(self) -> list[Tensor]:
        """Return a view [n_i, D] per item, as stored: int8 without its scale, codes as codes."""
        return list(torch.split(self.values, self._lengths.tolist()))

    def __len__(self) -> int:
        """Count the items."""
        return len(self._lengths)

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self.to_list())

    def __getitem__(self, which: int | slice) -> MultiVectors:
        """Return one item or a range of items; a contiguous range is a view."""
        if isinstance(which, int):
            if not -len(self) <= which < len(self):
                raise IndexError(which)
            which %= len(self)
            which = slice(which, which + 1)
        start, stop, step = which.indices(len(self))
        if step != 1:
            return self.select(torch.arange(start, stop, step))
        stop = max(start, stop)
        if start == 0 and stop == len(self):
            return self
        offsets = self.offsets[start : stop + 1]
        first, last = int(offsets[0]), int(offsets[-1])
        scales = None if self.scales is None else self.scales[start:stop]
        return MultiVectors(self.values[first:last], offsets - first, scales, self.codebook)

    def select(self, indices: Tensor | Sequence[int]) -> MultiVectors:
        """Copy the items at ``indices`` (int64 [m], repeats allowed), in that order."""
        indices = torch.as_tensor(indices, dtype=torch.int64, device="cpu")
        lengths = self._lengths[indices]
        offsets = offsets_of(lengths)
        # A vector of the result comes from its item's old start plus its position in the item.
        shift = self.offsets[indices] - offsets[:-1]
        rows = torch.arange(int(offsets[-1])) + shift.repeat_interleave(lengths)
        scales = None if self.scales is None else self.scales[indices.to(self.scales.device)]
        return MultiVectors(self._take(rows), offsets, scales, self.codebook)

    def check_positions(self, positions: Tensor) -> Tensor:
        """Return ``positions`` [m] on the CPU after checking that they are positions of items.

        Raises:
            ValueError: They are not int64, not one-dimensional or out of range.
        """
        right = positions.dtype == torch.int64 and positions.ndim == 1
        positions = positions.cpu()
        if right and len(positions):
            right = int(positions.min()) >= 0 and int(positions.max()) < len(self)
        if not right:
            raise ValueError(
                f"positions must be int64 [n] from 0 to {len(self) - 1}, found "
                f"{positions.dtype} {list(positions.shape)}"
            )
        return positions

    def truncate(self, count: int) -> MultiVectors:
        """Keep the first ``count`` vectors of each item."""
        lengths = self._lengths.clamp_max(count)
        offsets = offsets_of(lengths)
        # Row of a kept vector = its item's old start + its position inside the item.
        shift = self.offsets[:-1] - offsets[:-1]
        rows = torch.arange(int(offsets[-1])) + shift.repeat_interleave(lengths)
        return MultiVectors(self._take(rows), offsets, self.scales, self.codebook)

    @staticmethod
    def join(parts: Sequence[MultiVectors]) -> MultiVectors:
        """Join floating items side by side: item i gets its vectors of each part, in turn.

        >>> ones = MultiVectors(torch.ones(3, 1), torch.tensor([0, 1, 3]))
        >>> zeros = MultiVectors(torch.zeros(2, 1), torch.tensor([0, 1, 2]))
        >>> [item.flatten().tolist() for item in MultiVectors.join([ones, zeros])]
        [[1.0, 0.0], [1.0, 1.0, 0.0]]
        """
        lengths = torch.stack([part.lengths for part in parts])  # [parts, n]
        offsets = offsets_of(lengths.sum(dim=0))
        # starts[p, i]: the first row of the result that holds a vector of part p's item i.
        starts = offsets[:-1] + lengths.cumsum(dim=0) - lengths
        old = lengths.cumsum(dim=1) - lengths
        rows = [
            torch.arange(int(own.sum())) + (start - before).repeat_interleave(own)
            for start, before, own in zip(starts, old, lengths, strict=True)
        ]
        order = torch.cat(rows).argsort()
        values = torch.cat([part.values for part in parts])
        return MultiVectors(values.index_select(0, to_device(order, values.device)), offsets)

    @staticmethod
    def concatenate(parts: Sequence[MultiVectors]) -> MultiVectors:
        """Join parts of the same type, dimension and codebook, item after item."""
        if not parts:
            raise ValueError("concatenate needs at least one part: D is unknown without one")
        offsets = offsets_of(torch.cat([part.lengths for part in parts]))
        scales = [part.scales for part in parts if part.scales is not None]
        return MultiVectors(
            torch.cat([part.values for part in parts]),
            offsets,
            torch.cat(scales) if scales else None,
            parts[0].codebook,
        )

    def to(
        self, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> MultiVectors:
        """Convert to a device or a type; to int8 by :meth:`quantize`.

        Residual codes are decoded, unless ``dtype`` is uint8 or None. :meth:`code` encodes.
        """
        if dtype == torch.int8:
            return self.quantize().to(device)
        values, scales, codebook = self.values, self.scales, self.codebook
        if dtype == torch.uint8 or (codebook is not None and dtype is None):
            if codebook is None:
                raise ValueError("uint8 is for residual codes; encode with code(codebook) instead")
            return MultiVectors(values.to(device=device), self.offsets, None, codebook)
        if codebook is not None:
            values = codebook.decode(values)
        if scales is not None and dtype is not None:
            values = values.to(dtype) * self._per_vector(scales).to(dtype)
            scales = None
        values = values.to(device=device, dtype=dtype)
        return MultiVectors(values, self.offsets, scales)

    def quantize(self) -> MultiVectors:
        """Convert to int8 with one symmetric scale per item: its largest magnitude becomes 127."""
        if self.scales is not None:
            return self
        if self.codebook is not None:
            return self.to(dtype=torch.float32).quantize()
        largest = torch.zeros(len(self), device=self.device)
        with torch.no_grad():
            rows = self.values.abs().amax(1).float() if self.dim else self.values.new_zeros(0)
            largest.scatter_reduce_(0, self._item_of_vector(), rows, "amax")
            scales = largest / 127
            step = self._per_vector(scales).clamp_min(torch.finfo(torch.float32).tiny)
            values = (self.values.float() / step).round_().clamp_(-127, 127).to(torch.int8)
        return MultiVectors(values, self.offsets, scales)

    def code(self, codebook: Codebook) -> MultiVectors:
        """Encode as residual codes, on the CPU."""
        if self.codebook is codebook:
            return self
        values = self.to("cpu", torch.float32).values
        return MultiVectors(codebook.encode(values), self.offsets, None, codebook)

    def mean(self) -> Tensor:
        """Return the mean vector of each floating-point item [n, D]; zeros without vectors.

        Example:
            >>> MultiVectors.from_list([torch.tensor([[1.0, 0.0], [0.0, 1.0]])]).mean()
            tensor([[0.5000, 0.5000]])
        """
        sums = self.values.new_zeros(len(self), self.dim)
        sums = sums.index_add(0, self._item_of_vector(), self.values)
        return sums / to_device(self._lengths, self.device).clamp(min=1)[:, None]

    def rows(self, rows: Tensor) -> Tensor:
        """Return the vectors at ``rows`` […] as float32 […, D]; int8 without scales."""
        values = self._take(rows.flatten()).view(*rows.shape, self.values.shape[1])
        return values.float() if self.codebook is None else self.codebook.decode(values)

    def _take(self, rows: Tensor) -> Tensor:
        """Return the stored vectors at ``rows`` [m], five times as fast as ``values[rows]``."""
        return self.values.index_select(0, to_device(rows, self.device))

    def _item_of_vector(self) -> Tensor:
        """Return the item [N] int64 that owns each vector."""
        return to_device(torch.arange(len(self)).repeat_interleave(self._lengths), self.device)

    def _per_vector(self, per_item: Tensor) -> Tensor:
        """Give each vector its item's number: [n] -> [N, 1]."""
        lengths, total = to_device(self._lengths, per_item.device), len(self.values)
        return per_item.repeat_interleave(lengths, output_size=total)[:, None]

    @property
    def lengths(self) -> Tensor:
        """Number of vectors of each item, [n] int64 on the CPU."""
        return self._lengths

    @property
    def uniform_length(self) -> int | None:
        """Number of vectors of every item; None if it differs, or without items."""
        if not len(self):
            return None
        first = int(self._lengths[0])
        return first if bool((self._lengths == first).all()) else None

    @property
    def dim(self) -> int:
        """Dimension D of a vector, of residual codes after decoding."""
        return self.values.shape[1] if self.codebook is None else self.codebook.dim

    @property
    def device(self) -> torch.device:
        """Device of the values."""
        return self.values.device

    @property
    def dtype(self) -> torch.dtype:
        """Stored type; uint8 for residual codes."""
        return self.values.dtype

    @property
    def storage(self) -> str:
        """Name of the stored type: ``float32``, ``int8``, ``residual4`` and others."""
        name = str(self.dtype).removeprefix("torch.")
        return name if self.codebook is None else RESIDUAL4

    @property
    def nbytes(self) -> int:
        """Bytes of values and scales, without the codebook that all items share."""
        return self.values.nbytes + (0 if self.scales is None else self.scales.nbytes)

    def __repr__(self) -> str:
        return (
            f"MultiVectors(items={len(self)}, vectors={len(self.values)}, dim={self.dim}, "
            f"dtype={self.storage}, device={self.device})"
        )
