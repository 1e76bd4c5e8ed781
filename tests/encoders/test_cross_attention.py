"""The cross-attention of the fusion layers is torch's, without the copies that torch makes.

An image that several pairs share is projected once.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from bagformer_cli.config import TextConfig
from bagformer_cli.encoders.fusion import FusionEncoder, FusionLayer
from bagformer_cli.encoders.states import States


def outputs(layer: nn.Module, *, padded: bool) -> list[Tensor]:
    """The output of a layer in training mode, and all gradients."""
    torch.manual_seed(1)
    texts, images = torch.randn(3, 5, 16), torch.randn(3, 9, 16, requires_grad=True)
    padding = torch.zeros(3, 9, dtype=torch.bool)
    padding[1, 6:] = True
    masks = {"memory_key_padding_mask": padding} if padded else {}
    memory = images
    if isinstance(layer, FusionLayer):
        memory = layer.multihead_attn.keys_and_values(images)
    found = layer(texts, memory, **masks)
    found.square().sum().backward()
    assert images.grad is not None
    return [found.detach(), images.grad, *(p.grad for p in layer.parameters())]  # type: ignore[list-item]


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_outputs_gradients_and_dropout_are_those_of_torch(dropout: float, padded: bool) -> None:
    def made(kind: type[nn.TransformerDecoderLayer]) -> nn.TransformerDecoderLayer:
        torch.manual_seed(0)
        return kind(16, 4, 24, dropout, activation="gelu", batch_first=True)

    torchs, ours = made(nn.TransformerDecoderLayer), made(FusionLayer)
    assert list(ours.state_dict()) == list(torchs.state_dict())
    assert all(
        torch.equal(a, b) for a, b in zip(ours.parameters(), torchs.parameters(), strict=True)
    )
    for found, expected in zip(
        outputs(ours, padded=padded), outputs(torchs, padded=padded), strict=True
    ):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("pairs", [[2, 0], [0, 1, 2], [1, 1, 0, 2, 1, 0, 0]])
def test_pairs_that_share_an_image_read_what_pairs_with_their_own_copy_read(
    pairs: list[int], padded: bool
) -> None:
    torch.manual_seed(0)
    encoder = FusionEncoder(TextConfig(width=16, heads=4, feed_forward=24, dropout=0.0), 2, 12)
    rows = torch.tensor(pairs)
    titles = States(torch.randn(len(rows), 5, 16), torch.rand(len(rows), 5) > 0.3)
    titles.kept[:, 0] = True
    values = torch.randn(3, 9, 12, requires_grad=True)
    mask = torch.ones(3, 9, dtype=torch.bool)
    mask[1, 6:] = False
    images = States(values, mask if padded else None)

    def found_with(images: States, rows: Tensor | None) -> list[Tensor]:
        encoder.zero_grad()
        values.grad = None
        result = encoder(titles, images, rows)
        result.square().sum().backward()
        assert values.grad is not None
        gradients = [p.grad.clone() for p in encoder.parameters() if p.grad is not None]
        return [result.detach(), values.grad, *gradients]

    shared = found_with(images, rows)
    for a, b in zip(shared, found_with(images.select(rows), None), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def test_keys_and_values_are_computed_once_for_each_image() -> None:
    encoder = FusionEncoder(TextConfig(width=16, heads=4, feed_forward=24, dropout=0.0), 2, 12)
    projected: list[int] = []
    layer: FusionLayer
    for layer in encoder.layers:  # type: ignore[assignment]
        plain = layer.multihead_attn.keys_and_values

        def counted(states: Tensor, plain: Callable[[Tensor], Tensor] = plain) -> Tensor:
            projected.append(len(states))
            return plain(states)

        layer.multihead_attn.keys_and_values = counted  # type: ignore[method-assign]
    titles, images = States(torch.randn(6, 5, 16)), States(torch.randn(2, 9, 12))
    encoder(titles, images, torch.tensor([0, 1, 0, 1, 1, 0]))
    assert projected == [2, 2]
