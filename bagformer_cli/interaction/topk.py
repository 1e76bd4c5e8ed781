"""The best images for each title: a scan in bounded memory, and exact scores for the few left.

Shapes: Q titles, N images, C candidates, L bags of the longest title, P patches of the longest
image, D dimensions.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bagformer_cli.errors import InputError
from bagformer_cli.interaction.kernels.blocks import cut
from bagformer_cli.interaction.maxsim import BUDGET, score_texts
from bagformer_cli.messages import tr
from bagformer_cli.vectors.multi_vectors import MultiVectors, offsets_of


def topk(
    texts: MultiVectors,
    images: MultiVectors,
    k: int,
    *,
    dtype: torch.dtype | None = None,
    chosen: Tensor | None = None,
    budget: int = BUDGET,
) -> tuple[Tensor, Tensor]:
    """The ``k`` images that score highest for each title.

    Args:
        texts: Q titles.
        images: N images, memory-mapped perhaps: they are read once, a block at a time.
        k: How many; no more are returned than there are (or are chosen).
        dtype: What is multiplied, see :func:`~bagformer_cli.interaction.maxsim.maxsim`.
        chosen: [n] int64, rising: the positions of the images that may be found (by a filter, by
            a first stage); None: all.
        budget: Bytes that temporaries may take.

    Returns:
        Scores [Q, k] float32, falling, and positions [Q, k] int64; of equal scores among them
        the lower position first.

    Raises:
        InputError: ``k`` is none, or ``chosen`` are no positions of images.
    """
    if k < 1:
        raise InputError(tr("At least one result must be asked for."), found=k, expected="k ≥ 1")
    lengths = images.lengths if chosen is None else images.lengths[images.positions(chosen)]
    best = torch.empty(len(texts), 0, device=texts.device)
    where = torch.empty(len(texts), 0, dtype=torch.int64, device=texts.device)
    for first, end in _ranges(texts, images, lengths, budget):
        block = images[first:end] if chosen is None else images
        some = None if chosen is None else chosen[first:end]
        scores = score_texts(texts, block, dtype=dtype, chosen=some, budget=budget // 2)
        found, place = scores.topk(min(k, end - first), dim=1)
        best = torch.cat([best, found], 1)
        where = torch.cat([where, place + first], 1)
        if best.shape[1] > k:
            best, place = best.topk(k, dim=1)
            where = where.gather(1, place)
    best, where = _in_order(best, where)
    return best, where if chosen is None else chosen.to(where.device)[where]


def topk_rescored(
    texts: MultiVectors,
    images: MultiVectors,
    k: int,
    *,
    scan: MultiVectors | None = None,
    dtype: torch.dtype = torch.int8,
    oversample: int = 4,
    chosen: Tensor | None = None,
    budget: int = BUDGET,
) -> tuple[Tensor, Tensor]:
    """As :func:`topk`, in two steps: a cheap scan for ``oversample · k``, then float32 for those.

    The result is that of a float32 scan as long as the cheap scan has each of the true ``k``
    among its ``oversample · k``.

    Args:
        texts: Q titles, in full precision.
        images: N images, in full precision; only candidates are read.
        k: How many.
        scan: The same images in a cheaper type; by default ``images``, converted as they pass.
        dtype: The cheap type.
        oversample: Candidates for each result.
        chosen: [n] int64, rising: the images that may be found; None: all.
        budget: Bytes that temporaries may take.

    Returns:
        As :func:`topk`, the scores in float32 precision.

    Raises:
        InputError: If ``scan`` has not the same items.
    """
    scan = images if scan is None else scan
    if len(scan) != len(images):
        raise InputError(
            tr("The scanned images are not the images."), found=len(scan), expected=len(images)
        )
    _, candidates = topk(texts, scan, k * oversample, dtype=dtype, chosen=chosen, budget=budget)
    scores = score_pairs(texts, images, candidates, budget=budget)
    best, place = scores.topk(min(k, scores.shape[1]), dim=1)
    return _in_order(best, candidates.gather(1, place))


def score_pairs(
    texts: MultiVectors, images: MultiVectors, candidates: Tensor, *, budget: int = BUDGET
) -> Tensor:
    """``t2i`` of chosen pairs alone, in float32.

    Args:
        texts: Q titles.
        images: N images.
        candidates: [Q, C] int64, the positions of the images to score for each title.
        budget: Bytes that temporaries may take.

    Returns:
        [Q, C] float32.
    """
    candidates = candidates.cpu()
    scores = torch.zeros(candidates.shape, device=texts.device)
    L = int(texts.lengths.max()) if len(texts) else 0
    P = int(images.lengths.max()) if len(images) else 0
    if not scores.numel() or not L or not P:
        return scores
    pairs = max(1, budget // (8 * P * (images.dim + L)))  # a pair's vectors and products, twice
    columns = min(pairs, candidates.shape[1])
    for q0 in range(0, len(texts), max(1, pairs // columns)):
        q1 = min(len(texts), q0 + max(1, pairs // columns))
        for c0 in range(0, candidates.shape[1], columns):
            chosen = candidates[q0:q1, c0 : c0 + columns]
            scores[q0:q1, c0 : c0 + columns] = _score_block(texts[q0:q1], images, chosen)
    return scores


@torch.no_grad()
def _score_block(texts: MultiVectors, images: MultiVectors, chosen: Tensor) -> Tensor:
    """[Q, C] scores of ``chosen`` images, all at once: short lists repeat their last vector."""
    if not len(texts.values):
        return torch.zeros(chosen.shape, device=texts.device)
    bags, real = _filled(texts, torch.arange(len(texts))[:, None])  # [Q, 1, L, D], [Q, 1, L]
    patches, there = _filled(images, chosen)  # [Q, C, P, D], [Q, C, P]
    Q, C, P, D = patches.shape
    with torch.autocast(patches.device.type, enabled=False):
        products = torch.bmm(patches.reshape(Q, C * P, D), bags[:, 0].mT)  # [Q, C·P, L]
    best = products.reshape(Q, C, P, -1).amax(2)  # a repeated patch is no new maximum
    return (best * real * there[:, :, :1]).sum(2)


def _filled(vectors: MultiVectors, chosen: Tensor) -> tuple[Tensor, Tensor]:
    """[Q, C] positions → float32 vectors [Q, C, longest, D] and which of them are no repeats."""
    lengths = vectors.lengths[chosen][..., None]
    place = torch.arange(max(1, int(lengths.max())))
    index = vectors.offsets[chosen][..., None] + torch.minimum(place, (lengths - 1).clamp_min(0))
    index = index.clamp_max(max(0, len(vectors.values) - 1)).to(vectors.device)
    values = vectors.rows(index)
    if vectors.scales is not None:
        values *= vectors.scales[chosen.to(vectors.device)][..., None, None]
    return values, (place < lengths).to(vectors.device)


def _ranges(
    texts: MultiVectors, images: MultiVectors, lengths: Tensor, budget: int
) -> list[tuple[int, int]]:
    """Ranges of items of such ``lengths`` whose scores, and a copy of them, fit half the budget."""
    items = max(1, budget // (2 * 8 * max(1, len(texts))))
    mean = max(1.0, float(lengths.sum()) / max(1, len(lengths)))
    return cut(offsets_of(lengths), max(1, int(items * mean)))


def _in_order(scores: Tensor, where: Tensor) -> tuple[Tensor, Tensor]:
    where, order = where.sort(dim=1)
    scores, place = scores.gather(1, order).sort(dim=1, descending=True, stable=True)
    return scores, where.gather(1, place)
