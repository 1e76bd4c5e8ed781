"""Score queries against items by a :class:`~bagformer_cli.config.scoring.ScoreRule`.

``maxsim.py`` computes the two sums; a rule says which of them is the score.

Shapes: Q queries, N items, n candidates.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bagformer_cli.config.scoring import MAXSIM, ScoreRule
from bagformer_cli.interaction.kernels.blocks import cut
from bagformer_cli.interaction.maxsim import BUDGET, maxsim, score_texts
from bagformer_cli.transfer import to_device
from bagformer_cli.vectors.multi_vectors import MultiVectors, offsets_of


def rule_scores(
    queries: MultiVectors,
    items: MultiVectors,
    rule: ScoreRule = MAXSIM,
    *,
    dtype: torch.dtype | None = None,
    candidates: Tensor | None = None,
    budget: int = BUDGET,
) -> Tensor:
    """Score every query against every item by a rule, without gradients.

    Args:
        queries: Q queries.
        items: N items, on the same device.
        rule: The rule.
        dtype: Type in which vectors are multiplied; see :func:`~.maxsim.maxsim`. A mean of all dot
            products is computed in float32.
        candidates: [n] int64, positions of the items to score; None: all N.
        budget: Bytes that temporaries may take.

    Returns:
        [Q, N] float32, or [Q, n] of the candidates, in their order.

    Example:
        >>> queries = MultiVectors.from_list([torch.tensor([[1.0, 0.0], [0.0, 1.0]])])
        >>> items = MultiVectors.from_list([torch.tensor([[0.9, 0.3], [0.1, 0.4], [0.2, 0.5]])])
        >>> rule_scores(queries, items), rule_scores(queries, items, ScoreRule(False, True))
        (tensor([[1.4000]]), tensor([[1.8000]]))
    """
    if rule.is_maxsim:
        scores = score_texts(queries, items, dtype=dtype, candidates=candidates, budget=budget)
        return scores / _counts(queries, scores.device)[:, None] if rule.means else scores
    chosen = None if candidates is None else items.check_positions(candidates)
    lengths = items.lengths if chosen is None else items.lengths[chosen]
    limit = max(1, budget // (8 * max(1, items.values[:1].nbytes)))
    parts = [torch.zeros(len(queries), 0, device=queries.device)]
    with torch.no_grad():
        for first, end in cut(offsets_of(lengths), limit):
            part = items[first:end] if chosen is None else items.select(chosen[first:end])
            parts.append(_block(queries, part, rule, dtype, budget // 2))
    return torch.cat(parts, dim=1)


def _block(
    queries: MultiVectors,
    items: MultiVectors,
    rule: ScoreRule,
    dtype: torch.dtype | None,
    budget: int,
) -> Tensor:
    if rule.is_mean:
        plain = items.to(dtype=torch.float32)
        return queries.to(dtype=torch.float32).mean() @ plain.mean().T
    by_query, by_item = maxsim(queries, items, dtype=dtype, budget=budget)
    counts = _counts(queries, by_query.device)[:, None], _counts(items, by_query.device)[None]
    scores: Tensor = rule.combine(by_query, by_item.T, *counts)
    return scores


def _counts(items: MultiVectors, device: torch.device) -> Tensor:
    """Return the items' numbers of vectors, at least 1."""
    return to_device(items.lengths.clamp(min=1), device)
