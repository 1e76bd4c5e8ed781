"""Train the codebook of residual codes on a sample of a catalogue, or read a stored one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import torch

from bagformer_cli.data.catalogue.catalogue import Catalogue
from bagformer_cli.data.catalogue.products import Product
from bagformer_cli.data.left_out import LeftOut
from bagformer_cli.errors import InputError
from bagformer_cli.index.encode import EncodeOptions, encode_products, layout_of
from bagformer_cli.index.encoded import codebook_file, encoded_files, layout_of_file
from bagformer_cli.index.row_vectors import side_vectors
from bagformer_cli.index.rows import Layout
from bagformer_cli.messages import tr
from bagformer_cli.models.item_encoder import AnyEncoder
from bagformer_cli.progress import SILENT, Progress
from bagformer_cli.vectors.residual_codes import Codebook
from bagformer_cli.vectors.stored_arrays import RESIDUAL4

SAMPLE_PRODUCTS, SAMPLE_PARTS = 2048, 32  # products of the sample, and parts they come from
SAMPLE_VECTORS = 1 << 17


def with_codebook(
    options: EncodeOptions,
    model: AnyEncoder,
    catalogue: Catalogue,
    *,
    folder: Path | None = None,
    progress: Progress = SILENT,
) -> EncodeOptions:
    """Add a codebook to the options if their vector type needs one.

    Args:
        options: How products become rows.
        model: The model that encodes them.
        catalogue: Where a sample is drawn from if a codebook must be trained.
        folder: The output folder of ``xmr encode``. If an earlier run left a codebook there, it is
            used again, so that files written before and after fit together.
        progress: Where to report.

    Raises:
        InputError: No product of the sample could be encoded.
    """
    if options.dtype != RESIDUAL4:
        return options
    if folder is not None:
        kept = _read(codebook_file(folder, layout_of(model, options, {})))
        if kept is not None:
            return replace(options, codebook=kept)
    return replace(options, codebook=train_codebook(model, catalogue, options, progress))


def train_codebook(
    model: AnyEncoder, catalogue: Catalogue, options: EncodeOptions, progress: Progress = SILENT
) -> Codebook:
    """Encode up to 2,048 products from all parts of a catalogue and train a codebook on them.

    Raises:
        InputError: No product of the sample could be encoded.
    """
    plain = replace(options, dtype="float32", thumbnail=0)
    layout = layout_of(model, plain, {})
    generator = torch.Generator().manual_seed(0)
    sample: list[torch.Tensor] = []
    with progress.task(
        tr("Encoding a sample"), SAMPLE_PRODUCTS, tr("{n} products", n="{n}")
    ) as task:
        for rows in encode_products(model, layout, _sample(catalogue), plain, LeftOut()):
            for side in plain.sides:
                values = side_vectors(rows, side).values
                share = SAMPLE_VECTORS * rows.num_rows // (len(plain.sides) * SAMPLE_PRODUCTS)
                order = torch.randperm(len(values), generator=generator)
                sample.append(values[order[: max(1, share)]])
            task.advance(rows.num_rows)
    return Codebook.train(torch.cat([torch.zeros(0, layout.dim), *sample]))


def layout_and_codebook(folder: Path) -> tuple[Layout, Codebook | None]:
    """Read the layout and the codebook of a folder of ``xmr encode``.

    Raises:
        InputError: The folder holds no encoded files, or the codebook is missing or damaged.
    """
    layout = layout_of_file(encoded_files(folder)[0])
    if not layout.codebook:
        return layout, None
    file = codebook_file(folder, layout)
    codebook = _read(file)
    if codebook is None or codebook.digest != layout.codebook:
        raise InputError(
            tr("The codebook of these residual codes is missing or damaged."),
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
    """Yield products from parts spread over the catalogue; broken products are left out."""
    parts = catalogue.parts[:: max(1, len(catalogue.parts) // SAMPLE_PARTS)][:SAMPLE_PARTS]
    for part in parts:
        for product in islice(part.products(), -(-SAMPLE_PRODUCTS // max(1, len(parts)))):
            if not isinstance(product, InputError):
                yield product
