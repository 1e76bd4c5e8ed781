"""Load an exported model; encode titles and images with it; score them.

The methods are those of :class:`bagformer_cli.Retriever`, with numpy arrays in place of tensors.

Shapes: n items, M vectors of an item at most, D dimensions, S side of an image in pixels.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bagformer_cli.calibration import Calibration, usable_calibration
from bagformer_cli.config.scoring import Scoring
from bagformer_cli.data.images import decode, resize
from bagformer_cli.errors import CheckpointError, InputError, MissingDependencyError
from bagformer_cli.inputs import Images, image_list, one_title, require_vectors, title_list
from bagformer_cli.messages import tr
from bagformer_cli.progress import LOGGED, Progress
from bagformer_cli.runtime.folder import CROSS, IMAGE, MANIFEST, TEXT, Manifest, read_manifest
from bagformer_cli.runtime.graph_file import check_graph
from bagformer_cli.runtime.vectors import Scores, maxsim
from bagformer_cli.text.bags import TitleEncoder
from bagformer_cli.text.padding import pad_titles
from bagformer_cli.text.segmenter import Bag
from bagformer_cli.vectors.arrays import EncodedArrays, Vectors

if TYPE_CHECKING:
    from bagformer_cli.config import RunConfig

BATCH = 64


class OnnxRetriever:
    """An exported model that encodes and scores images and titles; :func:`load` makes one.

    Args:
        folder: The exported model.
        manifest: Facts about the model.
        config: Its settings.
        titles: Turns titles into tokens and bags.
        providers: Execution providers of onnxruntime, preferred ones first; None: chosen here.
    """

    def __init__(
        self,
        folder: Path,
        manifest: Manifest,
        config: RunConfig,
        titles: TitleEncoder,
        providers: Sequence[str] | None = None,
    ) -> None:
        self.folder = folder
        self.manifest = manifest
        self.config = config
        self.titles = titles
        self._providers = providers
        self._text, self._image = self._session(TEXT), self._session(IMAGE)

    def _session(self, name: str) -> Any:
        return _session(self.folder / name, self._providers)

    @cached_property
    def _cross(self) -> Any:
        return self._session(CROSS)

    @property
    def scoring(self) -> Scoring:
        """The sum by which the model scores a title and an image."""
        return Scoring.of(self.config)

    def encode_texts(self, titles: str | Iterable[str]) -> Vectors:
        """Encode titles or queries to vectors.

        Args:
            titles: One title, or a list, array, series or generator of titles.

        Raises:
            InputError: A title is empty or no text; the message names its position, from 1.
        """
        texts = title_list(titles)
        parts = [self.run_texts(texts[i : i + BATCH]).vectors for i in range(0, len(texts), BATCH)]
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
            parts.append(self.run_images(pixels).vectors)
        return Vectors.concatenate(parts, self.manifest.dim)

    def score(self, images: Vectors, titles: Vectors) -> Scores:
        """Score all images against all titles in both directions, as the model ranks by.

        Args:
            images: From :meth:`encode_images`.
            titles: From :meth:`encode_texts`.

        Raises:
            InputError: One of them is something else.
        """
        require_vectors(images, Vectors, "images", "encode_images")
        require_vectors(titles, Vectors, "titles", "encode_texts")
        return maxsim(titles, images, self.scoring)

    def calibration(self, progress: Progress = LOGGED) -> Calibration | None:
        """Read the curves from mean scores to probabilities; None: no calibration fits this export.

        Args:
            progress: Receives the warning that the folder's calibration is of another model or
                precision.

        Raises:
            CheckpointError: The file is damaged.
        """
        manifest = self.manifest
        return usable_calibration(
            self.folder, lambda: manifest.model, self.scoring, manifest.precision, progress
        )

    @property
    def can_rerank(self) -> bool:
        """True if the model has a cross-encoder: :meth:`rerank` scores pairs."""
        return self.manifest.cross is not None

    def rerank(
        self, titles: str | Iterable[str], images: Images | Iterable[Any]
    ) -> NDArray[np.float32]:
        """Score pairs of a title and an image with the cross-encoder: [n], higher is better.

        Args:
            titles: n titles, or one that is compared with all images.
            images: n images, or one that is compared with all titles.

        Raises:
            InputError: A title or an image is wrong, or their numbers do not fit.
            CheckpointError: The model has no cross-encoder.
        """
        texts, items, size = title_list(titles), image_list(images), self.manifest.image_size
        if len(texts) != len(items) and 1 not in (len(texts), len(items)):
            raise InputError(
                tr("A cross-encoder scores pairs: as many titles as images, or one of either."),
                found=f"{len(texts)} ≠ {len(items)}",
            )
        if not texts or not items:
            return np.zeros(0, np.float32)
        pixels = np.stack([resize(decode(image), size) for image in items])
        return self.run_pairs(texts, pixels)

    def run_pairs(self, titles: Sequence[str], pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Score pairs of checked titles and resized images; see :meth:`rerank`."""
        if not self.can_rerank:
            raise no_cross_encoder(self.folder)
        count = max(len(titles), len(pixels))
        text_at = np.arange(count) if len(titles) > 1 else np.zeros(count, np.int64)
        image_at = np.arange(count) if len(pixels) > 1 else np.zeros(count, np.int64)
        text, mask = self._text_states(titles)
        parts = [pixels[i : i + BATCH] for i in range(0, len(pixels), BATCH)]
        states = [_outputs(self._image, ["states"], {"pixels": p}, IMAGE)[0] for p in parts]
        image = np.concatenate(states)
        scores = np.zeros(count, np.float32)
        for begin in range(0, count, BATCH):
            own, seen = text_at[begin : begin + BATCH], image_at[begin : begin + BATCH]
            feed = {"text_states": text[own], "text_mask": mask[own], "image_states": image[seen]}
            (found,) = _outputs(self._cross, ["scores"], feed, CROSS)
            if found.shape != (len(own),) or found.dtype.kind != "f":
                raise _wrong_graph(CROSS, f"scores {list(found.shape)}")
            scores[begin : begin + BATCH] = found
        return scores

    def _text_states(self, titles: Sequence[str]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Return what the cross-encoder reads of titles, all padded to one length."""
        feed = self._padded(titles)
        if self.manifest.cross == "ids":
            return feed["input_ids"], feed["attention_mask"]
        states, mask = _outputs(self._text, ["states", "states_mask"], feed, TEXT)
        return states, mask

    def bags(self, title: str) -> list[Bag]:
        """Segment a title into the entity bags that its score is computed from.

        Raises:
            InputError: It is no text.
        """
        return self.titles.bags(one_title(title))

    def run_texts(self, titles: Sequence[str]) -> EncodedArrays:
        """Encode one batch of checked titles: their vectors, and single vectors [n, D]."""
        return _run(self._text, self._padded(titles), self.manifest.dim, TEXT)

    def _padded(self, titles: Sequence[str]) -> dict[str, NDArray[Any]]:
        padded = pad_titles(self.titles(titles), self.titles.tokenizer.pad_id)
        return {
            "input_ids": padded.input_ids,
            "attention_mask": padded.attention_mask,
            "bag_tokens": padded.bag_tokens(),
        }

    def run_images(self, pixels: NDArray[np.uint8]) -> EncodedArrays:
        """Encode one batch [n, S, S, 3] uint8: their vectors, and single vectors [n, D]."""
        return _run(self._image, {"pixels": pixels}, self.manifest.dim, IMAGE)


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
    if (manifest.dim, manifest.image_size) != (config.model.embed_dim, config.image.size):
        raise CheckpointError(
            tr("The files of the exported model do not belong together."),
            where=folder,
            found=f"{MANIFEST}: dim {manifest.dim}, image_size {manifest.image_size}",
            expected=f"config.yaml: {config.model.embed_dim}, {config.image.size}",
        )
    tokenizer = Tokenizer.load(folder / "vocab.txt")
    titles = title_encoder(config, tokenizer, saved_lexicon(folder / "lexicon.txt"))
    return OnnxRetriever(folder, manifest, config, titles, providers)


def no_cross_encoder(folder: Path) -> CheckpointError:
    """Return the error for a rerank with an exported model that has no cross-encoder."""
    return CheckpointError(
        tr("This exported model has no cross-encoder, so it cannot rerank."),
        where=folder,
        hint=tr(
            "Leave out --rerank, or export a model with a trained cross-encoder: "
            "xmr export onnx CHECKPOINT OUT/"
        ),
    )


def _session(path: Path, providers: Sequence[str] | None) -> Any:
    check_graph(path)
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
    options.log_severity_level = 4  # its errors are raised as well
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=list(providers))
    except Exception as error:  # the classes of its errors are not public
        raise CheckpointError(
            tr("onnxruntime cannot open this file."),
            where=path,
            found=str(error).strip().splitlines()[0][:200],
            hint=tr("Export the model again: xmr export onnx CHECKPOINT OUT/"),
        ) from error


def _run(session: Any, inputs: dict[str, Any], dim: int, path: str) -> EncodedArrays:
    """Run a graph, and check that its outputs are vectors of the n items.

    Raises:
        CheckpointError: It fails, or computes something else.
    """
    vectors, mask, cls = _outputs(session, ["vectors", "mask", "cls"], inputs, path)
    n = len(next(iter(inputs.values())))
    kinds = [one.dtype.kind for one in (vectors, mask, cls)]
    shapes = f"vectors {list(vectors.shape)}, mask {list(mask.shape)}, cls {list(cls.shape)}"
    if (
        kinds != ["f", "b", "f"]
        or vectors.ndim != 3
        or (len(vectors), vectors.shape[2]) != (n, dim)
        or mask.shape != vectors.shape[:2]
        or cls.shape != (n, dim)
    ):
        raise _wrong_graph(path, shapes)
    if not mask.any(axis=1).all():
        raise _wrong_graph(path, tr("an item without a vector"))
    padded = vectors.astype(np.float32, copy=False)
    return EncodedArrays(Vectors.from_padded(padded, mask), cls.astype(np.float32, copy=False))


def _outputs(
    session: Any, names: list[str], inputs: dict[str, Any], path: str
) -> list[NDArray[Any]]:
    """Run a graph and return the named outputs.

    Raises:
        CheckpointError: It has no such outputs, or it fails.
    """
    try:
        found: list[NDArray[Any]] = session.run(names, inputs)
    except Exception as error:  # the classes of its errors are not public
        raise _wrong_graph(path, str(error).strip().splitlines()[0][:200]) from error
    return found


def _wrong_graph(path: str, found: str) -> CheckpointError:
    return CheckpointError(
        tr("The graph of the exported model does not compute vectors."),
        where=path,
        found=found,
        expected="vectors [n, M, D], mask [n, M], cls [n, D]",
        hint=tr("Export the model again: xmr export onnx CHECKPOINT OUT/"),
    )
