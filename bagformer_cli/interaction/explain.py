"""Explain a score: which patch each bag matches best, and how much it adds to the score.

Shapes: G bags, P patches, D dimensions.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bagformer_cli.errors import InputError
from bagformer_cli.messages import tr


@dataclass(frozen=True, slots=True)
class Explanation:
    """The parts of the two scores of a title and an image. All tensors are on the CPU.

    Attributes:
        products: [G, P] float32, dot products of all bags with all patches.
        patch_of_bag: [G] int64, index of the patch closest to each bag; the first of equals.
        bag_of_patch: [P] int64, index of the bag closest to each patch; the first of equals.
        bag_scores: [G] float32, each bag's part of ``t2i``; they sum to it.
        patch_scores: [P] float32, each patch's part of ``i2t``; they sum to it.
        t2i: Score from title to image.
        i2t: Score from image to title.
    """

    products: Tensor
    patch_of_bag: Tensor
    bag_of_patch: Tensor
    bag_scores: Tensor
    patch_scores: Tensor
    t2i: float
    i2t: float

    @property
    def bag_shares(self) -> Tensor:
        """Return each bag's share of ``t2i`` [G]; the shares sum to 1.

        All zeros if ``t2i`` is not positive. A bag with a negative dot product has a negative
        share.
        """
        return self.bag_scores / self.t2i if self.t2i > 0 else torch.zeros_like(self.bag_scores)


def explain(title: Tensor, image: Tensor) -> Explanation:
    """Split the MaxSim scores of one title and one image into the parts of bags and patches.

    Args:
        title: [G, D], vectors of the title.
        image: [P, D], vectors of the image.

    Raises:
        ValueError: The shapes do not fit each other.
        InputError: The title or the image has no vectors.

    Example:
        >>> title = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
        >>> image = torch.tensor([[0.6, 0.1], [0.0, 0.2]])
        >>> found = explain(title, image)
        >>> found.patch_of_bag.tolist(), found.bag_shares
        ([0, 1], tensor([0.7500, 0.2500]))
    """
    if title.ndim != 2 or image.ndim != 2 or title.shape[1] != image.shape[1]:
        raise ValueError(
            "title [G, D] and image [P, D] must have the same D, found "
            f"{list(title.shape)} and {list(image.shape)}"
        )
    if not len(title) or not len(image):
        raise InputError(tr("A title or image without vectors has no score to explain."))
    products = (title.detach().float() @ image.detach().float().T).cpu()
    by_bag, by_patch = products.max(1), products.max(0)
    return Explanation(
        products=products,
        patch_of_bag=by_bag.indices,
        bag_of_patch=by_patch.indices,
        bag_scores=by_bag.values,
        patch_scores=by_patch.values,
        t2i=float(by_bag.values.sum()),
        i2t=float(by_patch.values.sum()),
    )
