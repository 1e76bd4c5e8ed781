"""``MultiVectors``: ragged lists of vectors, packed. What every model here turns items into.

Shapes: n items, N vectors in all, D dimensions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from bagformer_cli.errors import InputError
from bagformer_cli.messages import tr
from bagformer_cli.vectors.residual_codes import RESIDUAL4, Codebook


def offsets_of(lengths: Tensor) -> Tensor:
    """[n+1] int64: where lists of such lengths [n] begin and end, one after the other."""
    offsets = torch.zeros(len(lengths) + 1, dtype=torch.int64)
    torch.cumsum(lengths, 0, out=offsets[1:])
    return offsets


class MultiVectors:
    """Short lists of vectors in one matrix: item i owns ``values[offsets[i]:offsets[i+1]]``.

    Packed, never padded. Offsets are bookkeeping and stay on the CPU wherever ``values`` is, so
    that no shape ever waits for a device. An item may own no vector; it then scores 0 with
    everything.

    Args:
        values: [N, D], floating; or int8 together with ``scales``; or uint8 codes [N, W] together
            with ``codebook``.
        offsets: [n+1] int64, from 0 to N, never falling. Moved to the CPU.
        scales: [n] float32, for int8 alone: item ``i`` stands for ``values * scales[i]``. One
            scale an item (not a vector) keeps every maximum inside the integers.
        codebook: What residual codes mean, for uint8 alone.

    Raises:
        InputError: If offsets do not partition ``values``, or type, scales and codebook do not
            fit.
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
            raise InputError(
                tr("Vectors must be a matrix [N, D]."), found=list(values.shape), expected="[N, D]"
            )
        offsets = offsets.detach().to(device="cpu", dtype=torch.int64)
        if offsets.ndim != 1 or len(offsets) == 0:
            raise InputError(
                tr("Offsets must be a list of n + 1 numbers."), found=list(offsets.shape)
            )
        lengths = offsets.diff()
        if (
            int(offsets[0]) != 0
            or int(offsets[-1]) != len(values)
            or (len(lengths) and int(lengths.min()) < 0)
        ):
            raise InputError(
                tr("Offsets must rise from 0 to the number of vectors."),
                found=f"{int(offsets[0])} … {int(offsets[-1])}",
                expected=f"0 … {len(values)}",
            )
        if (values.dtype == torch.int8) != (scales is not None):
            raise InputError(
                tr("int8 vectors come with one scale an item, other types without."),
                found=f"{values.dtype}, scales: {'no' if scales is None else 'yes'}",
            )
        if codebook is not None:
            if values.dtype != torch.uint8 or values.shape[1] != codebook.width:
                raise InputError(
                    tr("Codes come as bytes, so many a vector as their codebook says."),
                    found=f"{values.dtype}, {values.shape[1]}",
                    expected=f"uint8, {codebook.width}",
                )
        elif values.dtype != torch.int8 and not values.is_floating_point():
            raise InputError(
                tr("Vectors must be floating or int8, or codes with a codebook."),
                found=values.dtype,
                expected="float32, …",
            )
        if scales is not None:
            if scales.shape != lengths.shape:
                raise InputError(
                    tr("int8 vectors come with one scale an item, other types without."),
                    found=list(scales.shape),
                    expected=list(lengths.shape),
                )
            scales = scales.detach().to(device=values.device, dtype=torch.float32)
        self.values = values
        self.offsets = offsets
        self.scales = scales
        self.codebook = codebook
        self._lengths = lengths

    @classmethod
    def from_list(cls, items: Sequence[Tensor]) -> MultiVectors:
        """Pack one [n_i, D] tensor an item. Gradients flow through.

        Raises:
            InputError: If the list is empty (D is then unknown) or the widths differ.
        """
        if not items:
            raise InputError(tr("A list of no items has no known dimension."))
        if any(item.ndim != 2 or item.shape[1] != items[0].shape[-1] for item in items):
            raise InputError(
                tr("Every item must be a matrix [n, D] of the same D."),
                found=sorted({tuple(item.shape) for item in items})[:4],
            )
        return cls(torch.cat(list(items)), offsets_of(torch.tensor([len(item) for item in items])))

    @classmethod
    def from_dense(cls, values: Tensor) -> MultiVectors:
        """``[n, L, D]``: every item has L vectors. No copy where ``values`` is contiguous."""
        n, length, dim = values.shape
        return cls(values.reshape(n * length, dim), torch.arange(n + 1) * length)

    def to_list(self) -> list[Tensor]:
        """One [n_i, D] view an item (as stored: int8 without its scales, codes as codes)."""
        return list(torch.split(self.values, self._lengths.tolist()))

    def __len__(self) -> int:
        return len(self._lengths)

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self.to_list())

    def __getitem__(self, which: int | slice) -> MultiVectors:
        """One item (as a list of one) or a range; contiguous ranges are views."""
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
        """The items at ``indices`` (int64 [m], repeats allowed), in that order."""
        chosen = torch.as_tensor(indices, dtype=torch.int64, device="cpu")
        lengths = self._lengths[chosen]
        offsets = offsets_of(lengths)
        # Row of item k of the result = its old start + its place inside the item.
        shift = self.offsets[chosen] - offsets[:-1]
        rows = torch.arange(int(offsets[-1])) + shift.repeat_interleave(lengths)
        scales = None if self.scales is None else self.scales[chosen.to(self.scales.device)]
        return MultiVectors(self._take(rows), offsets, scales, self.codebook)

    def positions(self, chosen: Tensor) -> Tensor:
        """``chosen`` [m] int64 on the CPU, where they are positions of items.

        Raises:
            InputError: If they are anything else.
        """
        right = chosen.dtype == torch.int64 and chosen.ndim == 1
        chosen = chosen.cpu()
        if right and len(chosen):
            right = int(chosen.min()) >= 0 and int(chosen.max()) < len(self)
        if not right:
            raise InputError(
                tr("Items are chosen by their positions."),
                found=f"{chosen.dtype} {list(chosen.shape)}",
                expected=tr("int64 [n], each from 0 to {last}", last=len(self) - 1),
            )
        return chosen

    @staticmethod
    def concatenate(parts: Sequence[MultiVectors]) -> MultiVectors:
        """The items of all parts, one after another; all of one type, dimension and codebook."""
        if not parts:
            raise InputError(tr("A list of no items has no known dimension."))
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
        """The same items elsewhere or in another type; int8 is :meth:`quantize`, and back.

        Codes become vectors again; uint8 leaves them as they are, see :meth:`code` for the way
        there.
        """
        if dtype == torch.int8:
            return self.quantize().to(device)
        values, scales, codebook = self.values, self.scales, self.codebook
        if dtype == torch.uint8 or (codebook is not None and dtype is None):
            if codebook is None:
                raise InputError(tr("Vectors become codes by a codebook."), found=self.dtype)
            return MultiVectors(values.to(device=device), self.offsets, None, codebook)
        if codebook is not None:
            values = codebook.decode(values)
        if scales is not None and dtype is not None:
            values = values.to(dtype) * self._per_row(scales).to(dtype)
            scales = None
        values = values.to(device=device, dtype=dtype)
        return MultiVectors(values, self.offsets, scales)

    def quantize(self) -> MultiVectors:
        """int8 with one symmetric scale an item: its largest magnitude becomes 127."""
        if self.scales is not None:
            return self
        if self.codebook is not None:
            return self.to(dtype=torch.float32).quantize()
        largest = torch.zeros(len(self), device=self.device)
        with torch.no_grad():
            rows = self.values.abs().amax(1).float() if self.dim else self.values.new_zeros(0)
            item = torch.arange(len(self)).repeat_interleave(self._lengths).to(self.device)
            largest.scatter_reduce_(0, item, rows, "amax")
            scales = largest / 127
            step = self._per_row(scales).clamp_min(torch.finfo(torch.float32).tiny)
            values = (self.values.float() / step).round_().clamp_(-127, 127).to(torch.int8)
        return MultiVectors(values, self.offsets, scales)

    def code(self, codebook: Codebook) -> MultiVectors:
        """Residual codes of the same items, on the CPU."""
        if self.codebook is codebook:
            return self
        values = self.to("cpu", torch.float32).values
        return MultiVectors(codebook.encode(values), self.offsets, None, codebook)

    def rows(self, rows: Tensor) -> Tensor:
        """[…, D] float32, the vectors at ``rows`` […]; those of int8 without their scales."""
        values = self._take(rows.flatten()).view(*rows.shape, self.values.shape[1])
        return values.float() if self.codebook is None else self.codebook.decode(values)

    def _take(self, rows: Tensor) -> Tensor:
        """The stored vectors at ``rows`` [m]; ``values[rows]`` takes five times as long."""
        return self.values.index_select(0, rows.to(self.device))

    def _per_row(self, per_item: Tensor) -> Tensor:
        """[n] → [N, 1]: each vector gets its item's number."""
        return per_item.repeat_interleave(self._lengths.to(per_item.device))[:, None]

    @property
    def lengths(self) -> Tensor:
        """[n] int64 on the CPU: how many vectors each item owns."""
        return self._lengths

    @property
    def uniform_length(self) -> int | None:
        """The length all items share, or None where they differ (or there is no item)."""
        if not len(self):
            return None
        first = int(self._lengths[0])
        return first if bool((self._lengths == first).all()) else None

    @property
    def dim(self) -> int:
        """D."""
        return self.values.shape[1] if self.codebook is None else self.codebook.dim

    @property
    def device(self) -> torch.device:
        """Where the vectors are (offsets are always on the CPU)."""
        return self.values.device

    @property
    def dtype(self) -> torch.dtype:
        """The stored type; uint8 of residual codes."""
        return self.values.dtype

    @property
    def storage(self) -> str:
        """The stored type by name, such as ``float32``, ``int8`` or ``residual4``."""
        name = str(self.dtype).removeprefix("torch.")
        return name if self.codebook is None else RESIDUAL4

    @property
    def nbytes(self) -> int:
        """Bytes of the values and their scales; a codebook, which all items share, is not in it."""
        return self.values.nbytes + (0 if self.scales is None else self.scales.nbytes)

    def __repr__(self) -> str:
        return (
            f"MultiVectors(items={len(self)}, vectors={len(self.values)}, dim={self.dim}, "
            f"dtype={self.storage}, device={self.device})"
        )
