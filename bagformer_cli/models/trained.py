"""The scorers that a configuration trains."""

from __future__ import annotations

from bagformer_cli.config import RunConfig


def trained_scorers(config: RunConfig) -> frozenset[str]:
    """Name the scorers that a configuration's objectives train.

    Returns:
        A subset of ``cls`` (one vector a side), ``late`` (late interaction) and ``slow``
        (cross-encoder). MLM and MFM train layers of the cross-encoder, but not its score.
    """
    weights, model, distill = config.objectives, config.model, config.distill
    losses = {
        "cls": weights.itc,
        "late": weights.late_interaction if model.late is not None else 0.0,
        "slow": weights.itm + weights.caption,
    }
    if distill is not None and distill.weight > 0:
        losses["cls" if model.single else "late"] += distill.weight
    return frozenset(name for name, weight in losses.items() if weight > 0)


def trains_cross_encoder(config: RunConfig) -> bool:
    """Tell whether any objective trains weights of the cross-encoder."""
    weights = config.objectives
    return weights.itm + weights.caption + weights.mlm + weights.mfm > 0
