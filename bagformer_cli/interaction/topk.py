"""Find the best images of each title: a scan in bounded memory, and float32 scores of the best.

The queries are called titles here and the items that are searched images, as in most searches. A
rule scores them (``rules.py``), by default MaxSim of the query.

Shapes: Q titles, N images, C candidates per title, L bags of the longest title, P patches of the
longest image, D dimensions.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bagformer_cli.config.scoring import MAXSIM, ScoreRule
from bagformer_cli.interaction.kernels.blocks import cut
from bagformer_cli.interaction.maxsim import BUDGET
from bagformer_cli.interaction.rules import rule_scores
from bagformer_cli.vectors.multi_vectors import MultiVectors, offsets_of


def topk(
    texts: MultiVectors,
    images: MultiVectors,
    k: int,
    *,
    dtype: torch.dtype | None = None,
    candidates: Tensor | None = None,
    rule: ScoreRule = MAXSIM,
    budget: int = BUDGET,
) -> tuple[Tensor, Tensor]:
    """Return the ``k`` images with the highest score for each title.

    Args:
        texts: Q titles.
        images: N images, for example memory-mapped: they are read once, in blocks.
        k: Number of results, at least 1. Fewer are returned if there are fewer images.
        dtype: Type in which vectors are multiplied, see
            :func:`~bagformer_cli.interaction.maxsim.maxsim`.
        candidates: [n] int64, rising: positions of the images that may be returned, the same for
            all titles (those that a filter or a first stage passes on). None: all images.
        rule: The score. Default: ``t2i``.
        budget: Bytes that temporaries may take.

    Returns:
        Scores [Q, k] float32, highest first, and positions [Q, k] int64. The lower position
        of equal scores comes first, also where only some of them are among the ``k``: so fewer
        results are always the first of more.

    Raises:
        ValueError: ``k`` is less than 1, or ``candidates`` are not positions of images.

    Example:
        >>> texts = MultiVectors.from_list([torch.tensor([[1.0, 0.0]])])
        >>> values = torch.tensor([[0.5, 0.0], [0.0, 1.0], [0.9, 0.0]])
        >>> images = MultiVectors.from_list(list(values[:, None]))
        >>> topk(texts, images, 2)
        (tensor([[0.9000, 0.5000]]), tensor([[2, 0]]))
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, found {k}")
    if candidates is None:
        lengths = images.lengths
    else:
        lengths = images.lengths[images.check_positions(candidates)]
    best = torch.empty(len(texts), 0, device=texts.device)
    positions = torch.empty(len(texts), 0, dtype=torch.int64, device=texts.device)
    for first, end in _ranges(texts, lengths, budget):
        block = images[first:end] if candidates is None else images
        own = None if candidates is None else candidates[first:end]
        scores = rule_scores(texts, block, rule, dtype=dtype, candidates=own, budget=budget // 2)
        index = best_columns(scores, k)
        best, positions = merge_best(best, positions, scores.gather(1, index), index + first, k)
    return best, positions if candidates is None else candidates.to(positions.device)[positions]


def topk_rescored(
    texts: MultiVectors,
    images: MultiVectors,
    k: int,
    *,
    scan: MultiVectors | None = None,
    dtype: torch.dtype = torch.int8,
    oversample: int = 4,
    candidates: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Do what :func:`topk` does in two steps: a cheap scan, then float32 scores of its best.

    The result equals a float32 scan if the cheap scan has the true best ``k`` among its best
    ``oversample * k``.

    Args:
        texts: Q titles in full precision.
        images: N images in full precision; only the best of the scan are read.
        k: Number of results.
        scan: The same images in a cheaper type. None: ``images``, converted block by block.
        dtype: Type in which the scan multiplies.
        oversample: Images rescored per result. Larger values cost time and find more.
        candidates: [n] int64, rising: positions of the images that may be returned; None: all.

    Returns:
        Scores and positions as :func:`topk` returns them.

    Raises:
        ValueError: ``scan`` and ``images`` differ in length, or see :func:`topk`.
    """
    scan = images if scan is None else scan
    if len(scan) != len(images):
        raise ValueError(
            f"scan must hold the same items as images, found {len(scan)} and {len(images)}"
        )
    _, best = topk(texts, scan, k * oversample, dtype=dtype, candidates=candidates)
    return rescored(texts, images, k, best)


def rescored(
    texts: MultiVectors,
    images: MultiVectors,
    k: int,
    positions: Tensor,
    rule: ScoreRule = MAXSIM,
) -> tuple[Tensor, Tensor]:
    """Score each title's images at ``positions`` [Q, C] in float32; return the best ``k``.

    Returns:
        Scores and positions as :func:`topk` returns them.
    """
    positions = positions.sort(dim=1).values
    scores = score_pairs(texts, images, positions, rule)
    index = best_columns(scores, k)
    return sort_best(scores.gather(1, index), positions.gather(1, index))


def score_pairs(
    texts: MultiVectors,
    images: MultiVectors,
    candidates: Tensor,
    rule: ScoreRule = MAXSIM,
    *,
    budget: int = BUDGET,
) -> Tensor:
    """Score some pairs in float32.

    Args:
        texts: Q titles.
        images: N images.
        candidates: [Q, C] int64, positions of the images to score for each title.
        rule: The score. Default: ``t2i``.
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
    pairs = max(1, budget // (8 * P * (images.dim + L)))  # vectors and products of a pair, twice
    columns = min(pairs, candidates.shape[1])
    step = max(1, pairs // columns)
    for q0 in range(0, len(texts), step):
        q1 = min(len(texts), q0 + step)
        for c0 in range(0, candidates.shape[1], columns):
            block = candidates[q0:q1, c0 : c0 + columns]
            scores[q0:q1, c0 : c0 + columns] = _score_block(texts[q0:q1], images, block, rule)
    return scores


@torch.no_grad()
def _score_block(
    texts: MultiVectors, images: MultiVectors, candidates: Tensor, rule: ScoreRule
) -> Tensor:
    """Score [Q, C] pairs with one matrix product; shorter items repeat their last vector."""
    if not len(texts.values):
        return torch.zeros(candidates.shape, device=texts.device)
    bags, real = _padded(texts, torch.arange(len(texts))[:, None])  # [Q, 1, L, D], [Q, 1, L]
    patches, filled = _padded(images, candidates)  # [Q, C, P, D], [Q, C, P]
    Q, C, P, D = patches.shape
    with torch.autocast(patches.device.type, enabled=False):
        products = torch.bmm(patches.reshape(Q, C * P, D), bags[:, 0].mT)  # [Q, C·P, L]
    products = products.reshape(Q, C, P, -1)
    counts = real.sum(2).clamp(min=1), filled.sum(2).clamp(min=1)  # [Q, 1], [Q, C]
    filled = filled * real[:, :, :1]  # a title without vectors scores 0
    if rule.is_mean:
        shared = (products * real[:, :, None] * filled[..., None]).sum((2, 3))
        return shared / (counts[0] * counts[1])
    # A repeated vector does not change the maximum. It would change the sum.
    by_title = (products.amax(2) * real * filled[:, :, :1]).sum(2)
    by_image = (products.amax(3) * filled).sum(2) if rule.over_item else by_title
    scores: Tensor = rule.combine(by_title, by_image, *counts)
    return scores


def _padded(vectors: MultiVectors, positions: Tensor) -> tuple[Tensor, Tensor]:
    """Return float32 vectors [Q, C, longest, D] of items at [Q, C], and which are no repeats."""
    lengths = vectors.lengths[positions][..., None]
    within = torch.arange(max(1, int(lengths.max())))
    rows = vectors.offsets[positions][..., None]
    rows = rows + torch.minimum(within, (lengths - 1).clamp_min(0))
    rows = rows.clamp_max(max(0, len(vectors.values) - 1)).to(vectors.device)
    values = vectors.rows(rows)
    if vectors.scales is not None:
        values *= vectors.scales[positions.to(vectors.device)][..., None, None]
    return values, (within < lengths).to(vectors.device)


def _ranges(texts: MultiVectors, lengths: Tensor, budget: int) -> list[tuple[int, int]]:
    """Cut images of such ``lengths`` so that scores and a copy of them fit half the budget."""
    items = max(1, budget // (2 * 8 * max(1, len(texts))))
    mean = max(1.0, float(lengths.sum()) / max(1, len(lengths)))
    return cut(offsets_of(lengths), max(1, int(items * mean)))


def best_columns(scores: Tensor, k: int) -> Tensor:
    """Return the columns of the ``k`` highest scores of each row [Q, n], the first of equal ones.

    ``Tensor.topk`` takes any of the equal ones. Images of one product, or products of one image,
    often score the same.
    """
    count = scores.shape[1]
    values, index = scores.topk(min(k + 1, count), dim=1)  # one more shows whether the edge is tied
    if count <= k:
        return index
    edges = values[:, k - 1]
    for row in (edges == values[:, k]).nonzero().flatten().tolist():
        above = (~(scores[row] <= edges[row])).nonzero().flatten()  # NaN ranks above, as in topk
        equal = (scores[row] == edges[row]).nonzero().flatten()
        index[row, :k] = torch.cat([above, equal[: k - len(above)]])
    return index[:, :k]


def merge_best(
    best: Tensor, positions: Tensor, scores: Tensor, added: Tensor, k: int
) -> tuple[Tensor, Tensor]:
    """Add ``scores`` [Q, m] of positions ``added`` to the best so far; keep ``k``, as sorted."""
    best, positions = sort_best(torch.cat([best, scores], 1), torch.cat([positions, added], 1))
    return best[:, :k], positions[:, :k]


def sort_best(scores: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
    """Sort by score, highest first, and equal scores by position."""
    positions, order = positions.sort(dim=1)
    scores, index = scores.gather(1, order).sort(dim=1, descending=True, stable=True)
    return scores, positions.gather(1, index)
