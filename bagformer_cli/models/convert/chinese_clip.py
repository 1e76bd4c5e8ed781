"""Read a Chinese-CLIP: transformers' ``ChineseCLIPModel``, or the original repository's ``.pt``.

It becomes an ordinary model of ours: a BERT, a timm backbone, two projections and a temperature.
:func:`open_chinese_clip` reads it; ``models/convert/folder.py`` writes a model folder, and
``models/build.py`` starts a training from it (``text.chinese_clip``, ``image.chinese_clip``).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from bagformer_cli.data.images import CLIP_MEAN, CLIP_STD
from bagformer_cli.encoders.pretrained_bert import read_json
from bagformer_cli.encoders.weight_files import join_shards
from bagformer_cli.errors import CheckpointError, InputError, listed
from bagformer_cli.hub import cached_file, fetch, is_hub_name
from bagformer_cli.messages import tr
from bagformer_cli.models.convert.clip_names import (
    BACKBONE,
    BERT,
    ORIGINAL,
    TRANSFORMERS,
    resnet_weights,
    transformer_weights,
)
from bagformer_cli.models.convert.clip_settings import (
    ClipSettings,
    settings_from_config,
    settings_from_shapes,
)
from bagformer_cli.models.convert.report import Shape, TensorReport
from bagformer_cli.models.convert.tensors import Ignored, Weight, assemble, read_tensors
from bagformer_cli.text.vocabulary import FILES as VOCABULARIES
from bagformer_cli.text.vocabulary import read_vocabulary, require_lower_case

WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
IGNORED = (
    Ignored(re.compile(r"(bert|text_model)\.pooler\."), tr("the pooled state is not used")),
    Ignored(re.compile(r".*\.(position|token_type)_ids$"), tr("numbers of positions, not weights")),
)
BICUBIC = 3  # Pillow's number, in preprocessor_config.json


@dataclass(frozen=True)
class ChineseClip:
    """A Chinese-CLIP that was read, but not built yet.

    Attributes:
        source: Its folder, file or hub name.
        file: The weight file.
        settings: The settings of a model that its weights fit.
        vocabulary: Entries of its tokenizer; None: it comes without them, as a ``.pt`` does.
        remarks: Differences from its preprocessing, for the user.
        tensors: The checkpoint.
        original: Whether it has the names of the original repository.
    """

    source: str
    file: Path
    settings: ClipSettings
    vocabulary: tuple[str, ...] | None
    remarks: tuple[str, ...]
    tensors: Mapping[str, Tensor]
    original: bool

    def weights(self, names: Iterable[str]) -> list[Weight]:
        """List what weights are made of.

        Args:
            names: Our names: of the BERT, the backbone, the projections and the temperature.
        """
        ours = list(names)
        backbone = [name.removeprefix(BACKBONE) for name in ours if name.startswith(BACKBONE)]
        text = "bert." if self.original else "text_model."
        found = [
            Weight(name, (text + name.removeprefix(BERT),))
            for name in ours
            if name.startswith(BERT)
        ]
        if self.settings.image.attention_pool:
            found += resnet_weights(backbone)
        else:
            names_of = ORIGINAL if self.original else TRANSFORMERS
            found += transformer_weights(backbone, names_of)
        heads = {weight.name: weight for weight in self._heads()}
        return found + [heads[name] for name in ours if name in heads]

    def _heads(self) -> list[Weight]:
        """List the projections and the temperature."""
        scale = Weight("temperature", ("logit_scale",), "temperature")
        # CLIP's projections have no bias, except that of the ResNet. Zeros add nothing.
        zeros = [Weight(f"dual.{tower}_proj.bias", (), "zeros") for tower in ("text", "vision")]
        if not self.original:
            text, vision = ("text_projection.weight",), ("visual_projection.weight",)
            return [Weight("dual.text_proj.weight", text),
                    Weight("dual.vision_proj.weight", vision), scale, *zeros]  # fmt: skip
        heads = [
            *zeros, scale, Weight("dual.text_proj.weight", ("text_projection",), "transposed")
        ]  # fmt: skip
        if not self.settings.image.attention_pool:
            return [*heads, Weight("dual.vision_proj.weight", ("visual.proj",), "transposed")]
        pool = "visual.attnpool.c_proj."
        return [*heads, *(Weight(f"dual.vision_proj.{n}", (pool + n,)) for n in ("weight", "bias"))]

    def assemble(self, shapes: Mapping[str, Shape]) -> tuple[dict[str, Tensor], TensorReport]:
        """Make weights, and account for every tensor.

        Args:
            shapes: The shapes of all weights of the model, by our names.
        """
        return assemble(self.weights(shapes), shapes, self.tensors, IGNORED)


def open_chinese_clip(source: str, setting: str) -> ChineseClip:
    """Read a Chinese-CLIP.

    Args:
        source: A folder that transformers saved, a ``.pt`` of the original repository, or the name
            of a model on the hub.
        setting: The setting or argument that names it, for messages.

    Raises:
        InputError: There is no such file, or its tokenizer has other rules.
        CheckpointError: It cannot be read, or is another model.
    """
    path = Path(source)
    if path.is_file():
        tensors = read_tensors(path)
        settings = settings_from_shapes(tensors, path)
        return ChineseClip(source, path, settings, None, (), tensors, True)
    if not path.is_dir() and (path.suffix in (".pt", ".pth", ".bin") or not is_hub_name(source)):
        raise CheckpointError(
            tr("No such file or folder."),
            where=f"{setting}: {source}",
            expected=tr("a folder of transformers, a .pt file, or the name of a model on the hub"),
        )
    about = _required(source, ("config.json",), setting)
    weights = _required(source, WEIGHT_FILES, setting)
    settings = settings_from_config(read_json(about), about)
    files = (_optional(source, name, setting) for name in VOCABULARIES)
    words = next((file for file in files if file is not None), None)
    vocabulary = None if words is None else read_vocabulary(words)[0]
    rules = _optional(source, "tokenizer_config.json", setting)
    if rules is not None:
        require_lower_case(read_json(rules), "do_lower_case", rules)
    remarks: list[str] = []
    processor = _optional(source, "preprocessor_config.json", setting) or _optional(
        source, "processor_config.json", setting
    )
    if processor is not None:
        remarks = _apply_processor(settings, read_json(processor), processor)
    tensors = read_tensors(weights)
    return ChineseClip(source, weights, settings, vocabulary, tuple(remarks), tensors, False)


def _required(source: str, names: tuple[str, ...], setting: str) -> Path:
    folder = Path(source)
    if not folder.is_dir():
        return fetch(source, names, setting)
    found = next((folder / name for name in names if (folder / name).is_file()), None)
    if found is not None:
        return found
    raise CheckpointError(
        tr("This is not a Chinese-CLIP folder of transformers: a file is missing."),
        where=f"{setting}: {folder}",
        found=listed(sorted(p.name for p in folder.iterdir())[:8]) or tr("an empty folder"),
        expected=" / ".join(names),
        hint=join_shards(folder),
    )


def _optional(source: str, name: str, setting: str) -> Path | None:
    folder = Path(source)
    if folder.is_dir():
        return folder / name if (folder / name).is_file() else None
    try:
        return cached_file(source, name) or fetch(source, [name], setting)
    except CheckpointError:
        return None


def _apply_processor(settings: ClipSettings, about: dict[str, Any], where: Path) -> list[str]:
    """Take over mean and deviation of an image processor; return what is done otherwise.

    xmr resizes the whole image to a square (bicubic), as Chinese-CLIP's own code does.

    Raises:
        InputError: Mean or deviation are no usable numbers.
    """
    part = about.get("image_processor", about)
    about = part if isinstance(part, dict) else about
    try:
        mean = tuple(map(float, about.get("image_mean") or CLIP_MEAN))
        std = tuple(map(float, about.get("image_std") or CLIP_STD))
        if (mean, std) != (CLIP_MEAN, CLIP_STD):
            settings.image.mean, settings.image.std = mean, std  # type: ignore[assignment]
    except (TypeError, ValueError) as error:
        raise InputError(
            tr("The image processor's mean and deviation are not usable."),
            where=where,
            found=f"{about.get('image_mean')}, {about.get('image_std')}",
        ) from error
    remarks = []
    size = about.get("size")
    if about.get("do_center_crop") or (isinstance(size, dict) and "shortest_edge" in size):
        remarks.append(
            tr(
                "The model's image processor crops images to their centre; xmr resizes the whole "
                "image to a square. Scores differ for images that are not square."
            )
        )
    if about.get("resample", BICUBIC) != BICUBIC:
        remarks.append(
            tr("The model's image processor resizes with another filter; xmr uses bicubic.")
        )
    return remarks
