"""The folder that ``xmr export onnx`` writes, and that the runtime reads.

::

    text.onnx      titles → vectors       config.yaml   settings of the model
    image.onnx     pixels → vectors       vocab.txt     WordPiece vocabulary
    export.json    this file's Manifest   lexicon.txt   entity dictionary
    README.md      model card             cross.onnx    pairs → scores, if the model reranks

Both graphs have the outputs ``vectors`` [n, M, D] float32 (unit length), ``mask`` [n, M] bool and
``cls`` [n, D]; ``vectors[i][mask[i]]`` are the vectors of item i. The inputs of ``text.onnx`` are
``input_ids`` [n, L] int64, ``attention_mask`` [n, L] bool and ``bag_tokens`` [n, G, L] bool (which
tokens each bag holds); that of ``image.onnx`` is ``pixels`` [n, S, S, 3] uint8.

If the model reranks, ``image.onnx`` has the further output ``states`` [n, P, W], and ``text.onnx``
has ``states`` [n, L', W] and ``states_mask`` [n, L'], unless the cross-encoder reads token ids
(``cross: ids`` in ``export.json``). ``cross.onnx`` scores k pairs: ``text_states`` (or
``input_ids``), ``text_mask``, ``image_states`` to ``scores`` [k].
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from bagformer_cli.errors import CheckpointError, listed
from bagformer_cli.files import write_text
from bagformer_cli.messages import tr
from bagformer_cli.opening import read_regular

MANIFEST = "export.json"
TEXT, IMAGE, CROSS = "text.onnx", "image.onnx", "cross.onnx"
FILES = (MANIFEST, TEXT, IMAGE, "config.yaml", "vocab.txt", "lexicon.txt")
VERSION = 1
_MOST_BYTES = 1 << 20

CrossInput = Literal["states", "ids"]


@dataclass(frozen=True)
class Manifest:
    """Facts about an exported model.

    Args:
        model: Fingerprint of the model; indexes that were built with the model name the same.
        dim: D.
        image_size: S, in pixels.
        precision: ``fp32``, ``fp16``, ``int8-dynamic`` or ``int8-static``.
        opset: Version of the ONNX operators.
        cross: Input of the cross-encoder for a title: ``states`` of the text tower, or token
            ``ids``. None: the model does not rerank.
        version: Version of this format.
    """

    model: str
    dim: int
    image_size: int
    precision: str = "fp32"
    opset: int = 18
    cross: CrossInput | None = None
    version: int = VERSION

    def save(self, folder: Path) -> None:
        """Write ``export.json``."""
        write_text(folder / MANIFEST, json.dumps(asdict(self), indent=2) + "\n")


def is_exported(folder: str | Path) -> bool:
    """Tell whether a folder was written by ``xmr export onnx``."""
    return (Path(folder) / MANIFEST).is_file()


Runtime = Literal["torch", "onnx"]
EXPORTED = "onnx"
"""Folder in a model folder where ``xmr export onnx`` writes, and where ``--runtime onnx`` looks."""


def runtime_folder(folder: Path, runtime: Runtime) -> Path:
    """Return the folder to load: the model folder, or its exported model.

    Args:
        folder: A model folder, or an exported model, which is returned unchanged.
        runtime: ``onnx``: the exported model is wanted.

    Raises:
        CheckpointError: The model has not been exported.
    """
    if runtime == "torch" or is_exported(folder):
        return folder
    if not is_exported(folder / EXPORTED):
        raise CheckpointError(
            tr("This model has not been exported to ONNX."),
            where=folder,
            expected=str(folder / EXPORTED),
            hint=tr("Export it: {command}", command=f"xmr export onnx {folder}"),
        )
    return folder / EXPORTED


def read_manifest(folder: Path) -> Manifest:
    """Read ``export.json`` and check that the other files are there.

    Raises:
        CheckpointError: The folder is not an exported model, or a file is missing or damaged.
    """
    if not is_exported(folder):
        raise CheckpointError(
            tr("There is no exported model here."),
            where=folder,
            expected=tr("a folder with {names}", names=listed(FILES[:3])),
            hint=tr("Write one with: xmr export onnx CHECKPOINT OUT/"),
        )
    _require_files(folder, FILES)
    try:
        values: Any = json.loads(read_regular(folder / MANIFEST, _MOST_BYTES))
        version = values["version"]
        if version != VERSION:
            raise CheckpointError(
                tr("Another version of xmr wrote this exported model."),
                where=folder,
                found=tr("format {version}", version=version),
                expected=tr("format {version}", version=VERSION),
                hint=tr("Export it again with this version, or update xmr."),
            )
        manifest = Manifest(**values)
        kinds = [type(value) for name, value in asdict(manifest).items() if name != "cross"]
        if kinds != [str, int, int, str, int, int] or manifest.cross not in (None, "states", "ids"):
            raise TypeError("a value of another type")
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise CheckpointError(
            tr("The file is damaged or incomplete."), where=folder / MANIFEST
        ) from error
    if manifest.cross is not None:
        _require_files(folder, (*FILES, CROSS))
    return manifest


def _require_files(folder: Path, names: Sequence[str]) -> None:
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise CheckpointError(
            tr("The exported model is incomplete."),
            where=folder,
            found=tr("missing: {names}", names=listed(missing)),
            expected=listed(names),
        )
