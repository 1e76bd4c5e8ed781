"""Open the source of vectors that a value of ``--model``, or of ``xmr compare``, names.

::

    hf:NAME st:NAME open_clip:NAME   a model of another library; see adapters/names.py
    FOLDER with texts.* and images.* files of vectors, as xmr export vectors writes them
    FOLDER                           a model folder or run folder, or a model of another library
"""

from __future__ import annotations

from pathlib import Path

from bagformer_cli.adapters.names import library_of, open_other
from bagformer_cli.evaluation.sources import AdaptedModel, OwnModel, VectorSource
from bagformer_cli.evaluation.stored_vectors import StoredVectors
from bagformer_cli.machine import choose_device
from bagformer_cli.models.checkpoint import check_model_folder, load_model
from bagformer_cli.models.runs import find_checkpoint
from bagformer_cli.vectors.vector_readers import READERS


def own_folder(spec: str) -> Path | None:
    """Return the model folder that a value names; None: it names something else.

    Raises:
        CheckpointError: The folder is incomplete, or holds nothing that is known.
        InputError: The value names nothing.
    """
    if stored_pair(Path(spec)) is not None or library_of(spec) is not None:
        return None
    folder = find_checkpoint(spec)
    check_model_folder(folder)
    return folder


def stored_pair(folder: Path) -> tuple[Path, Path] | None:
    """Return a folder's files ``texts.*`` and ``images.*`` of vectors; None: it lacks one."""
    for suffix in READERS:
        pair = folder / f"texts{suffix}", folder / f"images{suffix}"
        if all(path.exists() for path in pair):
            return pair
    return None


def open_source(spec: str, device: str | None = None) -> VectorSource:
    """Open what a value names.

    Args:
        spec: The value; the module lists its forms.
        device: Where a model runs; None: a GPU if there is one.

    Raises:
        InputError: It names nothing, or a file of vectors is wrong.
        CheckpointError: The model cannot be loaded.
    """
    pair = stored_pair(Path(spec))
    if pair is not None:
        return StoredVectors(*pair)
    folder = own_folder(spec)
    if folder is not None:
        return OwnModel(load_model(folder, choose_device(device)), str(folder))
    library = library_of(spec)
    assert library is not None  # else it would be a folder of this project
    return AdaptedModel(open_other(*library, choose_device(device)))
