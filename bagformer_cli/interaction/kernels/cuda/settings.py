"""Tile sizes of the CUDA kernels: a small table per architecture, and the choice from it.

A larger tile reuses more of what it loads and needs more registers and shared memory. The limits of
a program are 255 registers a thread and 227 KiB (Hopper) or 163 KiB (Ampere) of shared memory. The
first entry of a table is the default. For large scores and scans all entries are timed once per
process, on the work itself, and the fastest is kept. Gradients take the default: another tile adds
the same numbers in another order, and a resumed training must get the same bits. ``xmr bench gpu``
times all entries of all tables, so that the fastest can be put first.

The sizes were chosen by compiling for sm_80 and sm_90 and counting registers, spilled bytes and
shared memory (docs/performance.md); they have not been timed on a device yet.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import TypeVar

import torch
from torch import Tensor

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
"""Whether kernels run on the CPU in Triton's interpreter: slow, for tests."""

TUNE_FROM = 1e12
"""Operations of a call from which all entries of a table are timed: some milliseconds."""

TUNE_GRADIENTS_FROM = math.inf
"""The same for kernels whose results a training depends on."""

TIMES: dict[Hashable, dict[object, float]] = {}
"""Seconds of the entries of the tables that were timed; infinite for one that does not run."""

PROGRAMS = 1024
"""Programs wanted: enough for every multiprocessor of the largest GPU to have several."""

WIDEST = 256
"""Dimensions above which patches do not stay in shared memory."""


@dataclass(frozen=True)
class ScoreTile:
    """Sizes of ``score_tiles``.

    Attributes:
        columns: Columns of a tile: IMAGES × LENGTH.
        depth: Dimensions at once; 0: all of them, patches stay in shared memory.
        warps: Groups of 32 threads of a program.
        stages: Loads ahead.
    """

    columns: int
    depth: int
    warps: int
    stages: int


@dataclass(frozen=True)
class GradientTile:
    """Sizes of ``patch_gradients`` and ``bag_gradients``; see their arguments."""

    rows: int
    inner: int
    depth: int
    warps: int
    stages: int


@dataclass(frozen=True)
class ScanTile:
    """Sizes of ``scan_tiles`` and ``scan_codes``.

    Attributes:
        rows: Patches of a tile: IMAGES × LENGTH.
        warps: Groups of 32 threads of a program.
        stages: Tiles loaded ahead. Memory is fast only with many loads under way.
    """

    rows: int
    warps: int
    stages: int


KIND = {torch.float32: "float32", torch.bfloat16: "bfloat16", torch.int8: "int8"}


def float32_products() -> str:
    """Return how tensor cores multiply float32, by Triton's name of the way.

    ``tf32x3``: three products of TF32, as exact as float32. ``bf16x3``: three of bfloat16, for
    which they take half the time, with five times the error; only where
    ``torch.set_float32_matmul_precision`` allows other than the highest precision, as training
    does (docs/performance.md).
    """
    if INTERPRETED or torch.get_float32_matmul_precision() == "highest":
        return "tf32x3"
    from triton.backends.nvidia.compiler import CUDAOptions  # type: ignore[import-untyped]

    return "bf16x3" if "bf16x3" in CUDAOptions.allowed_dot_input_precisions else "tf32x3"


SCORES: dict[tuple[int, str], Sequence[ScoreTile]] = {
    (9, "bfloat16"): (ScoreTile(256, 0, 8, 2), ScoreTile(128, 0, 4, 1), ScoreTile(128, 0, 8, 3)),
    (9, "int8"): (ScoreTile(256, 0, 8, 3), ScoreTile(256, 0, 8, 2), ScoreTile(128, 0, 4, 2)),
    (9, "float32"): (ScoreTile(64, 32, 4, 3), ScoreTile(128, 32, 8, 3)),
    (9, "bfloat16 with argmax"): (ScoreTile(128, 0, 8, 2), ScoreTile(128, 0, 8, 3)),
    (9, "float32 with argmax"): (ScoreTile(64, 32, 4, 3), ScoreTile(128, 32, 8, 3)),
    (8, "bfloat16"): (ScoreTile(128, 0, 8, 2), ScoreTile(128, 64, 8, 3)),
    (8, "int8"): (ScoreTile(128, 0, 8, 3), ScoreTile(128, 64, 8, 3)),
    (8, "float32"): (ScoreTile(64, 32, 4, 2),),
    (8, "bfloat16 with argmax"): (ScoreTile(64, 0, 4, 2), ScoreTile(128, 0, 8, 2)),
    (8, "float32 with argmax"): (ScoreTile(64, 32, 4, 2),),
}
"""By generation (9: Hopper and later, 8: Ampere and Ada) and type."""

GRADIENTS: dict[tuple[int, str], Sequence[GradientTile]] = {
    (9, "bfloat16"): (
        GradientTile(64, 32, 256, 4, 3),
        GradientTile(128, 32, 256, 8, 3),
        GradientTile(64, 64, 256, 8, 3),
        GradientTile(128, 64, 128, 8, 3),
    ),
    (9, "float32"): (GradientTile(64, 32, 128, 4, 2), GradientTile(128, 32, 128, 8, 2)),
    (8, "bfloat16"): (GradientTile(64, 32, 128, 4, 3), GradientTile(64, 32, 256, 8, 2)),
    (8, "float32"): (GradientTile(64, 32, 64, 4, 2),),
}

SCANS: dict[str, Sequence[ScanTile]] = {
    "narrow": (ScanTile(64, 4, 3), ScanTile(128, 4, 2), ScanTile(64, 4, 4), ScanTile(32, 4, 4)),
    "wide": (ScanTile(64, 4, 2), ScanTile(64, 4, 3), ScanTile(128, 8, 2), ScanTile(64, 8, 3)),
    "codes": (ScanTile(64, 4, 2), ScanTile(32, 4, 2), ScanTile(32, 4, 3)),
}
"""For up to 32 bags, for more, and for residual codes."""

SMALL_SCANS = (ScanTile(16, 4, 2),)
SMALL_SCORES = (ScoreTile(32, 16, 4, 2),)
SMALL_GRADIENTS = (GradientTile(16, 16, 16, 4, 2),)
"""For the interpreter: more tiles of a small problem meet an edge."""


def score_tiles_for(device: torch.device, dtype: torch.dtype, *, argmax: bool) -> list[ScoreTile]:
    """Return the table of scores for a device and a type."""
    if INTERPRETED:
        return list(SMALL_SCORES)
    name = KIND[dtype] + (" with argmax" if argmax else "")
    return list(SCORES[_generation(device), name])


def gradient_tiles_for(device: torch.device, dtype: torch.dtype) -> list[GradientTile]:
    """Return the table of gradients for a device and a type."""
    if INTERPRETED:
        return list(SMALL_GRADIENTS)
    return list(GRADIENTS[_generation(device), KIND[dtype]])


def scan_tiles_for(kind: str) -> list[ScanTile]:
    """Return the table of scans: ``narrow``, ``wide`` or ``codes``."""
    return list(SMALL_SCANS if INTERPRETED else SCANS[kind])


@cache
def _generation(device: torch.device) -> int:
    return 9 if torch.cuda.get_device_capability(device)[0] >= 9 else 8


def least_depth(dimension: int, dtype: torch.dtype) -> int:
    """Return the smallest depth of one product: a power of two ≥ ``dimension`` that tl.dot takes.

    Tensor cores multiply at least 32 int8 dimensions, or 16 of wider types, at once.
    """
    return max(32 if dtype == torch.int8 else 16, 1 << (dimension - 1).bit_length())


@dataclass(frozen=True)
class Columns:
    """A layout of the patches of images as columns of tiles.

    Attributes:
        images: Images of a tile.
        length: Columns of each image in a block.
        extra: Columns after the last block, 0 or 16.
        several: Whether an image may take several blocks.
    """

    images: int
    length: int
    extra: int
    several: bool

    @classmethod
    def best(cls, lengths: Tensor, columns: int, *, join: bool) -> Columns:
        """Choose the layout with the fewest columns for images of ``lengths`` [n].

        Args:
            lengths: Patches of the images, at least one image.
            columns: Largest number of columns of a tile.
            join: Whether several short images may share a tile.

        Example:
            >>> Columns.best(torch.tensor([257, 257]), 256, join=True)  # patches and class token
            Columns(images=1, length=256, extra=16, several=False)
            >>> Columns.best(torch.tensor([32, 20]), 256, join=True)
            Columns(images=8, length=32, extra=0, several=False)
        """
        longest = int(lengths.max())
        found: dict[Columns, float] = {}
        length = 16
        while length <= columns:
            if join and longest <= length:
                found[cls(columns // length, length, 0, False)] = float(length * len(lengths))
            for extra in (0, 16):
                blocks = (-(-(lengths - extra).clamp_min(0) // length)).clamp_min(1)
                # Narrow tiles use the tensor cores worse, by about 16 columns each.
                used = float((blocks * (length + 16) + extra).sum())
                found[cls(1, length, extra, longest > length + extra)] = used
            length *= 2
        return min(found, key=lambda each: found[each])


Tile = TypeVar("Tile", ScoreTile, GradientTile, ScanTile)

_chosen: dict[Hashable, object] = {}


def _event() -> torch.cuda.Event:
    return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]


@contextmanager
def all_timed(work: float) -> Iterator[None]:
    """Time the tables of all kernels inside the block, from ``work`` operations on."""
    global TUNE_FROM, TUNE_GRADIENTS_FROM
    before = TUNE_FROM, TUNE_GRADIENTS_FROM
    TUNE_FROM = TUNE_GRADIENTS_FROM = work
    try:
        yield
    finally:
        TUNE_FROM, TUNE_GRADIENTS_FROM = before


def fastest(
    key: Hashable,
    tiles: Sequence[Tile],
    work: float,
    run: Callable[[Tile], object],
    *,
    gradients: bool = False,
) -> Tile:
    """Return the tile to use; time all of them once if the work is large.

    Args:
        key: Everything that the choice depends on.
        tiles: The table; a tile that does not compile on this device is left out.
        work: Operations of ``run``.
        run: Runs the kernel once with a tile. Its results must not depend on the tile, but for
            the order of sums.
        gradients: Whether the results are gradients, or what they are made of.
    """
    limit = TUNE_GRADIENTS_FROM if gradients else TUNE_FROM
    kept = _chosen.get(key)
    if kept is not None:
        return kept  # type: ignore[return-value]
    if INTERPRETED or len(tiles) == 1 or work < limit:
        return tiles[0]
    seconds = dict.fromkeys(tiles, math.inf)
    for tile in tiles:
        try:
            run(tile)  # compiles
            begin, end = _event(), _event()
            begin.record()
            run(tile)
            end.record()
            end.synchronize()
            seconds[tile] = begin.elapsed_time(end) / 1000
        except Exception:  # errors of Triton's compiler and of ptxas have no common class
            continue  # if no tile runs, the caller's launch of the first one raises the error
    TIMES[key] = {tile: time for tile, time in seconds.items()}  # noqa: C416 (wider type)
    _chosen[key] = min(tiles, key=lambda each: seconds[each])
    return _chosen[key]  # type: ignore[return-value]
