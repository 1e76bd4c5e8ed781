"""A timm model as a backbone: made from its configuration, frozen, its layers counted."""

from __future__ import annotations

from typing import Any, Literal

import timm
from timm.models import group_parameters

from bagformer_cli.config import ImageConfig
from bagformer_cli.encoders.patch_stem import set_patch_stem
from bagformer_cli.encoders.pretrained_backbone import load_pretrained, pretrained_weights
from bagformer_cli.errors import ConfigError, listed, nearest
from bagformer_cli.messages import tr

_INPUTS = ("cls_token", "pos_embed", "reg_token")
"""Parameters of the input layer that some of timm's models do not count among it."""
_ENDS = ("norm.", "fc_norm.", "head.")
"""Parts after the last layer."""


def create_backbone(config: ImageConfig, source: bool | str) -> Any:
    """Create a timm model without classifier and pooling.

    Args:
        config: Its name, image size and options.
        source: True: the pretrained weights that timm names; a path: a weight file, or a folder
            that timm saved; False: random weights.

    Raises:
        ConfigError: timm knows no such model, or an option does not fit it.
        CheckpointError: The weights cannot be read or do not fit.
    """
    name = config.backbone
    if not timm.is_model(name):
        near = nearest(name, timm.list_models())
        raise ConfigError(
            tr("timm knows no model of that name."),
            where="image.backbone",
            found=name,
            hint=tr("Did you mean {name}?", name=near) if near else None,
        )
    weights = pretrained_weights(name, source) if source else None
    options: dict[str, Any] = {"num_classes": 0, **config.options}
    size = config.size or (None if weights is None else weights.size) or own_size(name)
    if has_fixed_size(name):
        options.setdefault("img_size", size)
    given = [f"{key}: {value}" for key, value in config.options.items()]
    try:
        backbone: Any = _create(name, options)
    except (TypeError, KeyError, AttributeError, IndexError, AssertionError) as error:
        raise ConfigError(
            tr("The backbone does not take these options."),
            where="image.options",
            found=listed(given) or name,
            expected=tr("options of {name}", name=name),
        ) from error
    except (RuntimeError, OSError, ValueError, ArithmeticError) as error:
        raise ConfigError(
            tr("The backbone cannot be built with these settings."),
            where="image",
            found=listed([f"backbone: {name}", f"size: {size}", *given]),
            hint=tr("Sizes must fit each other: the image, its patches, widths and heads."),
        ) from error
    backbone.pretrained_cfg = {**backbone.pretrained_cfg, "input_size": (3, size, size)}
    if config.conv_stem:
        set_patch_stem(backbone)
    if weights is not None:
        load_pretrained(backbone, name, weights)
    return backbone


def _create(name: str, options: dict[str, Any]) -> Any:
    """Create a timm model whose ``forward_features`` gives all tokens or a feature map."""
    try:
        return timm.create_model(name, pretrained=False, global_pool="", **options)
    except AssertionError:  # its class fixes the pooling, which comes after forward_features
        return timm.create_model(name, pretrained=False, **options)


def own_size(name: str) -> int:
    """Return the pixels per side that timm's weights of a backbone were trained with."""
    known: Any = timm.get_pretrained_cfg(name)
    return int(known.input_size[-1])


def has_fixed_size(name: str) -> bool:
    """Tell whether a timm model is made for one image size, as models with positions are."""
    return bool(getattr(timm.get_pretrained_cfg(name), "fixed_input_size", False))


def freeze_layers(backbone: Any, layers: int | Literal["all"]) -> None:
    """Freeze the input layers of a timm model and the first blocks or stages after them.

    Args:
        backbone: A timm model. Its own ``group_matcher`` says what a layer is: a block of a vision
            transformer, a stage of a convolutional network. Layer 0 is the patch embedding or stem.
        layers: Blocks or stages to freeze besides layer 0; 0: nothing is frozen; ``all``: the
            whole model.

    Raises:
        ConfigError: The model does not name its layers, or has fewer.
    """
    if layers == "all":
        backbone.requires_grad_(False)
        return
    if not layers:
        return
    if not hasattr(backbone, "group_matcher"):
        raise ConfigError(
            tr("This backbone does not name its layers, so none can be frozen."),
            where="image.frozen_layers",
            expected="0",
        )
    groups = group_parameters(backbone, backbone.group_matcher(coarse=True))
    if layers >= len(groups):
        raise ConfigError(
            tr("The backbone has fewer layers."),
            where="image.frozen_layers",
            found=layers,
            expected=tr("at most {n}", n=len(groups) - 1),
        )
    names = {name for group in range(layers + 1) for name in groups[group]}
    for name, parameter in backbone.named_parameters():
        if name in names or name in _INPUTS:
            parameter.requires_grad_(False)


def layer_depths(backbone: Any) -> dict[str, int]:
    """Return the depth of each parameter's layer: 1 for the top layer, most for the input's.

    A layer is what timm's ``group_matcher`` says: a block of a transformer or of a convolutional
    network. A norm after the last one counts as a part of it.

    Raises:
        ConfigError: The model does not name its layers.
    """
    if not hasattr(backbone, "group_matcher"):
        raise ConfigError(
            tr("This backbone does not name its layers, so their learning rates cannot differ."),
            where="training.layer_decay",
            expected="1",
        )
    groups = group_parameters(backbone, backbone.group_matcher(coarse=False))
    layers = [list(groups[number]) for number in sorted(groups)]
    if len(layers) > 1 and all(name.startswith(_ENDS) for name in layers[-1]):
        layers[-2:] = [layers[-2] + layers[-1]]
    depths = {name: len(layers) - number for number, names in enumerate(layers) for name in names}
    return depths | {name: len(layers) for name in depths if name in _INPUTS}
