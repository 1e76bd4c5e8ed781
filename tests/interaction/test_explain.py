"""What each bag and patch adds to a score."""

from __future__ import annotations

import pytest
import torch

from bagformer_cli.errors import InputError
from bagformer_cli.interaction import MultiVectors, maxsim
from bagformer_cli.interaction.explain import explain


def test_a_worked_example() -> None:
    title = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    image = torch.tensor([[0.6, 0.1], [0.0, 0.2], [0.0, -1.0]])
    found = explain(title, image)
    torch.testing.assert_close(found.products, title @ image.T)
    assert found.patch_of_bag.tolist() == [0, 1]
    assert found.bag_of_patch.tolist() == [0, 1, 0]
    torch.testing.assert_close(found.bag_scores, torch.tensor([0.6, 0.2]))
    torch.testing.assert_close(found.patch_scores, torch.tensor([0.6, 0.2, 0.0]))
    torch.testing.assert_close(found.bag_shares, torch.tensor([0.75, 0.25]))
    assert found.t2i == pytest.approx(0.8)
    assert found.i2t == pytest.approx(0.8)


def test_terms_sum_to_the_scores_of_maxsim_and_shares_to_one() -> None:
    torch.manual_seed(0)
    title, image = torch.rand(5, 8), torch.rand(9, 8)
    found = explain(title, image)
    t2i, i2t = maxsim(MultiVectors.from_list([title]), MultiVectors.from_list([image]))
    assert found.t2i == pytest.approx(t2i.item(), rel=1e-6)
    assert found.i2t == pytest.approx(i2t.item(), rel=1e-6)
    assert float(found.bag_shares.sum()) == pytest.approx(1, rel=1e-6)


def test_a_score_that_is_not_positive_has_no_shares() -> None:
    found = explain(torch.ones(2, 3), -torch.ones(2, 3))
    assert found.t2i == -6
    assert found.bag_shares.tolist() == [0, 0]


def test_of_equal_patches_the_first_is_returned() -> None:
    found = explain(torch.ones(2, 3), torch.ones(4, 3))
    assert found.patch_of_bag.tolist() == [0, 0]
    assert found.bag_of_patch.tolist() == [0, 0, 0, 0]


def test_items_without_vectors_and_other_dimensions_are_refused() -> None:
    with pytest.raises(InputError, match="without vectors"):
        explain(torch.ones(0, 3), torch.ones(2, 3))
    with pytest.raises(ValueError, match="same D"):
        explain(torch.ones(1, 3), torch.ones(2, 4))
