"""The encoder of a catalogue, made of the options of ``xmr encode`` and ``xmr index build``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from bagformer_cli.cli.views import warn_of_photos

if TYPE_CHECKING:
    from bagformer_cli.data.catalogue.catalogue import Catalogue
    from bagformer_cli.index.encode import EncodeOptions
    from bagformer_cli.index.rows import Layout
    from bagformer_cli.models.item_encoder import ItemEncoder
    from bagformer_cli.progress import Progress


@dataclass(frozen=True)
class CatalogueEncoder:
    """A loaded model and the options with which it encodes a catalogue.

    Attributes:
        checkpoint: The model folder.
        encoder: The loaded model.
        options: How products become vectors.
        layout: The columns of the encoded rows.
    """

    checkpoint: Path
    encoder: ItemEncoder
    options: EncodeOptions
    layout: Layout


def catalogue_encoder(
    catalogue: Catalogue,
    checkpoint: Path | None,
    device: str | None,
    runtime: Literal["torch", "onnx"] = "torch",
    *,
    keep: int | None,
    prune: float | None,
    pool: int | None,
    progress: Progress,
    folder: Path | None = None,
    **options: Any,
) -> CatalogueEncoder:
    """Load the model that a command's options name and prepare it for a catalogue.

    Args:
        catalogue: The products to encode. A codebook of residual codes is trained on them.
        checkpoint: Value of ``--checkpoint``.
        device: Value of ``--device``.
        runtime: Value of ``--runtime``.
        keep: Value of ``--keep``.
        prune: Value of ``--prune``.
        pool: Value of ``--pool``.
        progress: Receives the progress of training a codebook.
        folder: Output folder of an earlier run, whose codebook is used again.
        **options: Other fields of ``EncodeOptions``.
    """
    from bagformer_cli.datasets import is_drawn
    from bagformer_cli.index.compression.reduction import VectorReduction
    from bagformer_cli.index.encode import EncodeOptions, layout_of
    from bagformer_cli.index.trust import remember_model
    from bagformer_cli.models.load_encoder import load_encoder
    from bagformer_cli.models.runs import find_checkpoint
    from bagformer_cli.runtime.folder import runtime_folder

    path = find_checkpoint(checkpoint, progress=progress)
    if not is_drawn(catalogue.source):
        warn_of_photos(path, progress.warn)
    remember_model(path)
    encoder = load_encoder(runtime_folder(path, runtime), device)
    encoding = EncodeOptions(reduction=VectorReduction(keep, prune, pool), **options)
    if encoding.dtype == "residual4":
        from bagformer_cli.index.compression.codebook import with_codebook  # imports torch

        encoding = with_codebook(encoding, encoder, catalogue, folder=folder, progress=progress)
    layout = layout_of(encoder, encoding, catalogue.attributes, str(path.resolve()))
    return CatalogueEncoder(path, encoder, encoding, layout)
