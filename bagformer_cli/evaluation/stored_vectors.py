"""Vectors from files as the source of an evaluation: anybody's, whatever made them.

Shapes: n items of a file or of a split.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bagformer_cli.data.muge import MugeFolder
from bagformer_cli.data.store.split import Split
from bagformer_cli.errors import DataError, first_few, shortened
from bagformer_cli.evaluation.encoded_split import EncodedSplit
from bagformer_cli.evaluation.sources import Scores, items_of_vectors, open_images, score_vectors
from bagformer_cli.messages import tr
from bagformer_cli.models.build import RetrievalModel
from bagformer_cli.models.encode import EncodedItems
from bagformer_cli.progress import SILENT, Progress
from bagformer_cli.vectors.vector_files import VectorItems, read_vector_file


class StoredVectors:
    """Vectors of a split's texts and images, from two files.

    The files hold every text and every image of the split once, in any order, and nothing else.

    Args:
        texts: The file of the texts' vectors.
        images: The file of the images' vectors.

    Raises:
        InputError: A file cannot be read.
        DataError: A line or row is wrong, or the two files have vectors of different dimensions.
    """

    model: RetrievalModel | None = None

    def __init__(self, texts: Path, images: Path) -> None:
        self.name = f"{texts} {images}"
        self._texts = read_vector_file(texts, "text")
        self._images = read_vector_file(images, "image")
        dims = self._texts.vectors.dim, self._images.vectors.dim
        if dims[0] != dims[1]:
            raise DataError(
                tr("The two files have vectors of different dimensions."),
                where=self.name,
                found=f"{dims[0]}, {dims[1]}",
            )

    def facts(self) -> dict[str, Any]:
        """Return dimension, vectors per item, and how many vectors were scaled to length 1."""
        return {
            "features": {
                "dim": self._texts.vectors.dim,
                "vectors_per_text": _per_item(self._texts),
                "vectors_per_image": _per_item(self._images),
                "scaled": self._texts.scaled + self._images.scaled,
            }
        }

    def open(self, folder: MugeFolder, split: str, progress: Progress = SILENT) -> Split:
        """Open a split without tokens; of its images only the ids are read."""
        return open_images(folder, split, progress)

    def encode(
        self, split: Split, batch_size: int, *, states: bool = False, progress: Progress = SILENT
    ) -> EncodedSplit:
        """Bring the vectors into the order of the split.

        Raises:
            DataError: An id is missing, occurs twice, or is not of the split.
        """
        images = _arranged(self._images, split.image_ids, tr("images"))
        texts = _arranged(self._texts, split.query_ids, tr("queries"))
        return EncodedSplit(images, texts)

    def score(self, encoded: EncodedSplit) -> Scores:
        """Score all pairs by MaxSim: of single vectors, this is their cosine."""
        return score_vectors(encoded)


def _per_item(items: VectorItems) -> float:
    return round(len(items.vectors.values) / len(items.ids), 2)


def _arranged(items: VectorItems, ids: NDArray[np.int64], what: str) -> EncodedItems:
    """Put items into the order of ``ids``, the ids of the split's ``what``."""
    position = {number: at for at, number in enumerate(ids.tolist())}
    order = np.full(len(ids), -1, np.int64)
    for at, identity in enumerate(items.ids):
        where = position.get(_number(identity), -1)
        if where < 0:
            raise DataError(
                tr("This id is not among the {what} of the split.", what=what),
                where=items.places(at),
                found=shortened(identity),
                hint=tr("Are these the vectors of another split or dataset?"),
            )
        if order[where] >= 0:
            raise DataError(
                tr("The id {id} occurs twice.", id=identity),
                where=items.places(at),
                found=tr("first in {place}", place=items.places(int(order[where]))),
            )
        order[where] = at
    missing = np.flatnonzero(order < 0)
    if len(missing):
        named = first_few(ids[missing[:4]].tolist(), 3)
        raise DataError(
            tr(
                "The file lacks {n} of the split's {total} {what}, so its recall cannot be "
                "measured.",
                n=len(missing),
                total=len(ids),
                what=what,
            ),
            where=items.path,
            found=tr("missing: {names}", names=named),
        )
    return items_of_vectors(items.vectors.select(torch.from_numpy(order)))


def _number(identity: int | str) -> int:
    """Return an id as a number; -1, which is no id, for any other text."""
    if isinstance(identity, int):
        return identity
    return int(identity) if identity.isascii() and identity.isdigit() and len(identity) < 20 else -1
