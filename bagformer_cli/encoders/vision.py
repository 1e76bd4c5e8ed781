"""A timm backbone as a source of patch vectors.

Shapes: B batch, P patches, W width of the backbone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import timm
import torch
from timm.models import VisionTransformer, checkpoint_seq
from torch import Tensor, nn

from bagformer_cli.config import ImageConfig
from bagformer_cli.errors import CheckpointError, ConfigError, nearest
from bagformer_cli.messages import tr


class VisionEncoder(nn.Module):
    """Images to one class vector and the vectors of their patches.

    Any timm model with token or feature-map output serves. A backbone without a class token gets
    the mean of its patches in that place; register and distillation tokens are dropped.

    Args:
        config: Backbone, image size, options.
        pretrained: Load the weights that ``config.pretrained`` names. False where the weights
            come from a model folder anyway.
    """

    def __init__(self, config: ImageConfig, *, pretrained: bool = True) -> None:
        super().__init__()
        self.backbone = create_backbone(config, config.pretrained if pretrained else False)
        self.width: int = self.backbone.num_features
        self.size = config.size
        self._prefix_tokens: int = getattr(self.backbone, "num_prefix_tokens", 0)
        self._convolutional = not _fixed_size(config.backbone)
        if self._convolutional:  # twice as fast on a CPU, and what cuDNN likes best
            self.backbone.to(memory_format=torch.channels_last)
        self._freeze(config.frozen_layers)

    has_class = True
    """Position 0 stands for the whole image."""

    def forward(self, pixels: Tensor, codes: Tensor | None = None) -> Tensor:
        """Encode normalised images.

        Args:
            pixels: [B, 3, size, size] float.
            codes: [n, W] slots appended to the patches at the input of a vision transformer.

        Returns:
            [B, 1 + P (+ n), W]: the class vector, the patches row by row, the codes.
        """
        features = (
            self.backbone.forward_features(self._laid_out(pixels))
            if codes is None
            else self._with_codes(pixels, codes)
        )
        return self._states(features)

    def forward_maps(self, pixels: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The states, and a convolutional backbone's earlier maps [B, C, h, w], the finest last.

        Maps of one size are one: the latest. Other backbones have none.
        """
        if not self._convolutional or not hasattr(self.backbone, "forward_intermediates"):
            return self(pixels), []
        features, maps = self.backbone.forward_intermediates(self._laid_out(pixels))
        latest = {value.shape[-1]: value for value in maps}
        sides = sorted(side for side in latest if side > features.shape[-1])
        return self._states(features), [latest[side] for side in sides]

    @property
    def finer_channels(self) -> list[int]:
        """Channels of the maps that :meth:`forward_maps` gives."""
        if not self._convolutional or not hasattr(self.backbone, "forward_intermediates"):
            return []
        known = self.backbone.feature_info
        maps = known.get_dicts() if hasattr(known, "get_dicts") else known
        latest = {info["reduction"]: info["num_chs"] for info in maps}
        return [latest[stride] for stride in sorted(latest, reverse=True)[1:]]

    def mask(self, pixels: Tensor) -> None:
        """Every position is one of the image."""

    def _laid_out(self, pixels: Tensor) -> Tensor:
        if self._convolutional:
            return pixels.contiguous(memory_format=torch.channels_last)
        return pixels

    def _states(self, features: Tensor) -> Tensor:
        if features.ndim == 4:  # a feature map: channels first or last
            if features.shape[1] != self.width:
                features = features.movedim(-1, 1)
            features = features.flatten(2).transpose(1, 2)
        patches = features[:, self._prefix_tokens :]
        if self._prefix_tokens:
            return torch.cat([features[:, :1], patches], dim=1)
        return torch.cat([patches.mean(dim=1, keepdim=True), patches], dim=1)

    @property
    def takes_codes(self) -> bool:
        """Whether slots can be appended to the patches: a plain vision transformer."""
        return isinstance(self.backbone, VisionTransformer) and self._prefix_tokens > 0

    def _with_codes(self, pixels: Tensor, codes: Tensor) -> Tensor:
        """``VisionTransformer.forward_features`` with more tokens before the first block."""
        backbone = self.backbone
        tokens = backbone.norm_pre(
            backbone.patch_drop(backbone._pos_embed(backbone.patch_embed(pixels)))
        )
        tokens = torch.cat([tokens, codes.expand(len(tokens), -1, -1)], dim=1)
        if backbone.grad_checkpointing:
            tokens = checkpoint_seq(backbone.blocks, tokens)
        else:
            tokens = backbone.blocks(tokens)
        encoded: Tensor = backbone.norm(tokens)
        return encoded

    def checkpoint_gradients(self) -> None:
        """Recompute activations in the backward pass instead of keeping them."""
        self.backbone.set_grad_checkpointing(True)

    def _freeze(self, layers: int) -> None:
        if not layers:
            return
        blocks = getattr(self.backbone, "blocks", None)
        if blocks is None or not hasattr(self.backbone, "patch_embed"):
            raise ConfigError(
                tr("This backbone has no blocks to freeze."),
                where="image.frozen_layers",
                expected=tr("0, or a vision transformer as image.backbone"),
            )
        frozen: list[nn.Module] = [self.backbone.patch_embed, *blocks[:layers]]
        for module in frozen:
            module.requires_grad_(False)
        for name in ("cls_token", "pos_embed", "reg_token"):
            parameter = getattr(self.backbone, name, None)
            if isinstance(parameter, nn.Parameter):
                parameter.requires_grad_(False)


def create_backbone(config: ImageConfig, pretrained: bool | str) -> Any:
    """The timm model of the config, without classifier and pooling.

    Raises:
        ConfigError: timm knows no model of that name, or an option does not fit it.
        CheckpointError: The weights cannot be read or do not fit.
    """
    name = config.backbone
    options: dict[str, Any] = {"num_classes": 0, "global_pool": "", **config.options}
    if isinstance(pretrained, str):
        path = Path(pretrained)
        if not path.exists():
            raise CheckpointError(
                tr("There is no weight file or folder for the image backbone."),
                where="image.pretrained",
                found=pretrained,
            )
        if path.is_dir():
            name = f"local-dir:{path}"
        else:
            # older timm reads every file of some models as JAX's .npz unless told otherwise
            jax = path.suffix == ".npz"
            options["pretrained_cfg_overlay"] = {"file": str(path), "custom_load": jax}
    elif not timm.is_model(name):
        near = nearest(name, timm.list_models())
        raise ConfigError(
            tr("timm knows no model of that name."),
            where="image.backbone",
            found=name,
            hint=tr("Did you mean {name}?", name=near) if near else None,
        )
    if _fixed_size(config.backbone):
        options.setdefault("img_size", config.size)
    try:
        return timm.create_model(name, pretrained=bool(pretrained), **options)
    except TypeError as error:
        raise ConfigError(
            tr("The backbone does not take these options."), where="image.options", found=error
        ) from error
    except (RuntimeError, OSError, ValueError) as error:
        if not pretrained:
            raise ConfigError(
                tr("The backbone cannot be built with these settings."),
                where="image",
                found=str(error).splitlines()[0],
            ) from error
        raise CheckpointError(
            tr("The image backbone's weights cannot be loaded."),
            where="image.pretrained",
            found=str(error).splitlines()[0],
            hint=tr("Give a file or folder that timm saved for {name}.", name=config.backbone),
        ) from error


def _fixed_size(name: str) -> bool:
    """Whether a timm model is made for one image size (position embeddings), as ViTs are."""
    return bool(getattr(timm.get_pretrained_cfg(name), "fixed_input_size", False))
