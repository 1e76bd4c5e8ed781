"""Dual encoders of transformers: CLIP, SigLIP, SigLIP 2, Chinese-CLIP, AltCLIP and others.

A model fits if ``AutoModel`` gives it ``get_text_features`` and ``get_image_features``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from bagformer_cli.adapters.protocol import (
    loading,
    not_a_dual_encoder,
    one_vector_each,
    require_loaded,
)
from bagformer_cli.hub import licence_of
from bagformer_cli.vectors.multi_vectors import MultiVectors

_CONTEXT = {"chinese_clip": 52}
"""Tokens of a title in training, where the model's files do not say so."""


class TransformersDual:
    """A dual encoder of transformers.

    Args:
        folder: The model's folder.
        name: The value of ``--model``.
        device: Where it runs, in float32.

    Raises:
        CheckpointError: transformers cannot load it, weights are missing, it needs its own
            program code, or it does not encode both titles and images.
    """

    package = "transformers"

    def __init__(self, folder: Path, name: str, device: str) -> None:
        from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

        options: dict[str, Any] = {"trust_remote_code": False, "local_files_only": True}
        with loading(self.package, name):
            model, found = AutoModel.from_pretrained(
                folder, dtype=torch.float32, output_loading_info=True, **options
            )
        if not (hasattr(model, "get_text_features") and hasattr(model, "get_image_features")):
            raise not_a_dual_encoder(name, type(model).__name__)
        with loading(self.package, name):
            self._tokenizer = AutoTokenizer.from_pretrained(folder, **options)
            processors: Any = AutoImageProcessor
            self._processor = processors.from_pretrained(folder, **options)
        require_loaded(left_random(model, found), name)
        self.name = name
        self.licence = licence_of(folder)
        self._model = model.to(device).eval()
        self._padding = _padding(model.config, self._tokenizer.model_max_length)

    @torch.inference_mode()
    def encode_texts(self, titles: Sequence[str]) -> MultiVectors:
        """Encode titles; longer ones than the model takes are cut."""
        inputs = self._tokenizer(
            list(titles), truncation=True, return_tensors="pt", **self._padding
        )
        return one_vector_each(_features(self._model.get_text_features(**self._moved(inputs))))

    @torch.inference_mode()
    def encode_images(self, images: Sequence[Image.Image]) -> MultiVectors:
        """Encode RGB images."""
        inputs = self._processor(images=list(images), return_tensors="pt")
        return one_vector_each(_features(self._model.get_image_features(**self._moved(inputs))))

    def _moved(self, inputs: Any) -> dict[str, Any]:
        return dict(inputs.to(self._model.device))


def left_random(model: Any, found: dict[str, Any]) -> list[str]:
    """Name the parameters that transformers did not find in the files.

    Args:
        model: The loaded model.
        found: The second value of ``from_pretrained(output_loading_info=True)``.
    """
    own = {name for name, _ in model.named_parameters()}
    other_shape = {str(entry[0]) for entry in found.get("mismatched_keys", ())}
    return sorted(own & (set(found.get("missing_keys", ())) | other_shape))


def _padding(config: Any, longest: int) -> dict[str, Any]:
    """Say how titles are padded and cut: SigLIP was trained with padding to a fixed length."""
    positions = getattr(config.get_text_config(), "max_position_embeddings", None) or longest
    length = min(longest, positions, _CONTEXT.get(config.model_type, positions))
    fixed = config.model_type.startswith("siglip")
    return {"padding": "max_length" if fixed else True, "max_length": length}


def _features(output: Any) -> Tensor:
    """Return the projected vectors [n, D]: transformers 5 wraps them, earlier versions do not."""
    return output if isinstance(output, Tensor) else output.pooler_output
