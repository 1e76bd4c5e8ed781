"""A convolutional stem: the patches of a vision transformer by several small convolutions.

A vision transformer cuts its patches by one convolution, whose kernel and stride are the patch.
From a few thousand images it learns better if several strided 3 × 3 convolutions take its place
(Xiao et al. 2021, "Early Convolutions Help Transformers See Better"). For patches of 8 pixels and
a width of 128, on 64 × 64 pixels::

    pixels [B, 3, 64, 64] ─▶ 32 x 32 of 32 ─▶ 16 x 16 of 64 ─▶ 8 x 8 of 128 ─▶ 1 x 1 convolution

Shapes: B batch, S pixels a side, W width of the transformer, P pixels of a patch per side.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from timm.models import VisionTransformer
from torch import nn

from bagformer_cli.errors import ConfigError
from bagformer_cli.messages import tr


def patch_stem(width: int, patch: int) -> nn.Sequential:
    """Make convolutions that turn [B, 3, S, S] into [B, W, S / P, S / P].

    Args:
        width: W. The channels double at each step and end at W.
        patch: P, a power of two: one halving step for each factor of two.
    """
    steps = patch.bit_length() - 1
    channels = [3, *(max(8, width >> (steps - 1 - step)) for step in range(steps))]
    layers: list[nn.Module] = []
    for before, after in pairwise(channels):
        layers += [nn.Conv2d(before, after, 3, 2, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
    return nn.Sequential(*layers, nn.Conv2d(channels[-1], width, 1))


def set_patch_stem(backbone: Any) -> None:
    """Replace the patch embedding of a vision transformer by a convolutional stem.

    Raises:
        ConfigError: The backbone is no plain vision transformer, or its patch is no power of two.
    """
    patches: Any = getattr(backbone, "patch_embed", None)
    cut: Any = getattr(patches, "proj", None)
    # A hybrid's patches are cut from a feature map, which has more than three channels.
    reads_pixels = isinstance(cut, nn.Conv2d) and cut.in_channels == 3
    plain = isinstance(backbone, VisionTransformer) and reads_pixels
    side = patches.patch_size[0] if plain else 0
    if side < 2 or side & (side - 1):
        raise ConfigError(
            tr("This backbone takes no convolutional stem."),
            where="image.conv_stem",
            found=f"patch_size: {side}" if plain else type(backbone).__name__,
            expected=tr("a plain vision transformer with patches of 2, 4, 8, 16 … pixels"),
        )
    patches.proj = patch_stem(backbone.embed_dim, side)
