"""Load an exported model; encode titles and images with it; score them.

The methods are those of :class:`bagformer_cli.Retriever`, with numpy arrays in place of tensors.

Shapes: n items, M vectors of an item at most, D dimensions, S side of an image in pixels.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bagformer_cli.data.images import decode, resize
from bagformer_cli.errors import CheckpointError, MissingDependencyError
from bagformer_cli.inputs import Images, image_list, one_title, require_vectors, title_list
from bagformer_cli.messages import tr
from bagformer_cli.runtime.folder import IMAGE, TEXT, Manifest, read_manifest
from bagformer_cli.runtime.vectors import Scores, Vectors, maxsim
from bagformer_cli.text.bags import TitleEncoder
from bagformer_cli.text.padding import pad_titles
from bagformer_cli.text.segmenter import Bag

BATCH = 64


class OnnxRetriever:
    """An exported model that encodes and scores images and titles; :func:`load` makes one.

    Args:
        manifest: Facts about the model.
        titles: Turns titles into tokens and bags.
        text: Session of ``text.onnx``.
        image: Session of ``image.onnx``.
    """

    def __init__(self, manifest: Manifest, titles: TitleEncoder, text: Any, image: Any) -> None:
        self.manifest = manifest
        self.titles = titles
        self._text, self._image = text, image

    def encode_texts(self, titles: str | Iterable[str]) -> Vectors:
        """Encode titles or queries to vectors.

        Args:
            titles: One title, or a list, array, series or generator of titles.

        Raises:
            InputError: A title is empty or no text; the message names its position, from 1.
        """
        texts = title_list(titles)
        parts = [self.run_texts(texts[i : i + BATCH])[0] for i in range(0, len(texts), BATCH)]
        return Vectors.concatenate(parts, self.manifest.dim)

    def encode_images(self, images: Images | Iterable[Any]) -> Vectors:
        """Encode images to vectors.

        Args:
            images: Opened images, paths, or contents of image files: one, or a list, array,
                series or generator of them.

        Raises:
            InputError: An image is missing, cannot be decoded or is something else; the message
                names it or its position, from 1.
        """
        items = image_list(images)
        size = self.manifest.image_size
        parts = []
        for i in range(0, len(items), BATCH):
            pixels = np.stack([resize(decode(image), size) for image in items[i : i + BATCH]])
            parts.append(self.run_images(pixels)[0])
        return Vectors.concatenate(parts, self.manifest.dim)

    def score(self, images: Vectors, titles: Vectors) -> Scores:
        """Score all images against all titles by late interaction, in both directions.

        Args:
            images: From :meth:`encode_images`.
            titles: From :meth:`encode_texts`.

        Raises:
            InputError: One of them is something else.
        """
        require_vectors(images, Vectors, "images", "encode_images")
        require_vectors(titles, Vectors, "titles", "encode_texts")
        return maxsim(titles, images)

    def bags(self, title: str) -> list[Bag]:
        """Segment a title into the entity bags that its score is computed from.

        Raises:
            InputError: It is no text.
        """
        return self.titles.bags(one_title(title))

    def run_texts(self, titles: Sequence[str]) -> tuple[Vectors, NDArray[np.float32]]:
        """Encode one batch of checked titles: their vectors, and single vectors [n, D]."""
        padded = pad_titles(self.titles(titles), self.titles.tokenizer.pad_id)
        return _run(
            self._text,
            {
                "input_ids": padded.input_ids,
                "attention_mask": padded.attention_mask,
                "bag_tokens": padded.bag_tokens(),
            },
        )

    def run_images(self, pixels: NDArray[np.uint8]) -> tuple[Vectors, NDArray[np.float32]]:
        """Encode one batch [n, S, S, 3] uint8: their vectors, and single vectors [n, D]."""
        return _run(self._image, {"pixels": pixels})


def load(folder: str | Path, providers: Sequence[str] | None = None) -> OnnxRetriever:
    """Load an exported model.

    Args:
        folder: A folder that ``xmr export onnx`` wrote.
        providers: Execution providers of onnxruntime, preferred ones first. None: CUDA if this
            onnxruntime has it, else the CPU.

    Raises:
        CheckpointError: The folder is not an exported model, or it is damaged.
        MissingDependencyError: onnxruntime is not installed.
    """
    from bagformer_cli.config import load_config
    from bagformer_cli.text.from_config import title_encoder
    from bagformer_cli.text.lexicon import saved_lexicon
    from bagformer_cli.text.tokenizer import Tokenizer

    folder = Path(folder)
    manifest = read_manifest(folder)
    config = load_config(folder / "config.yaml", stored=True)
    tokenizer = Tokenizer.load(folder / "vocab.txt")
    titles = title_encoder(config, tokenizer, saved_lexicon(folder / "lexicon.txt"))
    sessions = [_session(folder / name, providers) for name in (TEXT, IMAGE)]
    return OnnxRetriever(manifest, titles, *sessions)


def _session(path: Path, providers: Sequence[str] | None) -> Any:
    try:
        import onnxruntime
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            tr("An exported model is run by the package onnxruntime."),
            found=error.name,
            hint="pip install 'bagformer-cli[export]'",
        ) from None
    if providers is None:
        known = onnxruntime.get_available_providers()
        cuda = "CUDAExecutionProvider"
        providers = [*([cuda] if cuda in known else []), "CPUExecutionProvider"]
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors only: its warnings speak of the graph's optimisation
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=list(providers))
    except Exception as error:  # the classes of its errors are not public
        raise CheckpointError(
            tr("onnxruntime cannot open this file."),
            where=path,
            found=str(error).strip().splitlines()[0][:200],
            hint=tr("Export the model again: xmr export onnx CHECKPOINT OUT/"),
        ) from error


def _run(session: Any, inputs: dict[str, Any]) -> tuple[Vectors, NDArray[np.float32]]:
    vectors, mask, cls = session.run(["vectors", "mask", "cls"], inputs)
    return Vectors.from_padded(vectors.astype(np.float32, copy=False), mask), cls.astype(np.float32)
