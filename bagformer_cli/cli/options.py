"""Options and first steps that several commands share, written once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from bagformer_cli.messages import tr

if TYPE_CHECKING:
    from bagformer_cli.data.catalogue.catalogue import Catalogue
    from bagformer_cli.index.encode import EncodeOptions
    from bagformer_cli.index.rows import Layout
    from bagformer_cli.models.build import RetrievalModel
    from bagformer_cli.progress import Progress

Checkpoint = Annotated[
    Path | None,
    typer.Option(help=tr("A model folder or run folder. Default: the newest run under runs/.")),
]
SplitName = Annotated[
    str | None,
    typer.Option(help=tr("Of a dataset in MUGE form. Default: valid.")),
]
Root = Annotated[
    Path | None,
    typer.Option(help=tr("What relative image paths start from. Default: the table's folder.")),
]
Encoding = Annotated[str, typer.Option(help=tr("Of a table; Excel in China writes gb18030."))]
VectorDtype = Annotated[
    Literal["int8", "float16", "float32", "residual4"],
    typer.Option(
        help=tr(
            "Type of the stored vectors. residual4: 4 bits per dimension, the smallest and slowest."
        )
    ),
]
OneVector = Annotated[
    Literal["cls", "mean"],
    typer.Option(help=tr("Which single vector stands for an item in one-vector search.")),
]
Keep = Annotated[
    int | None,
    typer.Option(min=1, help=tr("Keep the first so many vectors of an image."), show_default=False),
]
Prune = Annotated[
    float | None,
    typer.Option(
        min=0.0,
        max=1.0,
        help=tr("Keep this share of an image's vectors: those most like its class token."),
        show_default=False,
    ),
]
Pool = Annotated[
    int | None,
    typer.Option(
        min=1,
        help=tr("Cluster an image's vectors; so many become one."),
        show_default=False,
    ),
]
Thumbnail = Annotated[
    int, typer.Option(min=0, help=tr("Longer side of the thumbnails that are kept; 0: none."))
]
Strict = Annotated[
    bool,
    typer.Option(
        "--strict", help=tr("Stop at the first broken product instead of leaving it out.")
    ),
]
Batch = Annotated[int, typer.Option(min=1, help=tr("Products that go through the model at once."))]
Device = Annotated[
    str | None,
    typer.Option(help=tr("cpu, cuda … Default: a GPU if there is one."), show_default=False),
]
RunBy = Annotated[
    Literal["local", "ray"],
    typer.Option(help=tr("What runs the work: processes on this machine, or Ray.")),
]
RayAddress = Annotated[
    str | None,
    typer.Option(
        help=tr("Of a running Ray cluster. Default: one on this machine."), show_default=False
    ),
]


@dataclass(frozen=True)
class Encoder:
    """A model, and how it turns the products of a catalogue into rows."""

    checkpoint: Path
    model: RetrievalModel
    options: EncodeOptions
    layout: Layout


def encoder_for(
    catalogue: Catalogue,
    checkpoint: Path | None,
    device: str | None,
    *,
    keep: int | None,
    prune: float | None,
    pool: int | None,
    progress: Progress,
    folder: Path | None = None,
    **options: Any,
) -> Encoder:
    """The encoder that the options of a command mean.

    Args:
        catalogue: What it will encode.
        checkpoint: As given.
        device: As given.
        keep: See ``Fewer``.
        prune: See ``Fewer``.
        pool: See ``Fewer``.
        progress: Where to report.
        folder: Where an earlier run may have left a codebook.
        **options: Of ``EncodeOptions``.
    """
    from bagformer_cli.api import load
    from bagformer_cli.index.compression.codebook import with_codebook
    from bagformer_cli.index.compression.reduction import Fewer
    from bagformer_cli.index.encode import EncodeOptions, layout_of
    from bagformer_cli.models.checkpoint import find_checkpoint

    place = find_checkpoint(checkpoint)
    model = load(place, device).model
    how = EncodeOptions(fewer=Fewer(keep, prune, pool), **options)
    how = with_codebook(how, model, catalogue, folder=folder, progress=progress)
    layout = layout_of(model, how, catalogue.attributes, str(place.resolve()))
    return Encoder(place, model, how, layout)
