"""Start the scan kernels: few titles against a catalogue that is on the device.

Shapes: Q queries of C bags in total, N products of P patches in total, D dimensions.
"""

# mypy: disable-error-code="index"
# (Triton's types do not know that a kernel is started by indexing it with a grid.)

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
import triton  # type: ignore[import-untyped,unused-ignore]
from torch import Tensor

from bagformer_cli.interaction.kernels import reference
from bagformer_cli.interaction.kernels.cuda.scan_tiles import scan_codes, scan_tiles
from bagformer_cli.interaction.kernels.cuda.settings import (
    INTERPRETED,
    PROGRAMS,
    ScanTile,
    fastest,
    least_depth,
    scan_tiles_for,
)
from bagformer_cli.transfer import to_device
from bagformer_cli.vectors.multi_vectors import MultiVectors

MAX_BAGS = 128
"""Most bags of all queries of one scan: more would not fit the registers."""

MAX_QUERIES = 16
MAX_IMAGES = 8
MAX_DEPTH = 256
MAX_CODED_DIM = 256
"""Dimensions above which decoded residual codes fit neither registers nor shared memory."""

CODED = torch.float16
"""The type in which decoded residual codes are multiplied."""


class DeviceCodebook(NamedTuple):
    """A codebook as ``scan_codes`` reads it: even and odd dimensions apart."""

    even: Tensor
    odd: Tensor
    weights: Tensor
    unit: bool


@dataclass(frozen=True)
class DeviceBlock:
    """Products on the device, as the kernels read them.

    Attributes:
        vectors: The products; their values are on the device.
        starts: [N + 1] int64 on the device; one zero if all products are equally long.
        uniform: Patches of every product; 0: it differs.
        longest: Patches of the longest product.
        codebook: Decodes residual codes; None for other types.
    """

    vectors: MultiVectors
    starts: Tensor
    uniform: int
    longest: int
    codebook: DeviceCodebook | None

    @classmethod
    def of(cls, vectors: MultiVectors) -> DeviceBlock:
        """Describe ``vectors``, which are on the device and contiguous."""
        uniform = vectors.uniform_length or 0
        offsets = vectors.offsets[:1] if uniform else vectors.offsets
        longest = int(vectors.lengths.max()) if len(vectors) else 0
        starts = to_device(offsets, vectors.device)
        codebook = None
        if vectors.codebook is not None:
            centroids = vectors.codebook.centroids.to(vectors.device, CODED)
            halves = centroids[:, ::2].contiguous(), centroids[:, 1::2].contiguous()
            weights = vectors.codebook.weights.to(vectors.device)
            codebook = DeviceCodebook(*halves, weights, vectors.codebook.unit)
        return cls(vectors, starts, uniform, longest, codebook)


@dataclass(frozen=True)
class ScanQueries:
    """Queries as the kernels read them.

    Attributes:
        bags: [COLUMNS, D] in the type of the products (float16 for residual codes); rows beyond
            the bags are zeros.
        owners: [COLUMNS] int32: query of each row; −1 beyond the bags.
        scale: [QUERIES] float32: factor of each query's scores; NaN for a query with a value that
            is not finite, 0 for one without bags and for padding.
        count: Q.
    """

    bags: Tensor
    owners: Tensor
    scale: Tensor
    count: int

    @classmethod
    def of(cls, texts: MultiVectors, dtype: torch.dtype, device: torch.device) -> ScanQueries:
        """Convert titles with at most :data:`MAX_BAGS` bags.

        Args:
            texts: Q ≤ :data:`MAX_QUERIES` titles.
            dtype: Type of the products.
            device: Device of the products.
        """
        texts = texts.to("cpu", CODED if dtype == torch.uint8 else dtype)
        columns, queries = (
            max(least, triton.next_power_of_2(n))
            for n, least in ((len(texts.values), 16), (len(texts), 1))
        )
        owner = reference.owners(texts.offsets, torch.device("cpu"))
        finite = torch.ones(len(texts.values), dtype=torch.bool)
        if texts.scales is None:
            finite = texts.values.isfinite().all(1)
        scale = torch.ones(len(texts)) if texts.scales is None else texts.scales.clone()
        scale[owner[~finite]] = torch.nan
        scale[texts.lengths == 0] = 0
        bags = texts.values.where(finite[:, None], texts.values.new_zeros(()))
        beyond = columns - len(bags)
        return cls(
            _computed(to_device(F.pad(bags, (0, 0, 0, beyond)), device)),
            to_device(F.pad(owner.int(), (0, beyond), value=-1), device),
            to_device(F.pad(scale, (0, queries - len(texts))), device),
            len(texts),
        )


def scan(texts: MultiVectors, block: DeviceBlock, chosen: Tensor | None = None) -> Tensor:
    """Score queries against products of a block, title to image.

    Args:
        texts: Q queries of at most :data:`MAX_BAGS` bags in total, at most :data:`MAX_QUERIES`.
        block: The products.
        chosen: [n] int64 on the device, positions of the products to score; None: all.

    Returns:
        [Q, N] or [Q, n] float32 on the device. Values are multiplied in the type of the products.
    """
    vectors = block.vectors
    queries = ScanQueries.of(texts, vectors.dtype, vectors.device)
    count = len(vectors) if chosen is None else len(chosen)
    out = torch.zeros(queries.count, count, device=vectors.device)
    if not count or not len(vectors.values) or not len(texts.values):
        return out
    columns = len(queries.bags)
    kind = "codes" if block.codebook is not None else "narrow" if columns <= 32 else "wide"
    key = ("scan", kind, vectors.dtype, vectors.dim, block.uniform, columns)
    work = 2.0 * count * block.longest * vectors.dim * 256  # by bytes, not by operations

    def run(tile: ScanTile) -> None:
        _run(queries, block, chosen, out, tile)

    run(fastest(key, scan_tiles_for(kind), work, run))
    return out


def _run(
    queries: ScanQueries, block: DeviceBlock, chosen: Tensor | None, out: Tensor, tile: ScanTile
) -> None:
    vectors = block.vectors
    count, device = out.shape[1], out.device
    length = max(tile.rows // MAX_IMAGES, 1, triton.next_power_of_2(block.longest))
    length = min(length, tile.rows)
    together = tile.rows // length
    blocks = triton.cdiv(block.longest, length)
    tiles = triton.cdiv(count, together)
    tiles_each = triton.cdiv(tiles, 2 * PROGRAMS)
    grid = (triton.cdiv(tiles, tiles_each),)
    chosen_or_none = out.new_zeros(1, dtype=torch.int64) if chosen is None else chosen
    sizes = {
        "IMAGES": together, "LENGTH": length, "COLUMNS": len(queries.bags),
        "QUERIES": len(queries.scale), "UNIFORM": block.uniform, "CHOSEN": chosen is not None,
        "STAGES": tile.stages, "num_warps": tile.warps,
    }  # fmt: skip
    numbers = (count, tiles_each * blocks, blocks, len(vectors), len(vectors.values))
    if block.codebook is None:
        depth = least_depth(vectors.dim, vectors.dtype)
        keep = depth <= MAX_DEPTH
        depth = min(depth, 64 if not keep else MAX_DEPTH)
        scales = torch.ones(1, device=device) if vectors.scales is None else vectors.scales
        scan_tiles[grid](
            queries.bags, queries.owners, queries.scale, _computed(vectors.values), block.starts,
            scales, chosen_or_none, out, *numbers, vectors.dim,
            DEPTH=depth, KEEP=keep, EVEN=vectors.dim % depth == 0,
            SCALED=vectors.scales is not None, **sizes,
        )  # fmt: skip
        return
    half = vectors.dim // 2
    depth = least_depth(half, CODED)
    even, odd, weights, unit = block.codebook
    scan_codes[grid](
        queries.bags[:, ::2].contiguous(), queries.bags[:, 1::2].contiguous(), queries.owners,
        queries.scale, vectors.values, even, odd, weights, block.starts, chosen_or_none, out,
        *numbers, half, len(even), DEPTH=depth, UNIT=unit, EVEN=half % depth == 0, **sizes,
    )  # fmt: skip


def takes(products: MultiVectors) -> bool:
    """Tell whether there is a kernel for products stored like these."""
    return products.codebook is None or products.dim <= MAX_CODED_DIM


@cache
def works(device: torch.device) -> bool:
    """Compile and run a scan once; return whether it agrees with plain torch on the CPU."""
    generator = torch.Generator().manual_seed(0)
    texts, products = (
        MultiVectors(torch.randn(int(o[-1]), 32, generator=generator), o)
        for o in (torch.tensor([0, 3, 5]), torch.tensor([0, 2, 7]))
    )
    try:
        with warnings.catch_warnings(), torch.autocast("cpu", enabled=False):
            warnings.simplefilter("ignore")  # compilers warn about their defaults
            found = scan(texts, DeviceBlock.of(products.to(device, CODED))).cpu()
            options = {"dtype": torch.float32, "both": False, "budget": 1 << 20}
            true = reference.scores(texts, products, **options)[0]  # type: ignore[arg-type]
            torch.testing.assert_close(found, true, rtol=1e-2, atol=0.1)  # sums of up to 30
    except Exception:  # compilers raise many types; plain torch always works
        return False
    return True


def _computed(values: Tensor) -> Tensor:
    """In the interpreter, which lacks bfloat16, return such values as float32."""
    return values.float() if INTERPRETED and values.dtype == torch.bfloat16 else values
