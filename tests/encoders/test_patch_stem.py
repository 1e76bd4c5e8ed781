"""The convolutional stem of a vision transformer."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from bagformer_cli.config import load_config
from bagformer_cli.encoders.patch_stem import patch_stem
from bagformer_cli.encoders.vision import VisionEncoder
from bagformer_cli.errors import ConfigError

VIT = [
    "image.backbone=vit_tiny_patch16_224",
    "image.conv_stem=true",
    "image.size=32",
    "image.options={patch_size: 8, embed_dim: 24, depth: 2, num_heads: 2}",
]


def encoder(*overrides: str) -> VisionEncoder:
    torch.manual_seed(0)
    return VisionEncoder(load_config("demo", [*VIT, *overrides]).image)


@pytest.mark.parametrize("patch", [2, 4, 8, 16])
def test_a_stem_halves_the_sides_once_for_each_factor_of_two(patch: int) -> None:
    stem = patch_stem(32, patch)
    convolutions = [layer for layer in stem if isinstance(layer, nn.Conv2d)]
    assert [one.stride for one in convolutions[:-1]] == [(2, 2)] * (patch.bit_length() - 1)
    assert stem(torch.zeros(2, 3, 32, 32)).shape == (2, 32, 32 // patch, 32 // patch)


@pytest.mark.parametrize("patch", [4, 8, 16])
def test_a_transformer_has_as_many_patches_as_without_it(patch: int) -> None:
    options = f"image.options={{patch_size: {patch}, embed_dim: 24, depth: 1, num_heads: 2}}"
    pixels = torch.rand(2, 3, 32, 32)
    with_stem, without = encoder(options), encoder(options, "image.conv_stem=false")
    assert with_stem(pixels).shape == without(pixels).shape == (2, 1 + (32 // patch) ** 2, 24)
    assert with_stem.takes_codes


def test_a_patch_sees_beyond_its_own_pixels() -> None:
    """Strides overlap by a pixel: the neighbour of a patch changes what enters it."""
    stem = patch_stem(16, 8).eval()
    pixels = torch.zeros(1, 3, 32, 32)
    before = stem(pixels)
    pixels[..., :8, 7] = 1
    moved = (stem(pixels) - before).detach().abs().amax(dim=1)[0]
    assert moved[0, 0] > 0
    assert moved[0, 1] > 0
    assert float(moved[2:].max()) == 0


@pytest.mark.parametrize(
    "overrides",
    [
        ["image.backbone=resnet10t", "image.options={}"],
        ["image.options={patch_size: 6, embed_dim: 24, depth: 1, num_heads: 2}", "image.size=36"],
        ["image.backbone=vit_tiny_r_s16_p8_224", "image.options={patch_size: 2}"],
    ],
)
def test_other_backbones_take_no_stem(overrides: list[str]) -> None:
    with pytest.raises(ConfigError, match="no convolutional stem"):
        encoder(*overrides)


def test_a_stem_has_no_pretrained_weights() -> None:
    with pytest.raises(ConfigError, match="conv_stem"):
        load_config("demo", [*VIT, "image.pretrained=true"])


def test_frozen_layers_and_layer_decay_count_the_stem_as_the_input_layer() -> None:
    frozen = encoder("image.frozen_layers=1").train()
    assert not any(p.requires_grad for p in frozen.backbone.patch_embed.parameters())
    norms = [m for m in frozen.backbone.modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms
    assert not any(norm.training for norm in norms)
    depths = encoder().layer_depths()
    assert len({v for k, v in depths.items() if "patch_embed" in k}) == 1
