"""Models of sentence-transformers that encode titles and images to one or to many vectors."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from bagformer_cli.adapters.protocol import (
    import_library,
    loading,
    not_a_dual_encoder,
    one_vector_each,
    require_loaded,
)
from bagformer_cli.adapters.transformers_dual import left_random
from bagformer_cli.errors import CheckpointError, XmrError, listed
from bagformer_cli.hub import licence_of
from bagformer_cli.messages import tr
from bagformer_cli.opening import read_regular
from bagformer_cli.vectors.multi_vectors import MultiVectors

_SETTINGS_BYTES = 1 << 20


class SentenceModel:
    """A ``SentenceTransformer`` or, with many vectors per item, a ``MultiVectorEncoder``.

    Titles are encoded as queries and images as documents, with the prompts that the model sets for
    them.

    Args:
        folder: The model's folder, with ``modules.json``.
        name: The value of ``--model``.
        device: Where it runs.

    Raises:
        CheckpointError: The library cannot load it, weights are missing, it does not encode both
            titles and images, or it compares them by a distance.
    """

    package = "sentence-transformers"

    def __init__(self, folder: Path, name: str, device: str) -> None:
        library = import_library("sentence_transformers", self.package)
        if not (folder / "modules.json").is_file():
            raise CheckpointError(
                tr("This folder holds no model of sentence-transformers."),
                where=name,
                expected="modules.json",
            )
        self._many = _kind(folder) == "MultiVectorEncoder"
        kind = library.MultiVectorEncoder if self._many else library.SentenceTransformer
        with loading(self.package, name), _watched() as missing:
            model = kind(str(folder), device=device, trust_remote_code=False, local_files_only=True)
        for modality in ("text", "image"):
            if not model.supports(modality):
                raise not_a_dual_encoder(name, listed(model.modalities))
        require_loaded(missing, name)
        self._similarity = str(model.similarity_fn_name)
        known = ("cosine", "dot", "maxsim", "meanmaxsim")
        if self._similarity not in known:
            raise CheckpointError(
                tr("This model compares vectors in a way that xmr does not offer."),
                where=name,
                found=self._similarity,
                expected=listed(known),
            )
        self.name = name
        self.licence = licence_of(folder)
        self._model = model.eval()

    def encode_texts(self, titles: Sequence[str]) -> MultiVectors:
        """Encode titles as queries."""
        return self._vectors(self._model.encode_query(list(titles), **self._options(len(titles))))

    def encode_images(self, images: Sequence[Image.Image]) -> MultiVectors:
        """Encode RGB images as documents."""
        found = self._model.encode_document(list(images), **self._options(len(images)))
        return self._vectors(found)

    def _options(self, count: int) -> dict[str, Any]:
        options = {"batch_size": count, "show_progress_bar": False}
        return options if self._many else {**options, "convert_to_tensor": True}

    def _vectors(self, found: Any) -> MultiVectors:
        if self._many:  # a list of [n_i, D], scaled as the model's own modules say
            return MultiVectors.from_list([torch.as_tensor(one).float() for one in found])
        features: Tensor = found.float()
        if self._similarity == "cosine":
            return one_vector_each(features)
        return MultiVectors(features, torch.arange(len(features) + 1))


def _kind(folder: Path) -> str:
    """Read which class of sentence-transformers saved a folder."""
    settings = folder / "config_sentence_transformers.json"
    try:
        record = json.loads(read_regular(settings, _SETTINGS_BYTES))
        return str(record.get("model_type", ""))
    except (XmrError, ValueError, AttributeError, RecursionError):
        return ""  # older folders have no such file: they are a SentenceTransformer


@contextmanager
def _watched() -> Iterator[list[str]]:
    """Collect the names of weights that transformers finds in no file while the block loads models.

    sentence-transformers loads its parts with ``from_pretrained`` and does not pass on this report.
    """
    import transformers

    kind: Any = transformers.PreTrainedModel
    original = kind.__dict__["from_pretrained"]
    missing: list[str] = []

    def recording(cls: Any, *given: Any, **options: Any) -> Any:
        wanted = options.pop("output_loading_info", False)
        model, found = original.__func__(cls, *given, output_loading_info=True, **options)
        missing.extend(left_random(model, found))
        return (model, found) if wanted else model

    kind.from_pretrained = classmethod(recording)
    try:
        yield missing
    finally:
        kind.from_pretrained = original
