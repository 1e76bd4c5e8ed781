"""Models of open_clip: a folder that it saved, or one of its names with the name of weights."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image

from bagformer_cli.adapters.protocol import (
    import_library,
    loading,
    one_vector_each,
)
from bagformer_cli.errors import CheckpointError, listed, nearest
from bagformer_cli.hub import cached_file, licence_of, require_hub
from bagformer_cli.messages import tr
from bagformer_cli.vectors.multi_vectors import MultiVectors

_HUB_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")


class OpenClipModel:
    """A dual encoder of open_clip.

    Args:
        source: A folder with ``open_clip_config.json``, or ``NAME/WEIGHTS``: a model of open_clip
            and one of its weights, or a weight file.
        name: The value of ``--model``.
        device: Where it runs.

    Raises:
        CheckpointError: open_clip cannot load it, has no such name, or the weights do not fit.
    """

    package = "open_clip"

    def __init__(self, source: str, name: str, device: str) -> None:
        library = import_library("open_clip", "open_clip_torch")
        weights: str | None = None
        self.licence: str | None = None
        if os.path.isdir(source):
            self.licence = licence_of(Path(source))
            model_name = f"local-dir:{source}"
        else:
            model_name, weights = _chosen(library, source, name)
        with loading(self.package, name):
            model, processor = library.create_model_from_pretrained(
                model_name, pretrained=weights, device=device, weights_only=True
            )
            self._tokenizer = library.get_tokenizer(model_name)
        self.name = name
        self._model, self._processor = model.eval(), processor
        self._device = torch.device(device)

    @torch.inference_mode()
    def encode_texts(self, titles: Sequence[str]) -> MultiVectors:
        """Encode titles; longer ones than the model takes are cut."""
        tokens = self._tokenizer(list(titles)).to(self._device)
        return one_vector_each(self._model.encode_text(tokens))

    @torch.inference_mode()
    def encode_images(self, images: Sequence[Image.Image]) -> MultiVectors:
        """Encode RGB images."""
        pixels = torch.stack([self._processor(image) for image in images])
        return one_vector_each(self._model.encode_image(pixels.to(self._device)))


def _chosen(library: object, source: str, where: str) -> tuple[str, str]:
    """Split ``NAME/WEIGHTS`` and check both before anything is downloaded."""
    known: list[str] = library.list_models()  # type: ignore[attr-defined]
    name, _, weights = source.partition("/")
    if name not in known:
        near = nearest(name, known)
        raise CheckpointError(
            tr("open_clip has no model of this name."),
            where=where,
            expected=tr("a folder, NAME/WEIGHTS, or hf-hub:OWNER/NAME"),
            hint=tr("Did you mean {name}?", name=f"open_clip:{near}/…") if near else None,
        )
    if os.path.isfile(weights):
        return name, weights
    tags: list[str] = library.list_pretrained_tags_by_model(name)  # type: ignore[attr-defined]
    if weights not in tags:
        raise CheckpointError(
            tr("Say which weights of this open_clip model: without them it would be random."),
            where=where,
            found=weights or None,
            expected=listed([*tags, tr("a weight file")]),
            hint=f"--model open_clip:{name}/{tags[0] if tags else 'FILE'}",
        )
    settings = library.get_pretrained_cfg(name, weights)  # type: ignore[attr-defined]
    hub_name = str(settings.get("hf_hub") or "").partition(".")[0].strip("/")
    if hub_name and not any(cached_file(hub_name, file) for file in _HUB_FILES):
        require_hub(hub_name, "--model")
    return name, weights
