"""Find the model that searches an index: the given folder, or the one the index was built with."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from bagformer_cli.errors import InputError
from bagformer_cli.index.engine import Engine
from bagformer_cli.index.trust import is_own_model, remember_model
from bagformer_cli.messages import tr
from bagformer_cli.models.item_encoder import AnyEncoder, ModelEncoder, encoder_of
from bagformer_cli.models.runs import find_checkpoint
from bagformer_cli.progress import SILENT, Progress

if TYPE_CHECKING:
    import torch


def model_folder(
    engine: Engine,
    checkpoint: str | Path | None,
    trust: bool = False,
    progress: Progress = SILENT,
) -> Path:
    """Return the model folder for searching: the given one, or the one the index was built with.

    Args:
        engine: The index.
        checkpoint: The given folder.
        trust: Accept any folder that the index names.
        progress: Receives the name of the newest run, which is used if the index names no model.

    Raises:
        InputError: None was given and the index's model has been moved or deleted, or is not among
            the folders of the user.
    """
    if checkpoint is not None:
        folder = find_checkpoint(checkpoint)
        remember_model(folder)
        return folder
    known = engine.layout.checkpoint
    if known and Path(known).is_dir():
        if not trust and not is_own_model(Path(known), engine.uri):
            raise InputError(
                tr("The index names a model that you have not used before."),
                where=known,
                hint=tr(
                    "If you trust the origin of the index, add --trust; or name a model with "
                    "--checkpoint."
                ),
            )
        return Path(known)
    if not known:
        return find_checkpoint(None, progress=progress)
    raise InputError(
        tr("The model that the index was built with is no longer there."),
        where=known,
        hint=tr("Pass its folder with --checkpoint."),
    )


def gpu_of(model: AnyEncoder) -> torch.device | None:
    """Return the GPU of a model; None if it computes elsewhere."""
    encoder = encoder_of(model)
    if not isinstance(encoder, ModelEncoder) or encoder.model.device.type != "cuda":
        return None
    return encoder.model.device
