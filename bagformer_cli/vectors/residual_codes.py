"""Residual codes: store a vector as its nearest centroid plus 4 bits per dimension.

The compression of ColBERTv2 (Santhanam et al. 2022, section 3.3), also used by PLAID. A residual is
the vector minus its nearest centroid. All dimensions share one set of 16 buckets of residuals; each
bucket holds equally many (quantiles) and decodes to the mean of its residuals.

The code of one vector with D = 4 dimensions takes W = 2 + D / 2 = 4 bytes::

    byte 0           byte 1            byte 2         byte 3
    centroid (low)   centroid (high)   [dim 1|dim 0]  [dim 3|dim 2]     4-bit bucket numbers

Decoding adds ``table[byte]``, the two residuals that one byte stands for, to the centroid. Vectors
that had unit length are normalized again: on the demo set that halves the error.

Shapes: N vectors, C centroids, D dimensions, W bytes per code.
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from functools import cache, cached_property
from types import ModuleType
from typing import Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bagformer_cli.errors import InputError
from bagformer_cli.messages import tr
from bagformer_cli.opening import require_moderate_zip
from bagformer_cli.vectors.kmeans import BLOCK, kmeans, nearest
from bagformer_cli.vectors.stored_arrays import BITS, code_width

BUCKETS = 1 << BITS
MAX_CENTROIDS = 2048
VECTORS_PER_CENTROID = 16  # of the sample that k-means sees
UNIT_TOLERANCE = 1e-2  # the lengths of float16 and int8 vectors differ from 1 by less
MAX_BUCKET_SAMPLE = 1 << 22  # residuals from which the quantiles are computed


@dataclass(frozen=True, eq=False)
class Codebook:
    """Centroids and residual buckets: everything needed to decode residual codes.

    >>> vectors = torch.eye(4)
    >>> codebook = Codebook.train(vectors)
    >>> codes = codebook.encode(vectors)
    >>> codes.shape, codes.dtype
    (torch.Size([4, 4]), torch.uint8)
    >>> codebook.decode(codes).shape
    torch.Size([4, 4])

    Args:
        centroids: [C, D] float32; the values are exact in float16, in which they are stored.
        edges: [15] float32, rising: the limits between neighbouring buckets.
        weights: [16] float32: the residual that each bucket decodes to.
        unit: Whether decoded vectors are scaled to unit length.
    """

    centroids: Tensor
    edges: Tensor
    weights: Tensor
    unit: bool = False

    @classmethod
    def train(cls, sample: Tensor) -> Self:
        """Compute centroids and buckets from sample vectors.

        Args:
            sample: [N, D] vectors, at least one; some ten thousand are enough.

        Raises:
            InputError: The sample is empty, or D is odd.
        """
        if not len(sample):
            raise InputError(
                tr("Residual codes are trained on sample vectors, but the sample is empty.")
            )
        if sample.shape[1] % 2:
            raise InputError(
                tr("Residual codes need vectors with an even dimension."), found=sample.shape[1]
            )
        sample = sample.float().cpu()
        size = min(MAX_CENTROIDS, 2 ** int(np.log2(max(1, len(sample) // VECTORS_PER_CENTROID))))
        centroids = kmeans(sample, size, spherical=False).half().float()
        part = sample[:: max(1, sample.numel() // MAX_BUCKET_SAMPLE)]
        closest = centroids[nearest(part, centroids, spherical=False)]
        residuals = (part - closest).flatten().numpy()
        edges = np.quantile(residuals, np.arange(1, BUCKETS) / BUCKETS).astype(np.float32)
        bucket = np.searchsorted(edges, residuals)
        sums = np.bincount(bucket, residuals, BUCKETS)
        counts = np.bincount(bucket, minlength=BUCKETS)
        # A bucket is empty where quantiles coincide; it decodes to the middle of its two edges.
        middles = np.concatenate([edges[:1], (edges[1:] + edges[:-1]) / 2, edges[-1:]])
        weights = np.where(counts > 0, sums / np.maximum(counts, 1), middles).astype(np.float32)
        unit = bool((sample.norm(dim=1) - 1).abs().max() < UNIT_TOLERANCE)
        return cls(centroids, torch.from_numpy(edges), torch.from_numpy(weights), unit)

    @property
    def dim(self) -> int:
        """D, the dimension of decoded vectors."""
        return self.centroids.shape[1]

    @property
    def width(self) -> int:
        """W, the bytes of one code."""
        return code_width(self.dim)

    @cached_property
    def digest(self) -> str:
        """12 hexadecimal digits that identify the codebook; codes can be decoded by it alone."""
        parts = (self.centroids, self.edges, self.weights)
        whole = bytes([self.unit]) + b"".join(part.contiguous().numpy().tobytes() for part in parts)
        return hashlib.sha256(whole).hexdigest()[:12]

    @cached_property
    def table(self) -> Tensor:
        """[256, 2] float32: the two residuals that each byte of a code stands for."""
        byte = torch.arange(256)
        return self.weights[torch.stack([byte & 15, byte >> 4], dim=1)]

    @torch.no_grad()
    def encode(self, values: Tensor) -> Tensor:
        """Encode [N, D] vectors to [N, W] uint8 codes, on the CPU."""
        codes = [torch.zeros(0, self.width, dtype=torch.uint8)]
        for first in range(0, len(values), BLOCK):
            block = values[first : first + BLOCK].detach().cpu().float()
            closest = nearest(block, self.centroids, spherical=False)
            bucket = torch.bucketize(block - self.centroids[closest], self.edges)
            pairs = bucket[:, 0::2] | bucket[:, 1::2] << 4
            parts = [closest[:, None] & 255, closest[:, None] >> 8, pairs]
            codes.append(torch.cat(parts, 1).to(torch.uint8))
        return torch.cat(codes)

    @torch.no_grad()
    def decode(self, codes: Tensor) -> Tensor:
        """Decode […, W] uint8 codes to […, D] float32 vectors, on the device of the codes."""
        flat = codes.reshape(-1, self.width)
        loops = _loops() if flat.device.type == "cpu" else None
        if loops is not None:
            out = torch.empty(len(flat), self.dim)
            arrays = (flat.contiguous(), self.centroids, self.table, out)
            loops.decode(*(array.numpy() for array in arrays), self.unit)
        else:
            number = flat[:, 0].long() | flat[:, 1].long() << 8
            # A damaged code may name a centroid that does not exist: take the last one.
            out = self.centroids.to(flat.device)[number.clamp_(max=len(self.centroids) - 1)]
            out += self.table.to(flat.device)[flat[:, 2:].long()].flatten(1)
            out = F.normalize(out, dim=1) if self.unit else out
        return out.view(*codes.shape[:-1], self.dim)

    def to_bytes(self) -> bytes:
        """Serialize to the content of an ``.npz`` file."""
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
        """Read the output of :meth:`to_bytes`.

        Raises:
            ValueError: The data are no such file, or damaged.
        """
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
                require_moderate_zip(arrays.zip, "codebook")
                centroids, edges, weights = (
                    torch.from_numpy(np.array(arrays[name], np.float32))
                    for name in ("centroids", "edges", "weights")
                )
                unit = bool(arrays["unit"][0])
        except Exception as error:  # zipfile, zlib and numpy raise different types
            raise ValueError(f"codebook: {error}") from error
        if centroids.ndim != 2 or not len(centroids) or centroids.shape[1] % 2:
            raise ValueError("codebook: wrong shape of the centroids")
        if len(edges) != BUCKETS - 1 or len(weights) != BUCKETS:
            raise ValueError("codebook: wrong shapes")
        return cls(centroids, edges, weights, unit)


@cache
def _loops() -> ModuleType | None:
    """Import the compiled loop; None where numba does not work."""
    try:
        from bagformer_cli.vectors import decode as compiled
    except (ImportError, RuntimeError, OSError):
        return None
    return compiled
