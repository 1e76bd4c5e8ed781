"""An xmr model as a module of sentence-transformers, which opens it from its folder.

``modules.json`` of an exported folder names :class:`XmrEncoder` by its place in the installed
package. The folder itself holds no code. sentence-transformers 6 imports a class outside its own
package only with ``trust_remote_code=True``; ``modules=[XmrEncoder.load(FOLDER)]`` works without.

Only sentence-transformers and its users import this file, since it imports that library.

Shapes: n items, M vectors of an item at most, D dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from PIL import Image
from sentence_transformers.base.modules import InputModule
from sentence_transformers.util import load_dir_path
from torch import Tensor

from bagformer_cli.data.images import decode, resize
from bagformer_cli.errors import InputError, listed
from bagformer_cli.export.towers import ImageTower, TextTower
from bagformer_cli.messages import tr
from bagformer_cli.models.build import RetrievalModel
from bagformer_cli.models.checkpoint import load_model, save_model
from bagformer_cli.text.padding import pad_titles


class XmrEncoder(InputModule):
    """Both towers of an xmr model, as the first and only module of a pipeline.

    Args:
        model: The model.
    """

    save_in_root = True
    """The folder is an xmr model folder at the same time."""

    def __init__(self, model: RetrievalModel) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.model = model
        self.max_seq_length = model.titles.max_tokens
        self.tokenizer = model.titles.tokenizer.oracle  # for its length only: bags need our own

    @property
    def modalities(self) -> list[Any]:
        """Titles and images."""
        return ["text", "image"]

    def preprocess(
        self, inputs: Sequence[Any], prompt: str | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        """Turn a batch of titles, or of opened images, into tensors.

        Args:
            inputs: n texts, or n images of Pillow.
            prompt: A text that is put before every title.
            **kwargs: Unused.

        Raises:
            InputError: The batch holds anything else, or both.
        """
        if all(isinstance(one, str) for one in inputs):
            titles = [(prompt or "") + title for title in inputs]
            padded = pad_titles(self.model.titles(titles), self.model.titles.tokenizer.pad_id)
            return {
                "input_ids": torch.from_numpy(padded.input_ids),
                "attention_mask": torch.from_numpy(padded.attention_mask),
                "bag_tokens": torch.from_numpy(padded.bag_tokens()),
            }
        if all(isinstance(one, Image.Image) for one in inputs):
            size = self.model.config.image.size
            pixels = np.stack([resize(decode(image), size) for image in inputs])
            return {"pixels": torch.from_numpy(pixels)}
        raise InputError(
            tr("A batch holds texts, or images opened with Pillow."),
            found=listed(sorted({type(one).__name__ for one in inputs})),
        )

    def forward(self, features: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Encode a batch.

        Args:
            features: From :meth:`preprocess`.
            **kwargs: Unused.

        Returns:
            ``token_embeddings`` [n, M, D] unit vectors, ``attention_mask`` [n, M] int64 (1: a
            vector of the item) and ``sentence_embedding`` [n, D].
        """
        vectors: Tensor
        if "pixels" in features:
            vectors, mask, cls = ImageTower(self.model.dual)(features["pixels"])
        else:
            names = ("input_ids", "attention_mask", "bag_tokens")
            vectors, mask, cls = TextTower(self.model.dual)(*(features[name] for name in names))
        return {
            **features,
            "token_embeddings": vectors,
            "attention_mask": mask.long(),
            "sentence_embedding": cls,
        }

    def get_embedding_dimension(self) -> int:
        """Return D."""
        return self.model.config.model.embed_dim

    def save(self, output_path: str, *args: Any, **kwargs: Any) -> None:
        """Write an xmr model folder."""
        save_model(self.model, output_path)

    @classmethod
    def load(  # type: ignore[override]
        cls, model_name_or_path: str, subfolder: str = "", **kwargs: Any
    ) -> Self:
        """Load a folder, or a model on the hub.

        Args:
            model_name_or_path: The folder, or the name on the hub.
            subfolder: A folder in it.
            **kwargs: Options of the hub's client; others are not used.
        """
        known = ("token", "cache_folder", "revision", "local_files_only")
        options = {name: kwargs[name] for name in known if name in kwargs}
        folder = load_dir_path(model_name_or_path, subfolder=subfolder, **options)
        return cls(load_model(Path(str(folder))))
