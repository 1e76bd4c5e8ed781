"""LoRA adapters: train small matrices next to the linear layers of a tower, not the layers.

A linear layer with weight W [out, in] gets two matrices, A [rank, in] and B [out, rank]::

    y = x W^T + (alpha / rank) * x A^T B^T          B starts at zero: y is unchanged

``peft`` computes them during training. Everywhere else there is one weight per layer: reading a
model folder adds ``(alpha / rank) * B A`` to W (:func:`merged`), so that only training needs
``peft``. A model folder of a LoRA run holds

- in ``model.safetensors`` the weights W under their usual names, and next to each adapted
  ``NAME.weight`` the tensors ``NAME.lora_A.weight`` and ``NAME.lora_B.weight``;
- ``adapter/text`` and ``adapter/image``: the same adapters in peft's format, for other programs.
  They belong to the BERT and to the timm backbone.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bagformer_cli.config import LoraConfig, RunConfig
from bagformer_cli.encoders.weight_files import save_tensors
from bagformer_cli.errors import CheckpointError, ConfigError, MissingDependencyError, listed
from bagformer_cli.messages import tr
from bagformer_cli.models.build import RetrievalModel, build_without_memory, largest_image

SETTING = "training.lora"
FOLDER = "adapter"
DEFAULT_TARGETS = ("query", "value", "qkv", "q_proj", "v_proj")
"""Query and value of a BERT; the joint or separate projections of timm's attention."""
_PAIR = (".lora_A.weight", ".lora_B.weight")


def add_adapters(model: RetrievalModel, settings: LoraConfig) -> None:
    """Add adapters to the towers and freeze the weights that these towers had.

    Layers that ``frozen_layers`` froze get none.

    Args:
        model: The model, with its weights loaded. Its parameters are renamed: see
            :func:`saved_name`.
        settings: Rank, scale, towers, target layers.

    Raises:
        ConfigError: A target matches no linear layer.
        MissingDependencyError: ``peft`` is not installed.
    """
    inject, lora_config = _peft()
    for tower, names in find_targets(model, settings).items():
        adapters = lora_config(
            r=settings.rank,
            lora_alpha=settings.alpha,
            lora_dropout=settings.dropout,
            target_modules=names,
            bias="none",
        )
        inject(adapters, _root(model, tower))


def find_targets(model: RetrievalModel, settings: LoraConfig) -> dict[str, list[str]]:
    """Return the linear layers of each tower that get an adapter, by ``text`` and ``image``.

    Raises:
        ConfigError: A target, or a tower, has none.
    """
    towers = ("text", "image") if settings.towers == "both" else (settings.towers,)
    targets = settings.targets or DEFAULT_TARGETS
    found: dict[str, list[str]] = {}
    used: set[str] = set()
    kinds: dict[str, list[str]] = {}
    for tower in towers:
        layers = {
            name: layer
            for name, layer in _root(model, tower).named_modules()
            if isinstance(layer, nn.Linear)
        }
        kinds[tower] = sorted({name.rpartition(".")[2] for name in layers})
        matching = {name: _targets_of(name, targets) for name in layers}
        used |= set().union(*matching.values())
        found[tower] = [
            name for name, layer in layers.items() if matching[name] and layer.weight.requires_grad
        ]
    unused = [target for target in settings.targets or () if target not in used]
    empty = [tower for tower in towers if not found[tower]]
    if not unused and not empty:
        return found
    raise ConfigError(
        tr("LoRA finds no linear layer to adapt."),
        where=f"{SETTING}.targets",
        found=listed(unused) or tr("nothing in the tower: {tower}", tower=listed(empty)),
        expected="; ".join(
            tr("layers of {tower}: {names}", tower=tower, names=listed(kinds[tower]) or "–")
            for tower in towers
        ),
        hint=tr(
            "Name layers of this list, or one tower only: --set {setting}.towers=text. "
            "Frozen layers get no adapter.",
            setting=SETTING,
        ),
    )


def check_adapters(config: RunConfig) -> None:
    """Check the LoRA settings of a configuration without memory for weights.

    The configuration has the sizes of its pretrained encoders already: see ``check_pretrained``.

    Raises:
        ConfigError: A target matches nothing, or the backbone reads the weight of a target without
            calling the layer, so that an adapter would change nothing.
        MissingDependencyError: ``peft`` is not installed.
    """
    settings = config.training.lora
    if settings is None:
        return
    _peft()
    model = build_without_memory(config)
    names = find_targets(model, settings).get("image", [])
    called: set[str] = set()
    for name in names:
        layer = _root(model, "image").get_submodule(name)
        layer.register_forward_hook(lambda *_, name=name: called.add(name))
    if names:
        with torch.no_grad(), torch.device("meta"):
            model.dual.vision_encoder.eval()(largest_image(model.config))
    idle = [name for name in names if name not in called]
    if idle:
        raise ConfigError(
            tr("This backbone reads the weights of a layer directly: an adapter has no effect."),
            where=f"{SETTING}.targets",
            found=f"{config.image.backbone}: {idle[0]}",
            hint=tr("Name other layers, for example: --set {setting}.targets=[query, value, proj]",
                    setting=SETTING),
        )  # fmt: skip


def saved_name(name: str) -> str:
    """Return the name that a tensor of a model with adapters has in a model folder.

    >>> saved_name("bert.query.base_layer.weight"), saved_name("bert.query.lora_A.default.weight")
    ('bert.query.weight', 'bert.query.lora_A.weight')
    """
    name = name.replace(".base_layer.", ".")
    return name.replace(".lora_A.default.", ".lora_A.").replace(".lora_B.default.", ".lora_B.")


def merged(
    weights: Mapping[str, Tensor], settings: LoraConfig | None, where: Path
) -> dict[str, Tensor]:
    """Merge the adapters of a model folder into the weights: W + (alpha / rank) * B A.

    Args:
        weights: The tensors of ``model.safetensors``.
        settings: ``training.lora`` of the folder's configuration; None: there are no adapters.
        where: The file, for the message.

    Returns:
        The weights of an ordinary model.

    Raises:
        CheckpointError: The configuration has LoRA, but the file has no adapters.
    """
    if settings is None:
        return dict(weights)
    plain = {name: value for name, value in weights.items() if not name.endswith(_PAIR)}
    adapted = [name.removesuffix(_PAIR[0]) for name in weights if name.endswith(_PAIR[0])]
    if not adapted:
        raise CheckpointError(
            tr("The adapters of this LoRA model are missing from its weights."),
            where=where,
            expected="…" + _PAIR[0],
        )
    for name in adapted:
        down, up = (weights[name + part].float() for part in _PAIR)
        update = (settings.alpha / settings.rank) * (up @ down)
        plain[f"{name}.weight"] = (plain[f"{name}.weight"].float() + update).to(
            plain[f"{name}.weight"].dtype
        )
    return plain


def save_adapters(model: RetrievalModel, folder: Path) -> None:
    """Write the adapters of each tower to a folder in peft's format; nothing without adapters."""
    for tower, root in _adapted(model):
        place = folder / FOLDER / tower
        place.mkdir(parents=True, exist_ok=True)
        root.peft_config["default"].save_pretrained(str(place))
        tensors = {
            f"base_model.model.{saved_name(name)}": value
            for name, value in root.state_dict().items()
            if ".lora_A." in name or ".lora_B." in name
        }
        save_tensors(tensors, place / "adapter_model.safetensors", {"format": "pt"})


def _adapted(model: RetrievalModel) -> Iterator[tuple[str, Any]]:
    """Yield the towers that have adapters."""
    for tower in ("text", "image"):
        root = _root(model, tower)
        if any(".lora_A." in name for name, _ in root.named_parameters()):
            yield tower, root


def _root(model: RetrievalModel, tower: str) -> Any:
    """Return the other library's module of a tower: the BERT, or the timm backbone."""
    if tower == "text":
        return getattr(model.dual.text_encoder, "bert", model.dual.text_encoder)
    return getattr(model.dual.vision_encoder, "backbone", model.dual.vision_encoder)


def _targets_of(name: str, targets: tuple[str, ...] | list[str]) -> set[str]:
    """Return the targets that match a module's dotted name, wholly or at its end."""
    return {
        target
        for target in targets
        if fnmatch.fnmatchcase(name, target) or fnmatch.fnmatchcase(name, f"*.{target}")
    }


def require_peft() -> None:
    """Check that the package is there.

    Raises:
        MissingDependencyError: It is not installed.
    """
    _peft()


def _peft() -> tuple[Any, Any]:
    """Import what is needed of peft."""
    try:
        from peft import LoraConfig as PeftConfig
        from peft import inject_adapter_in_model
    except ImportError as error:
        raise MissingDependencyError(
            tr("LoRA needs the package peft, which is not installed."),
            where=SETTING,
            hint='pip install "bagformer-cli[lora]"',
        ) from error
    return inject_adapter_in_model, PeftConfig
