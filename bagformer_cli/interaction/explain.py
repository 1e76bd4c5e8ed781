"""Where a score comes from: which bag met which patch, and its share.

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
    """One title and one image, taken apart. All tensors float32 or int64, on the CPU.

    Attributes:
        products: [G, P], the dot products of all bags with all patches.
        patch_of_bag: [G], the patch each bag met: the first of those it is closest to.
        bag_of_patch: [P], the bag each patch met.
        bag_scores: [G], each bag's term of ``t2i``; they sum to it.
        patch_scores: [P], each patch's term of ``i2t``.
        t2i: The title's score for the image.
        i2t: The image's score for the title.
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
        """[G], each bag's share of ``t2i``; they sum to 1. Zeros where the score is not positive.

        A bag that met nothing alike (a negative product) has a negative share.
        """
        return _shares(self.bag_scores, self.t2i)

    @property
    def patch_shares(self) -> Tensor:
        """[P], each patch's share of ``i2t``; see :attr:`bag_shares`."""
        return _shares(self.patch_scores, self.i2t)


def explain(title: Tensor, image: Tensor) -> Explanation:
    """Take the MaxSim of one title and one image apart.

    Args:
        title: [G, D], the title's vectors.
        image: [P, D], the image's vectors.

    Raises:
        InputError: If the dimensions differ, or either has no vector.
    """
    if title.ndim != 2 or image.ndim != 2 or title.shape[1] != image.shape[1]:
        raise InputError(
            tr("Titles and images have vectors of different dimension."),
            found=list(image.shape),
            expected=list(title.shape),
        )
    if not len(title) or not len(image):
        raise InputError(tr("Without vectors there is nothing to explain."))
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


def _shares(scores: Tensor, total: float) -> Tensor:
    return scores / total if total > 0 else torch.zeros_like(scores)
