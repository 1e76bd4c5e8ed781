"""A timm backbone as a source of patch vectors.

Shapes: B batch, P patches, W width of the backbone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import timm
import torch
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

    def forward(self, pixels: Tensor) -> Tensor:
        """Encode normalised images.

        Args:
            pixels: [B, 3, size, size] float.

        Returns:
            [B, 1 + P, W]: the class vector, then the patches row by row.
        """
        if self._convolutional:
            pixels = pixels.contiguous(memory_format=torch.channels_last)
        features = self.backbone.forward_features(pixels)
        if features.ndim == 4:  # a feature map: channels first or last
            if features.shape[1] != self.width:
                features = features.movedim(-1, 1)
            features = features.flatten(2).transpose(1, 2)
        patches = features[:, self._prefix_tokens :]
        if self._prefix_tokens:
            return torch.cat([features[:, :1], patches], dim=1)
        return torch.cat([patches.mean(dim=1, keepdim=True), patches], dim=1)

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
            options["pretrained_cfg_overlay"] = {"file": str(path)}
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
