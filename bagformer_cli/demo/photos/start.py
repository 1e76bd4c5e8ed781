"""The model that the demo on photographs starts from.

========================  ==============================================================
Chinese-CLIP              if a hub or its local cache has it, or ``--model`` names another
packaged towers           otherwise: EfficientNet-Lite2 and multilingual-e5-small from
                          Python packages, joined by Chinese names of ImageNet's classes
========================  ==============================================================

Either becomes a model folder that searches before any training, and a configuration that trains
its two projections with frozen towers.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from bagformer_cli.config import RunConfig, load_config
from bagformer_cli.demo.photos.seller_words import seller_titles
from bagformer_cli.errors import CheckpointError
from bagformer_cli.hub import cached_file, require_hub
from bagformer_cli.messages import tr
from bagformer_cli.models.build import RetrievalModel, build_model
from bagformer_cli.models.checkpoint import save_model
from bagformer_cli.models.class_names import project_classes
from bagformer_cli.models.convert.chinese_clip import WEIGHT_FILES
from bagformer_cli.models.convert.folder import convert_chinese_clip
from bagformer_cli.models.convert.packaged import write_e5, write_lite2
from bagformer_cli.progress import SILENT, Progress
from bagformer_cli.temporary import scratch_folder

CHINESE_CLIP = "OFA-Sys/chinese-clip-vit-base-patch16"
PACKAGED = "packaged"
CLIP_LEARNING_RATE = 3e-5
"""A tenth of the packaged towers' rate: Chinese-CLIP's projections were trained already. Its own
fine-tuning takes 5e-5 for all weights."""


@dataclass(frozen=True)
class Start:
    """A model to start from.

    Attributes:
        name: ``packaged``, or the Chinese-CLIP's name or folder.
        folder: The model folder.
        config: The configuration that trains its projections.
    """

    name: str
    folder: Path
    config: RunConfig


def choose_start(
    model: str | None, output_dir: Path, seed: int, progress: Progress = SILENT
) -> Start:
    """Make the model that the demo starts from, unless its folder exists.

    Args:
        model: A Chinese-CLIP (hub name or folder), or ``packaged``. None: :data:`CHINESE_CLIP` if
            the hub or its cache has it, otherwise ``packaged``.
        output_dir: The folder of the demo; gets ``models/`` and names ``data/photos``.
        seed: Random seed of the training.
        progress: Receives the choice.

    Raises:
        MissingDependencyError: A package with weights is missing.
        CheckpointError: The named Chinese-CLIP cannot be read or downloaded.
    """
    if model is None:
        model = CHINESE_CLIP if _is_reachable(progress) else PACKAGED
    if model == PACKAGED:
        return _packaged(output_dir, seed, progress)
    progress.info(tr("Starting from Chinese-CLIP: {name}", name=model))
    return _chinese_clip(model, output_dir, seed, progress)


def class_names() -> list[str]:
    """Return Chinese names of the 1,000 classes of ImageNet, in the order of its classifiers."""
    names = resources.files("bagformer_cli.demo.photos") / "imagenet_zh.txt"
    return names.read_text(encoding="utf-8").split()


def _is_reachable(progress: Progress) -> bool:
    """Tell whether Chinese-CLIP is in the cache or can be downloaded; say so if it is not."""
    if any(cached_file(CHINESE_CLIP, file) is not None for file in WEIGHT_FILES):
        return True
    try:
        require_hub(CHINESE_CLIP, "--model")
    except CheckpointError:
        progress.info(
            tr(
                "No hub can be reached, so the demo starts from towers in Python packages. "
                "--model takes a folder of a Chinese-CLIP, which is much better."
            )
        )
        return False
    return True


def write_packaged_model(folder: Path, progress: Progress = SILENT) -> RetrievalModel:
    """Write the model of packaged towers, which searches photographs without any training.

    Args:
        folder: The model folder to write; it needs none of the towers' folders.
        progress: Receives the encoding of class names, which takes about a minute.

    Raises:
        MissingDependencyError: A package with weights is missing.
    """
    with scratch_folder() as scratch:
        model = _zero_shot(load_config("real", _write_towers(scratch)), progress)
    # For a training that starts here: the folders that `xmr convert` writes for `real`.
    text, image = model.config.text, model.config.image
    real = load_config("real")
    text.pretrained, text.tokenizer = real.text.pretrained, real.text.tokenizer
    image.pretrained = real.image.pretrained
    save_model(model, folder)
    return model


def _packaged(output_dir: Path, seed: int, progress: Progress) -> Start:
    models = output_dir / "models"
    config = _real(output_dir, seed, *_write_towers(models))
    folder = models / "photos-zero-shot"
    if not folder.exists():
        save_model(_zero_shot(config, progress), folder)
    config.training.checkpoint = str(folder)
    return Start(PACKAGED, folder, config)


def _write_towers(models: Path) -> list[str]:
    """Write both packaged towers, unless they are there; return the settings that name them."""
    image, text = models / "efficientnet-lite2", models / "e5-small"
    if not image.exists():
        write_lite2(image)
    if not text.exists():
        write_e5(text)
    towers = {"image.pretrained": image, "text.pretrained": text, "text.tokenizer": text}
    return [f"{name}={folder}" for name, folder in towers.items()]


def _zero_shot(config: RunConfig, progress: Progress) -> RetrievalModel:
    """Build the towers of a configuration and join them by the names of image classes."""
    model = build_model(config)
    names = class_names()
    project_classes(model, names, seller_titles(names), progress)
    return model


def _chinese_clip(name: str, output_dir: Path, seed: int, progress: Progress) -> Start:
    # The whole name, because models of two owners may have the same last part.
    folder = output_dir / "models" / re.sub(r"[^\w.]+", "-", name).strip("-.")
    if not folder.exists():
        convert_chinese_clip(name, folder, progress=progress)
    config, theirs = _real(output_dir, seed), load_config(folder / "config.yaml", stored=True)
    config.text = theirs.text.model_copy(
        update={
            "tokenizer": str(folder / "vocab.txt"),
            "frozen_layers": "all",
            "dropout": 0.0,  # of a frozen tower
        }
    )
    config.image = theirs.image.model_copy(update={"frozen_layers": "all"})
    config.model, config.objectives = theirs.model, theirs.objectives
    config.objectives.temperature.learned = False
    config.training.learning_rate = CLIP_LEARNING_RATE
    config.training.checkpoint = str(folder)
    return Start(name, folder, config)


def _real(output_dir: Path, seed: int, *overrides: str) -> RunConfig:
    """Read ``real`` for the photographs below a folder."""
    dataset = output_dir / "data" / "photos"
    return load_config("real", [f"seed={seed}", f"data.dataset={dataset}", *overrides])
