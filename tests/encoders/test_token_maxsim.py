"""The matching head's MaxSim of tokens: its formula, padding, shared images, copies."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from bagformer_cli.encoders.states import States
from bagformer_cli.encoders.token_maxsim import MIDDLE, SPREAD, TokenMaxSim

WIDTH, IMAGE_WIDTH, DIMENSION = 6, 5, 4


def part_of_head() -> TokenMaxSim:
    torch.manual_seed(0)
    return TokenMaxSim(nn.Linear(WIDTH, DIMENSION), nn.Linear(IMAGE_WIDTH, DIMENSION, bias=False))


def test_one_pair_by_the_formula() -> None:
    part = part_of_head()
    title, image = torch.randn(3, WIDTH), torch.randn(4, IMAGE_WIDTH)
    found = part(States(title[None]), States(image[None])).values[0]
    for token, state in enumerate(title):
        unit = F.normalize(part.text_proj(state), dim=0).detach()
        cosines = [
            float(unit @ F.normalize(part.vision_proj(cell), dim=0).detach()) for cell in image
        ]
        expected = state + (max(cosines) - MIDDLE) / SPREAD * part.direction
        torch.testing.assert_close(found[token], expected, rtol=1e-4, atol=1e-5)


def test_padding_of_images_changes_nothing() -> None:
    part = part_of_head()
    title, image = torch.randn(2, 3, WIDTH), torch.randn(2, 4, IMAGE_WIDTH)
    longer = torch.cat([image, 50 * torch.randn(2, 2, IMAGE_WIDTH)], dim=1)
    mask = torch.tensor([[True] * 4 + [False] * 2] * 2)
    torch.testing.assert_close(
        part(States(title), States(longer, mask)).values, part(States(title), States(image)).values
    )


def test_pairs_may_share_an_image_and_the_mask_of_titles_stays() -> None:
    part = part_of_head()
    title, image, rows = torch.randn(3, 2, WIDTH), torch.randn(2, 4, IMAGE_WIDTH), [1, 0, 1]
    mask = torch.tensor([[True, True], [True, False], [True, True]])
    seen = torch.tensor([[True, True, True, False], [True] * 4])
    shared = part(States(title, mask), States(image, seen), torch.tensor(rows))
    copied = part(States(title, mask), States(image[rows], seen[rows]))
    torch.testing.assert_close(shared.values, copied.values)
    assert shared.mask is mask


def test_the_projections_are_trained_copies() -> None:
    text = nn.Linear(WIDTH, DIMENSION).requires_grad_(False)
    image = nn.Linear(IMAGE_WIDTH, DIMENSION).requires_grad_(False)
    part = TokenMaxSim(text, image)
    assert torch.equal(part.text_proj.weight, text.weight)
    assert part.text_proj.weight.data_ptr() != text.weight.data_ptr()
    found = part(States(torch.randn(1, 2, WIDTH)), States(torch.randn(1, 3, IMAGE_WIDTH)))
    found.values.square().sum().backward()
    assert all(weight.grad is not None for weight in part.parameters())


def test_a_first_position_that_maxsim_leaves_out_is_left_out() -> None:
    part = part_of_head()
    title, image = torch.randn(2, 3, WIDTH), torch.randn(2, 4, IMAGE_WIDTH)
    image[:, 0] = part.vision_proj.weight.T @ part.text_proj(title[:, 0]).detach()[0]
    mask = torch.tensor([[True] * 4, [True] * 3 + [False]])
    with_first = part(States(title), States(image, mask)).values
    part.image_first = False
    without = part(States(title), States(image, mask)).values
    part.image_first = True
    shorter = part(States(title), States(image[:, 1:], mask[:, 1:])).values
    torch.testing.assert_close(without, shorter)
    assert not torch.allclose(with_first, without)
