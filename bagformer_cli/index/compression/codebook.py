"""Where the codebook of residual codes comes from: a sample, an earlier run, or an index."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import torch

from bagformer_cli.data.catalogue.parts import Product
from bagformer_cli.data.catalogue.sources import Catalogue
from bagformer_cli.errors import InputError
from bagformer_cli.index.encode import EncodeOptions, Skipped, encode_products, layout_of
from bagformer_cli.index.encoded import codebook_file, encoded_files, layout_of_file
from bagformer_cli.index.engines import open_engine
from bagformer_cli.index.rows import Layout, side_vectors
from bagformer_cli.messages import tr
from bagformer_cli.models.build import RetrievalModel
from bagformer_cli.progress import SILENT, Progress
from bagformer_cli.vectors.residual_codes import RESIDUAL, Codebook

PRODUCTS, PLACES = 2048, 32  # of a sample, and how many pieces of the catalogue they come from
VECTORS = 1 << 17  # of them


def with_codebook(
    options: EncodeOptions,
    model: RetrievalModel,
    catalogue: Catalogue,
    *,
    given: str | None = None,
    folder: Path | None = None,
    progress: Progress = SILENT,
) -> EncodeOptions:
    """The options with a codebook, where their type of vectors needs one.

    Args:
        options: How products become rows.
        model: Makes the vectors.
        catalogue: What the sample is taken from, where one is needed.
        given: An index or a folder of ``xmr encode`` whose codebook is to be used.
        folder: Where an earlier run of the same may have left one.
        progress: Where to report.

    Raises:
        InputError: What was given has no such codebook, or no product could be encoded.
    """
    if options.dtype not in RESIDUAL:
        return options
    if given is not None:
        layout, codebook = codebook_at(given)
        wanted = layout_of(model, options, {})
        if codebook is None or codebook.bits != RESIDUAL[options.dtype]:
            raise InputError(
                tr("There is no codebook for such codes."),
                where=given,
                found=layout.dtype,
                expected=options.dtype,
            )
        replace(wanted, codebook=layout.codebook).require_same(layout, given)
        return replace(options, codebook=codebook)
    if folder is not None:
        kept = _read(codebook_file(folder, layout_of(model, options, {})))
        if kept is not None:
            return replace(options, codebook=kept)
    return replace(options, codebook=train_codebook(model, catalogue, options, progress))


def train_codebook(
    model: RetrievalModel, catalogue: Catalogue, options: EncodeOptions, progress: Progress = SILENT
) -> Codebook:
    """A codebook for what ``model`` makes of a catalogue: of up to 2,048 products from all over it.

    Raises:
        InputError: No product of the sample could be encoded.
    """
    plain = replace(options, dtype="float32", thumbnail=0)
    layout = layout_of(model, plain, {})
    generator = torch.Generator().manual_seed(0)
    chosen: list[torch.Tensor] = []
    with progress.task(tr("Looking at a sample"), PRODUCTS, tr("products")) as task:
        for rows in encode_products(model, layout, _sample(catalogue), plain, Skipped()):
            for side in plain.sides:
                values = side_vectors(rows, side).values
                share = max(1, VECTORS * rows.num_rows // (len(plain.sides) * PRODUCTS))
                chosen.append(values[torch.randperm(len(values), generator=generator)[:share]])
            task.advance(rows.num_rows)
    vectors = torch.cat([torch.zeros(0, layout.dim), *chosen])
    return Codebook.train(vectors, RESIDUAL[options.dtype])


def codebook_at(place: str) -> tuple[Layout, Codebook | None]:
    """The layout and codebook of an index, or of a folder of ``xmr encode``.

    Raises:
        InputError: There is neither, or the codebook is missing or damaged.
    """
    files = encoded_files(Path(place)) if Path(place).is_dir() else []
    if not files:
        engine = open_engine(place)
        return engine.layout, engine.codebook
    layout = layout_of_file(files[0])
    if not layout.codebook:
        return layout, None
    file = codebook_file(Path(place), layout)
    codebook = _read(file)
    if codebook is None or codebook.digest != layout.codebook:
        raise InputError(
            tr("The codebook of these codes is missing or damaged."),
            where=file,
            hint=tr("Run the same xmr encode again."),
        )
    return layout, codebook


def _read(file: Path) -> Codebook | None:
    try:
        return Codebook.from_bytes(file.read_bytes())
    except (OSError, ValueError):
        return None


def _sample(catalogue: Catalogue) -> Iterator[Product]:
    """Products from places all over the catalogue; broken ones are somebody else's business."""
    pieces = catalogue.pieces[:: max(1, len(catalogue.pieces) // PLACES)][:PLACES]
    for piece in pieces:
        for product in islice(piece.products(), -(-PRODUCTS // max(1, len(pieces)))):
            if not isinstance(product, InputError):
                yield product
