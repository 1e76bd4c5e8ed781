"""Recall on the named sets of queries of a dataset (``sets.json``).

Shapes: Q queries.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from bagformer_cli.data.query_sets import read_sets
from bagformer_cli.data.store.split import Split
from bagformer_cli.evaluation.metrics import recall
from bagformer_cli.evaluation.result import Evaluation, name_of


def recall_by_set(folder: Path, split: Split, found: Evaluation) -> dict[str, Any]:
    """Measure text-to-image recall of every stage on each set of a split's queries.

    Args:
        folder: The dataset.
        split: The split that was evaluated as a whole.
        found: Its evaluation.

    Returns:
        Set to ``queries`` (how many), ``stages`` (stage to recall in percent) and ``figures`` (what
        the file says of the set); empty if the dataset has no file of sets. Queries that the split
        does not have are left out, and sets without any.
    """
    position = {number: row for row, number in enumerate(split.query_ids.tolist())}
    report = {}
    for name, one in read_sets(folder, split.name).items():
        rows = np.array([position[q] for q in one.queries if q in position], np.int64)
        if len(rows):
            stages = {
                stage: recall(found.ranks[name_of(stage, "text_to_image")][rows]).percent()
                for stage in found.stages
            }
            figures = dict(one.figures)
            report[name] = {"queries": len(rows), "stages": stages, "figures": figures}
    return report
