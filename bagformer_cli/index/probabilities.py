"""The probability that a hit is a match, from the calibration of the index's model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from bagformer_cli.calibration import Calibration, usable_calibration
from bagformer_cli.config.scoring import Scoring
from bagformer_cli.index.results import Hit
from bagformer_cli.index.rows import Layout, Side
from bagformer_cli.messages import tr
from bagformer_cli.progress import SILENT, Progress
from bagformer_cli.runtime.folder import is_exported, read_manifest
from bagformer_cli.vectors.stored_arrays import RESIDUAL4


def index_calibration(
    folder: Path, layout: Layout, scoring: Scoring, progress: Progress = SILENT
) -> Calibration | None:
    """Read the calibration of the model that searches an index; None: hits get no probability.

    Args:
        folder: The model folder, or an exported model; its fingerprint is that of the index.
        layout: The layout of the index. Fewer or coarser vectors give other scores than those that
            the calibration was fitted on; int8 moves mean scores by thousandths (docs/scores.md).
        scoring: How the model scores.
        progress: Receives the warning that a calibration does not fit.

    Raises:
        CheckpointError: The file is damaged.
    """
    precision = read_manifest(folder).precision if is_exported(folder) else "fp32"
    known = usable_calibration(folder, lambda: layout.model, scoring, precision, progress)
    if known is None or not (layout.reduction or layout.dtype == RESIDUAL4):
        return known
    progress.warn(
        tr(
            "Results get no probability: the index keeps fewer or coarser vectors than the model "
            "was calibrated with."
        )
    )
    return None


def with_probabilities(
    hits: Sequence[Sequence[Hit]], calibration: Calibration, images: bool, of: Side
) -> list[list[Hit]]:
    """Give each hit of the late interaction its probability.

    Hits that the cross-encoder has reordered, and searches for which there is no curve (image to
    image, title to title), have none.

    Args:
        hits: The hits of each query.
        calibration: The calibration of the index's model.
        images: Whether the queries are images.
        of: The side of the products that was compared.
    """
    curve = None
    if images != (of == "image"):
        curve = calibration.curves.get("image_to_text" if images else "text_to_image")
    if curve is None:
        return [list(own) for own in hits]
    return [
        [replace(hit, probability=float(curve.probability(hit.mean))) for hit in own]
        if all(hit.stage == "late" for hit in own)
        else list(own)
        for own in hits
    ]
