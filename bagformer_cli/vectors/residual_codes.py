"""Residual codes: a vector as its nearest centroid and 2 or 4 bits for what is left, a dimension.

ColBERTv2 (Santhanam et al. 2022, section 3.3) and PLAID: the residuals of all dimensions share one
set of buckets, each of which holds as many of them (quantiles), and stands for their mean. A byte
of codes is looked up, not computed: it means 2 or 4 numbers at once. What was of unit length is
made so again: on the demo's 64 dimensions that halves what 2 bits lose.

Shapes: N vectors, C centroids, D dimensions, W bytes a code: 2 for the centroid's number (the low
byte first), then D · bits / 8, of each byte the low bits first.
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from functools import cache, cached_property
from types import ModuleType
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bagformer_cli.errors import InputError
from bagformer_cli.messages import tr
from bagformer_cli.vectors.kmeans import BLOCK, kmeans, nearest

RESIDUAL = {"residual4": 4, "residual2": 2}
"""Types of stored vectors that are codes, and their bits."""

MOST = 2048  # centroids
EACH = 16  # vectors of the sample for each centroid
UNIT = 1e-2  # float16 and int8 vectors are of unit length so nearly
BUCKETS_OF = 1 << 22  # residuals that the buckets are made of


@dataclass(frozen=True, eq=False)
class Codebook:
    """What codes mean.

    Args:
        centroids: [C, D] float32 (that float16 holds exactly).
        edges: [2^bits − 1] float32, rising: where one bucket ends and the next begins.
        weights: [2^bits] float32: what each bucket stands for.
        unit: Whether vectors are of unit length.
    """

    centroids: Tensor
    edges: Tensor
    weights: Tensor
    unit: bool = False

    @classmethod
    def train(cls, sample: Tensor, bits: int) -> Self:
        """Centroids and buckets of a sample.

        Args:
            sample: [N, D] vectors, at least one; some ten thousand are enough.
            bits: 2 or 4.

        Raises:
            InputError: There is no vector, or D does not fill whole bytes.
        """
        if not len(sample):
            raise InputError(tr("A codebook is made of vectors, and there is none."))
        if sample.shape[1] * bits % 8:
            raise InputError(
                tr("Codes of so few bits need a dimension that fills whole bytes."),
                found=sample.shape[1],
                expected=tr("a multiple of {n}", n=8 // bits),
            )
        sample = sample.float().cpu()
        size = min(MOST, 2 ** int(np.log2(max(1, len(sample) // EACH))))
        centroids = kmeans(sample, size, unit=False).half().float()
        some = sample[:: max(1, sample.numel() // BUCKETS_OF)]
        rest = (some - centroids[nearest(some, centroids, unit=False)]).flatten().numpy()
        count = 1 << bits
        edges = np.quantile(rest, np.arange(1, count) / count).astype(np.float32)
        bucket = np.searchsorted(edges, rest)
        sums = np.bincount(bucket, rest, count)
        held = np.bincount(bucket, minlength=count)
        between = np.concatenate([edges[:1], (edges[1:] + edges[:-1]) / 2, edges[-1:]])
        weights = np.where(held > 0, sums / np.maximum(held, 1), between).astype(np.float32)
        unit = bool((sample.norm(dim=1) - 1).abs().max() < UNIT)
        return cls(centroids, torch.from_numpy(edges), torch.from_numpy(weights), unit)

    @property
    def bits(self) -> int:
        """A dimension's."""
        return len(self.weights).bit_length() - 1

    @property
    def dim(self) -> int:
        """D."""
        return self.centroids.shape[1]

    @property
    def width(self) -> int:
        """W."""
        return code_width(self.dim, self.bits)

    @cached_property
    def digest(self) -> str:
        """12 hexadecimal digits: codes of one codebook mean nothing with another."""
        parts = (self.centroids, self.edges, self.weights)
        whole = bytes([self.unit]) + b"".join(part.contiguous().numpy().tobytes() for part in parts)
        return hashlib.sha256(whole).hexdigest()[:12]

    @cached_property
    def table(self) -> Tensor:
        """[256, 8 / bits] float32: what each byte means."""
        shifts = torch.arange(0, 8, self.bits)
        return self.weights[(torch.arange(256)[:, None] >> shifts) & (2**self.bits - 1)]

    @torch.no_grad()
    def encode(self, values: Tensor) -> Tensor:
        """[N, D] vectors → [N, W] uint8 codes, on the CPU."""
        found = [torch.zeros(0, self.width, dtype=torch.uint8)]
        shifts = torch.arange(0, 8, self.bits)
        for first in range(0, len(values), BLOCK):
            block = values[first : first + BLOCK].detach().cpu().float()
            closest = nearest(block, self.centroids, unit=False)
            bucket = torch.bucketize(block - self.centroids[closest], self.edges)
            packed = (bucket.view(len(block), -1, len(shifts)) << shifts).sum(-1)
            parts = [closest[:, None] & 255, closest[:, None] >> 8, packed]
            found.append(torch.cat(parts, 1).to(torch.uint8))
        return torch.cat(found)

    @torch.no_grad()
    def decode(self, codes: Tensor) -> Tensor:
        """[…, W] uint8 codes → […, D] float32 vectors, where the codes are."""
        flat = codes.reshape(-1, self.width)
        loops = _loops() if flat.device.type == "cpu" else None
        if loops is not None:
            out = torch.empty(len(flat), self.dim)
            loop = loops.decode[8 // self.bits]
            arrays = (flat.contiguous(), self.centroids, self.table, out)
            loop(*(array.numpy() for array in arrays), self.unit)
        else:
            number = flat[:, 0].long() | flat[:, 1].long() << 8
            out = self.centroids.to(flat.device)[number]
            out += self.table.to(flat.device)[flat[:, 2:].long()].flatten(1)
            out = F.normalize(out, dim=1) if self.unit else out
        return out.view(*codes.shape[:-1], self.dim)

    def to_bytes(self) -> bytes:
        """As a file's content."""
        stream = io.BytesIO()
        np.savez(
            stream,
            centroids=self.centroids.numpy().astype(np.float16),
            edges=self.edges.numpy(),
            weights=self.weights.numpy(),
            unit=np.array([self.unit]),
        )
        return stream.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """What :meth:`to_bytes` gave.

        Raises:
            ValueError: It is something else, or damaged.
        """
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
                found = [torch.from_numpy(np.array(arrays[name], np.float32)) for name in _NAMES]
                unit = bool(arrays["unit"][0])
        except Exception as error:  # zipfile, zlib and numpy each have their own
            raise ValueError(f"codebook: {error}") from error
        book = cls(found[0], found[1], found[2], unit)
        shapes = book.centroids.ndim == 2 and len(book.edges) + 1 == len(book.weights)
        if not shapes or len(book.weights) not in (4, 16):
            raise ValueError("codebook")
        return book


def code_width(dim: int, bits: int) -> int:
    """W: bytes of a vector's code."""
    return 2 + dim * bits // 8


_NAMES = ("centroids", "edges", "weights")


@cache
def _loops() -> ModuleType | Any:
    """The compiled loop, or None where numba cannot be used."""
    try:
        from bagformer_cli.vectors import decode as _decode
    except (ImportError, RuntimeError, OSError):
        return None
    return _decode
