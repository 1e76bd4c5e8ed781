"""The image encoder: a timm backbone that gives one class vector and one vector per patch.

::

    pixels [B, 3, S, S]  ── backbone ──▶  [B, 1 + P, W]
                                               │   └ patches, row by row
                                               └ class vector: the backbone's class token, or the
                                                 mean of the patches if it has none

Shapes: B batch, S pixels a side, P patches, W width of the backbone, C channels of a feature map.
"""

from __future__ import annotations

from typing import Any, Self

import torch
import torch.nn.functional as F
from timm.layers.attention_pool2d import AttentionPool2d
from timm.models import VisionTransformer, checkpoint_seq
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from bagformer_cli.config import ImageConfig
from bagformer_cli.data.images import CLIP_MEAN, CLIP_STD
from bagformer_cli.encoders.backbone import (
    create_backbone,
    freeze_layers,
    has_fixed_size,
    layer_depths,
)
from bagformer_cli.encoders.pretrained_backbone import own_classifier
from bagformer_cli.errors import ConfigError
from bagformer_cli.messages import tr

Channels = tuple[float, float, float]


class VisionEncoder(nn.Module):
    """Encode images with any timm backbone that has token or feature-map output.

    Register and distillation tokens of the backbone are dropped.

    Args:
        config: Backbone, image size, normalisation, frozen layers, timm options.
        pretrained: Load the weights that ``config.pretrained`` names. Set False if the weights
            come from a model folder.

    Attributes:
        width: W; with ``config.classes`` the number of classes.
        size: S; that of the backbone's weights if ``config.size`` is 0.
        classifier: The backbone's own classifier, never trained; None: features only.
        mean: Mean of each colour channel that the backbone expects; None: CLIP's.
        std: Standard deviation of each colour channel that it expects; None: CLIP's.

    Raises:
        ConfigError: timm knows no such model, or a setting does not fit it.
        CheckpointError: The pretrained weights cannot be read or do not fit.
    """

    has_class = True
    """Position 0 of the output stands for the whole image."""
    pixel_scale: Tensor
    pixel_shift: Tensor

    def __init__(self, config: ImageConfig, *, pretrained: bool = True) -> None:
        super().__init__()
        source = config.pretrained if pretrained else False
        self.backbone = create_backbone(config, source)
        self.width: int = self.backbone.num_features
        self.classifier: nn.Linear | None = None
        if config.classes is not None:
            self.classifier = own_classifier(config.backbone, self.width, source)
            self.width = self.classifier.out_features
        self._class_temperature = config.classes
        self.size: int = self.backbone.pretrained_cfg["input_size"][-1]
        self._class_token, self._prefix_tokens = _prefix(self.backbone)
        self._convolutional = not has_fixed_size(config.backbone)
        self._attention_pool = config.attention_pool
        if config.attention_pool and not isinstance(
            getattr(self.backbone, "head", None), AttentionPool2d
        ):
            raise ConfigError(
                tr("This backbone has no attention pooling."),
                where="image.attention_pool",
                found=config.backbone,
                expected="resnet50_clip, resnet101_clip …",
            )
        if self._convolutional:  # measured twice as fast on a CPU; cuDNN prefers it too
            self.backbone.to(memory_format=torch.channels_last)
        self._set_normalisation(config, source)
        freeze_layers(self.backbone, config.frozen_layers)

    def _set_normalisation(self, config: ImageConfig, source: bool | str) -> None:
        """Prepare the step from CLIP's normalisation, which every batch has, to the backbone's."""
        self.mean: Channels | None = config.mean
        self.std: Channels | None = config.std
        if source and config.mean is None and config.std is None:
            known = self.backbone.pretrained_cfg
            self.mean, self.std = tuple(known["mean"]), tuple(known["std"])
        mean, std = self.mean or CLIP_MEAN, self.std or CLIP_STD
        self._rescales = (mean, std) != (CLIP_MEAN, CLIP_STD)
        # (pixel - mean) / std, where pixel = given * CLIP's std + CLIP's mean
        scale = torch.tensor(CLIP_STD) / torch.tensor(std)
        shift = (torch.tensor(CLIP_MEAN) - torch.tensor(mean)) / torch.tensor(std)
        self.register_buffer("pixel_scale", scale.view(3, 1, 1), persistent=False)
        self.register_buffer("pixel_shift", shift.view(3, 1, 1), persistent=False)

    def forward(self, pixels: Tensor, codes: Tensor | None = None) -> Tensor:
        """Encode images.

        Args:
            pixels: [B, 3, S, S] float, normalised with CLIP's mean and standard deviation, as all
                batches are. They are rescaled if the backbone was trained with other values.
            codes: [n, W] code tokens, appended to the patches of a vision transformer.

        Returns:
            [B, 1 + P (+ n), W]: the class vector, the patches row by row, the code tokens.
        """
        pixels = self._prepared(pixels)
        if codes is None:
            return self._states(self.backbone.forward_features(pixels))
        return self._states(self._forward_with_codes(pixels, codes))

    def forward_maps(self, pixels: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Encode images and keep the finer feature maps of a convolutional backbone.

        Returns:
            The states of :meth:`forward`, and maps [B, C, h, w] with more cells than the last one,
            the finest last. If several maps have one size, only the latest is kept. Backbones that
            are not convolutional give none.
        """
        if not self._has_maps:
            return self(pixels), []
        features, maps = self.backbone.forward_intermediates(self._prepared(pixels))
        latest = {value.shape[-1]: value for value in maps}
        sides = sorted(side for side in latest if side > features.shape[-1])
        return self._states(features), [latest[side] for side in sides]

    @property
    def map_channels(self) -> list[int]:
        """Channels C of the maps that :meth:`forward_maps` gives."""
        if not self._has_maps:
            return []
        known = self.backbone.feature_info
        maps = known.get_dicts() if hasattr(known, "get_dicts") else known
        latest = {info["reduction"]: info["num_chs"] for info in maps}
        return [latest[stride] for stride in sorted(latest, reverse=True)[1:]]

    @property
    def takes_codes(self) -> bool:
        """True for a plain vision transformer: code tokens can be appended to its patches."""
        return isinstance(self.backbone, VisionTransformer) and self._class_token

    @property
    def _has_maps(self) -> bool:
        return self._convolutional and hasattr(self.backbone, "forward_intermediates")

    def mask(self, pixels: Tensor) -> None:
        """Return no mask: every output position holds a part of the image."""

    def checkpoint_gradients(self) -> None:
        """Recompute activations in the backward pass instead of storing them."""
        self.backbone.set_grad_checkpointing(True)

    def layer_depths(self) -> dict[str, int]:
        """Return the depth of each parameter's layer: 1 for the top layer, most for the input's.

        See :func:`.backbone.layer_depths`.
        """
        return {f"backbone.{name}": depth for name, depth in layer_depths(self.backbone).items()}

    def train(self, mode: bool = True) -> Self:
        """Set training mode; batch normalisation of frozen layers keeps its running statistics."""
        super().train(mode)
        for module in self.backbone.modules():
            if isinstance(module, _BatchNorm) and not module.weight.requires_grad:
                module.eval()
        return self

    def _prepared(self, pixels: Tensor) -> Tensor:
        """Rescale pixels to the backbone's normalisation; set its memory layout."""
        if self._rescales:
            pixels = pixels * self.pixel_scale + self.pixel_shift
        if self._convolutional:
            return pixels.contiguous(memory_format=torch.channels_last)
        return pixels

    def _states(self, features: Any) -> Tensor:
        """Turn the output of any backbone into [B, 1 + P, W]."""
        if self._attention_pool:
            return attention_states(self.backbone.head, features)
        if not isinstance(features, Tensor) or features.ndim not in (3, 4):
            raise ConfigError(
                tr("This backbone gives neither tokens nor one feature map."),
                where="image.backbone",
                found=type(self.backbone).__name__,
            )
        if features.ndim == 4:  # a feature map: channels first (ResNet) or last (Swin)
            last = getattr(self.backbone, "output_fmt", None) == "NHWC"
            if last or features.shape[1] != self.backbone.num_features:
                features = features.movedim(-1, 1)
            features = features.flatten(2).transpose(1, 2)
        patches = features[:, self._prefix_tokens :]
        whole = features[:, :1] if self._class_token else patches.mean(dim=1, keepdim=True)
        states = torch.cat([whole, patches], dim=1)
        if self.classifier is None:
            return states
        classes: Tensor = (self.classifier(states) / self._class_temperature).softmax(dim=-1)
        return classes

    def _forward_with_codes(self, pixels: Tensor, codes: Tensor) -> Tensor:
        """``VisionTransformer.forward_features`` with code tokens before the first block."""
        backbone = self.backbone
        tokens = backbone.norm_pre(
            backbone.patch_drop(backbone._pos_embed(backbone.patch_embed(pixels)))
        )
        tokens = torch.cat([tokens, codes.expand(tokens.shape[0], -1, -1)], dim=1)
        if backbone.grad_checkpointing:
            tokens = checkpoint_seq(backbone.blocks, tokens)
        else:
            tokens = backbone.blocks(tokens)
        encoded: Tensor = backbone.norm(tokens)
        return encoded


def attention_states(pool: AttentionPool2d, features: Tensor) -> Tensor:
    """Return all outputs of CLIP's attention pooling: the class vector, then the cells.

    CLIP itself uses only the output of the class vector, whose query is the mean of the map.

    Args:
        pool: The pooling, without its output projection.
        features: The last feature map, [B, C, h, w].

    Returns:
        [B, 1 + h * w, C].
    """
    cells = features.flatten(2).transpose(1, 2)
    inputs = torch.cat([cells.mean(dim=1, keepdim=True), cells], dim=1) + pool.pos_embed
    batch, count, _ = inputs.shape
    query, key, value = (
        project(inputs).reshape(batch, count, pool.num_heads, pool.head_dim).transpose(1, 2)
        for project in (pool.q, pool.k, pool.v)
    )
    outputs = F.scaled_dot_product_attention(query, key, value)
    return outputs.transpose(1, 2).reshape(batch, count, -1)


def _prefix(backbone: Any) -> tuple[bool, int]:
    """Tell whether the first output of a backbone is a class token; count tokens before patches.

    Register tokens may come without a class token.
    """
    own = getattr(getattr(backbone, "embeds", backbone), "cls_token", None) is not None
    count: int = getattr(backbone, "num_prefix_tokens", int(own))
    return own and count > 0, count
