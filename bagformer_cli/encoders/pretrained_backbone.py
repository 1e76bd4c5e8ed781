"""Load pretrained weights into a timm backbone; every weight of the backbone must be found.

timm itself leaves weights random that a file does not have, because it is built to replace the
classifier. Its file readers are not used either: here a weight file is read as tensors only.
"""

from __future__ import annotations

import json
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import timm
from torch import Tensor, nn

from bagformer_cli.encoders.weight_files import (
    damaged_weights,
    not_json,
    read_state_dict,
    summary,
    whole_numbers,
)
from bagformer_cli.errors import CheckpointError, listed
from bagformer_cli.hub import fetch, is_hub_name
from bagformer_cli.messages import tr

SETTING = "image.pretrained"
WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
_FILE_SUFFIXES = {".safetensors", ".bin", ".pt", ".pth", ".npz"}


class BackboneWeights(NamedTuple):
    """A weight file and how its model's pixels were normalised.

    Attributes:
        file: A safetensors, torch or ``.npz`` (JAX) file.
        mean: Mean of each colour channel; None: the value that timm knows for the backbone.
        std: Standard deviation of each colour channel; None: as for ``mean``.
        size: Pixels per side that the model was trained with; None: as for ``mean``.
    """

    file: Path
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    size: int | None = None


def pretrained_weights(name: str, source: bool | str) -> BackboneWeights:
    """Find the weight file of a backbone.

    Args:
        name: timm's name of the backbone.
        source: True: the weights that timm names, from the hub; a path: a weight file, or a folder
            that timm saved; else the name of such a folder on the hub.

    Raises:
        CheckpointError: There is no such file or folder, it is of another backbone, or the hub
            cannot be reached.
    """
    if not isinstance(source, str):
        return BackboneWeights(_published(name))
    path = Path(source)
    if path.is_file():
        return BackboneWeights(path)
    if not path.is_dir():
        if path.suffix in _FILE_SUFFIXES or not is_hub_name(source):
            raise CheckpointError(
                tr("There is no weight file or folder for the image backbone."),
                where=SETTING,
                found=source,
                expected=tr(
                    "a file, a folder, the name of a timm model on the hub, true (timm's weights), "
                    "or false (random weights)"
                ),
            )
        about = fetch(source, ["config.json"], SETTING)
        return _described(name, fetch(source, WEIGHT_FILES, SETTING), about, source)
    files = [path / file for file in WEIGHT_FILES if (path / file).is_file()]
    if not files:
        raise CheckpointError(
            tr("This folder has no weights of an image backbone."),
            where=f"{SETTING}: {path}",
            found=listed(sorted(p.name for p in path.iterdir())[:8]) or tr("an empty folder"),
            expected=" / ".join(WEIGHT_FILES),
        )
    return _described(name, files[0], path / "config.json", source)


def _described(name: str, weights: Path, config: Path, source: str) -> BackboneWeights:
    """Read what timm's ``config.json`` says about weights; refuse those of another backbone."""
    about = _about(config)
    architecture = about.get("architecture")
    if architecture is not None and str(architecture).partition(".")[0] != name.partition(".")[0]:
        raise CheckpointError(
            tr("These weights belong to another backbone."),
            where=f"{SETTING}: {source}",
            found=architecture,
            expected=f"image.backbone: {name}",
            hint=tr("Set the backbone: --set image.backbone={name}", name=architecture),
        )
    pixels = about.get("pretrained_cfg")
    pixels = pixels if isinstance(pixels, dict) else {}
    mean, std = _channels(pixels.get("mean")), _channels(pixels.get("std"))
    return BackboneWeights(weights, mean, std, _side(pixels.get("input_size")))


def load_pretrained(backbone: Any, name: str, weights: BackboneWeights) -> None:
    """Load weights into a timm model that was made without classifier and pooling.

    Args:
        backbone: The model.
        name: timm's name of it.
        weights: From :func:`pretrained_weights`.

    Raises:
        CheckpointError: The file cannot be read, or a weight of the backbone is missing or has
            another shape.
    """
    if weights.mean is not None and weights.std is not None:
        backbone.pretrained_cfg |= {"mean": weights.mean, "std": weights.std}
    try:
        if weights.file.suffix == ".npz":
            if not zipfile.is_zipfile(weights.file):
                raise damaged_weights(weights.file)
            backbone.load_pretrained(str(weights.file))
            return
        tensors = _filtered(backbone, name, read_state_dict(weights.file))
    except CheckpointError as error:
        error.where = f"{SETTING}: {weights.file}"
        raise
    except Exception as error:  # timm's converters fail in many ways on weights of other models
        raise _other_weights(weights.file, name, type(error).__name__) from error
    found = _misfits(backbone, tensors)
    if found:
        raise _other_weights(weights.file, name, "; ".join(found))
    backbone.load_state_dict(tensors, strict=False)


def own_classifier(name: str, width: int, source: bool | str) -> nn.Linear:
    """Build the classifier that a backbone was pretrained with, frozen.

    Args:
        name: timm's name of the backbone.
        width: Features of the backbone.
        source: See :func:`pretrained_weights`; False: random weights, replaced by a model folder's.

    Raises:
        CheckpointError: The weight file has no linear classifier of these features.
    """
    about = timm.get_pretrained_cfg(name)
    classes = int(getattr(about, "num_classes", 0) or 0)
    layer = str(getattr(about, "classifier", "") or "")
    linear = nn.Linear(width, max(1, classes))
    linear.requires_grad_(False)
    if not source:
        return linear
    tensors = read_state_dict(pretrained_weights(name, source).file)
    weight, bias = tensors.get(f"{layer}.weight"), tensors.get(f"{layer}.bias")
    if weight is None or bias is None or weight.shape != linear.weight.shape:
        raise CheckpointError(
            tr("The pretrained backbone has no classifier to take classes from."),
            where="image.classes",
            found=tr("missing") if weight is None else f"{layer}.weight {list(weight.shape)}",
            expected=f"{layer}.weight {list(linear.weight.shape)}",
            hint=tr("Leave it out: --set image.classes=null"),
        )
    linear.load_state_dict({"weight": weight, "bias": bias})
    return linear


def _published(name: str) -> Path:
    """Download the weights that timm names for a backbone."""
    about = timm.get_pretrained_cfg(name)
    hub_name = getattr(about, "hf_hub_id", None)
    if not hub_name:
        raise CheckpointError(
            tr("timm names no pretrained weights of this backbone on the hub."),
            where=f"{SETTING}: true",
            found=name,
            hint=tr("Give a weight file: --set image.pretrained=FILE, or false."),
        )
    file = getattr(about, "hf_hub_filename", None)
    return fetch(hub_name, [file] if file else WEIGHT_FILES, SETTING)


def _filtered(backbone: nn.Module, name: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Let timm rename weights and resize position embeddings, as its own loader does."""
    module = sys.modules[timm.model_entrypoint(name).__module__]
    rename = getattr(module, "checkpoint_filter_fn", None)
    return tensors if rename is None else dict(rename(tensors, backbone))


def _misfits(backbone: nn.Module, tensors: Mapping[str, Tensor]) -> list[str]:
    """Describe weights that are missing, too many, of another shape, or not finite."""
    own = backbone.state_dict()
    optional = {name for name in own if name.endswith("num_batches_tracked")}
    if any(name.startswith("fc_norm.") for name in tensors):
        # Backbones that average their patches normalise afterwards; here they do not average.
        optional |= {name for name in own if name.startswith("norm.")}
    parts = {name.partition(".")[0] for name in own}
    shapes = [
        f"{name} {list(tensors[name].shape)} / {list(own[name].shape)}"
        for name in own
        if name in tensors and tensors[name].shape != own[name].shape
    ]
    broken = [n for n in own if n in tensors and not tensors[n].float().isfinite().all()]
    return [
        *summary(tr("missing"), [n for n in own if n not in tensors and n not in optional]),
        # The classifier and a pooling head are not part of the backbone and may be there.
        *summary(
            tr("unexpected"),
            [n for n in tensors if n not in own and n.partition(".")[0] in parts],
        ),
        *summary(tr("another shape"), shapes),
        *summary(tr("whole numbers"), whole_numbers(own, tensors)),
        *summary("NaN", broken),
    ]


def _other_weights(file: Path, name: str, found: str) -> CheckpointError:
    return CheckpointError(
        tr("These are not the weights of the image backbone."),
        where=f"{SETTING}: {file}",
        found=found,
        expected=tr("all weights of {name} with image.options", name=name),
        hint=tr(
            "Set image.backbone and image.options as in the training of these weights. Weights of "
            "BagFormer, ALBEF or Chinese-CLIP: convert them with `xmr convert`."
        ),
    )


def _about(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise not_json(path, error) from error
    return content if isinstance(content, dict) else {}


def _side(size: Any) -> int | None:
    """Read the side of a square input ``[3, S, S]``; None: it is none."""
    if isinstance(size, list) and len(size) == 3 and type(size[2]) is int:
        return size[2] if 0 < size[2] <= 4096 else None
    return None


def _channels(values: Any) -> tuple[float, float, float] | None:
    """Read three numbers above 0; None: these are not."""
    if not isinstance(values, list) or len(values) != 3:
        return None
    if not all(isinstance(value, float | int) and 0 < value <= 1 for value in values):
        return None
    return (float(values[0]), float(values[1]), float(values[2]))
