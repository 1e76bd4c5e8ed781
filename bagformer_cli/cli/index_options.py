"""Options of ``xmr index``, and which of them vectors exclude that are already made."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bagformer_cli.cli.app import given_options
from bagformer_cli.errors import InputError, listed
from bagformer_cli.messages import tr

Source = Annotated[
    Path,
    typer.Argument(
        help=tr(
            "A folder of images; a CSV, TSV, JSONL or .xlsx file with id, image, title, price …; "
            "a MUGE dataset; or a folder written by xmr encode."
        )
    ),
]

Uri = Annotated[
    str,
    typer.Argument(help=tr("A folder, s3://bucket/path, or qdrant://host:6333/collection.")),
]

Features = Annotated[
    Path | None,
    typer.Option(
        help=tr(
            "File with the vectors of the products' images, made by any program (see `xmr eval "
            "--help`); ids as in the catalogue. Without a catalogue, give this file as "
            "CATALOGUE."
        ),
        show_default=False,
    ),
]


def is_encoded(catalogue: Path) -> bool:
    """Tell whether a source is a folder written by ``xmr encode``."""
    from bagformer_cli.index.encoded import encoded_files

    return catalogue.is_dir() and bool(encoded_files(catalogue))


def is_same_file(catalogue: Path, features: Path) -> bool:
    """Tell whether the catalogue is the file of vectors itself."""
    return catalogue.exists() and features.exists() and catalogue.samefile(features)


def refuse_encoding(ctx: typer.Context, catalogue: Path) -> None:
    """Raise if options are given that ``xmr encode`` has already decided."""
    hint = tr("Leave it out, or pass it to xmr encode.")
    refuse_options(ctx, catalogue, _ENCODING_OPTIONS, hint)


def refuse_options(ctx: typer.Context, source: Path, options: set[str], hint: str) -> None:
    """Raise if any of these options are given, for vectors that are already made."""
    decided = [name for name in given_options(ctx) if name in options]
    if decided:
        raise InputError(
            tr("These vectors are already made: the option has no effect."),
            where=source,
            found=listed(decided),
            hint=hint,
        )


MODEL_OPTIONS = {
    "--checkpoint", "--one", "--keep", "--prune", "--pool", "--thumbnail", "--batch-size",
    "--device", "--trust",
}  # fmt: skip

_ENCODING_OPTIONS = {
    "--checkpoint", "--split", "--root", "--encoding", "--number", "--dtype", "--one", "--keep",
    "--prune", "--pool", "--thumbnail", "--batch-size", "--device", "--strict",
}  # fmt: skip
