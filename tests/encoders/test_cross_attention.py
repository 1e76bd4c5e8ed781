"""The cross-attention of the fusion layers is torch's, without the copies that torch makes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from bagformer_cli.encoders.fusion import FusionLayer


def outputs(layer: nn.Module, *, padded: bool) -> list[Tensor]:
    """The output of a layer in training mode, and all gradients."""
    torch.manual_seed(1)
    texts, images = torch.randn(3, 5, 16), torch.randn(3, 9, 16, requires_grad=True)
    padding = torch.zeros(3, 9, dtype=torch.bool)
    padding[1, 6:] = True
    masks = {"memory_key_padding_mask": padding} if padded else {}
    found = layer(texts, images, **masks)
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
