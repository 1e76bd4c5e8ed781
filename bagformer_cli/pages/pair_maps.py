"""Heat maps of pairs of a split: the cells of an image that each bag of a query fits."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from bagformer_cli.api import Retriever
from bagformer_cli.data.store.split import Split
from bagformer_cli.encoders.vision import VisionEncoder
from bagformer_cli.models.build import RetrievalModel
from bagformer_cli.models.score_explanation import explain_score, has_parts
from bagformer_cli.pages.heat_map import overlays, part_name
from bagformer_cli.pages.html import data_uri


@dataclass(frozen=True)
class PartMap:
    """A bag's part of a score, as a template reads it.

    Attributes:
        name: The characters of the bag.
        score: Its part of the score.
        overlay: Its heat map as a URI; None: the model has no grid.
    """

    name: str
    score: str
    overlay: str | None


class PairMaps:
    """Explains the scores of pairs of a split; items are encoded once.

    Args:
        model: A model that reads pixels.
        split: The split, tokenised for it.
    """

    def __init__(self, model: RetrievalModel, split: Split) -> None:
        self._retriever, self._split = Retriever(model), split
        self._images: dict[int, Tensor] = {}
        self._texts: dict[int, Tensor] = {}

    @classmethod
    def of(cls, model: RetrievalModel | None, split: Split) -> PairMaps | None:
        """Return the maps of a model; None if its scores cannot be explained by cells."""
        if model is None or not has_parts(model):
            return None
        if not isinstance(model.dual.vision_encoder, VisionEncoder):
            return None
        return cls(model, split)

    def parts(self, query: int, image: int) -> list[PartMap]:
        """Explain the score of a query and an image, both by their positions in the split."""
        title = self._split.texts[query]
        if query not in self._texts:
            (self._texts[query],) = self._retriever.encode_texts([title])
        if image not in self._images:
            picture = self._split.image(image)
            (self._images[image],) = self._retriever.encode_images([picture])
        found = explain_score(self._retriever.model, title, self._texts[query], self._images[image])
        return [
            PartMap(
                part_name(part),
                f"{part.score:.2f}",
                None if colours is None else data_uri(colours),
            )
            for part, colours in zip(found.parts, overlays(found.parts), strict=True)
        ]
