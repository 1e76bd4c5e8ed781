"""Count the queries of a split that have answers; the answers of a test split may be hidden.

MUGE's test queries name no images: ``item_ids`` is empty or missing. Recall is unknown then, not 0.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bagformer_cli.data.store.split import Split
from bagformer_cli.errors import InputError, first_few
from bagformer_cli.messages import tr
from bagformer_cli.progress import Progress

_NAMED = 5  # query ids that a warning names


def without_answers(split: Split) -> NDArray[np.int64]:
    """Return the ids of the queries that name no image."""
    ids: NDArray[np.int64] = split.query_ids[np.diff(split.item_offsets) == 0]
    return ids


def require_answers(split: Split, where: object, *, hint: str | None = None) -> None:
    """Refuse a split whose answers are all hidden.

    Args:
        split: The split.
        where: Its queries file, for the message.
        hint: Next step without answers, for the message.

    Raises:
        InputError: No query names an image.
    """
    n = len(split.query_ids)
    if len(without_answers(split)) == n:
        raise InputError(
            tr("The answers of this split are hidden, so its recall cannot be measured."),
            where=str(where),
            found=tr("{n} queries, none of which names its images", n=n),
            hint=hint,
        )


def warn_without_answers(split: Split, where: object, progress: Progress) -> int:
    """Warn of queries that are left out of recall because they name no image.

    Args:
        split: The split.
        where: Its queries file, for the message.
        progress: Where to report.

    Returns:
        The number of these queries.
    """
    ids = without_answers(split).tolist()
    if 0 < len(ids) < len(split.query_ids):
        named = first_few(ids, _NAMED)
        progress.warn(
            tr(
                "{where}: {n} of {total} queries name no image and are left out of recall "
                "(query ids {ids}).",
                where=where,
                n=len(ids),
                total=len(split.query_ids),
                ids=named,
            )
        )
    return len(ids)
