"""Index vectors that another program made, and search them by such vectors.

The index stores no model: its layout names :data:`~bagformer_cli.index.rows.FEATURES`. So nothing
can be encoded for it, and queries come from a file of vectors too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from bagformer_cli.data.catalogue.catalogue import Catalogue
from bagformer_cli.data.catalogue.products import Product
from bagformer_cli.data.left_out import LeftOut
from bagformer_cli.errors import DataError, InputError
from bagformer_cli.index.build import Added, unique_products
from bagformer_cli.index.compression.codebook import SAMPLE_VECTORS
from bagformer_cli.index.engine import Engine
from bagformer_cli.index.row_columns import SideRows, to_rows
from bagformer_cli.index.rows import FEATURES, Layout, VectorType
from bagformer_cli.messages import tr
from bagformer_cli.progress import SILENT, Progress
from bagformer_cli.text.bags import TitleEncoder
from bagformer_cli.vectors.arrays import EncodedArrays, Vectors
from bagformer_cli.vectors.residual_codes import Codebook
from bagformer_cli.vectors.stored_arrays import RESIDUAL4
from bagformer_cli.vectors.vector_files import VectorItems

ROWS = 2048
"""Rows written at a time."""


def features_layout(
    items: VectorItems, dtype: VectorType, catalogue: Catalogue | None
) -> tuple[Layout, Codebook | None]:
    """Return the layout of an index of vectors, and the codebook of residual codes.

    Args:
        items: The vectors; a codebook is trained on a sample of them.
        dtype: The type of the stored vectors.
        catalogue: The products, for their attributes; None: they have none.
    """
    codebook = None
    if dtype == RESIDUAL4:
        values = items.vectors.values
        order = torch.randperm(len(values), generator=torch.Generator().manual_seed(0))
        codebook = Codebook.train(values[order[:SAMPLE_VECTORS]])
    layout = Layout(
        FEATURES,
        items.vectors.dim,
        dtype,
        "mean",
        ("image",),
        attributes={} if catalogue is None else catalogue.attributes,
        codebook="" if codebook is None else codebook.digest,
    )
    return layout, codebook


def add_features(
    engine: Engine,
    items: VectorItems,
    catalogue: Catalogue | None,
    *,
    strict: bool = False,
    progress: Progress = SILENT,
) -> Added:
    """Add vectors to an index; each belongs to the product of the same id.

    A product without a vector is left out, and so is a vector without a product.

    Args:
        engine: The index; its layout is of :func:`features_layout`.
        items: The vectors of the products' images.
        catalogue: The products; None: a product has its id and nothing else.
        strict: Raise at the first product that is left out.
        progress: Where to report.

    Raises:
        InputError: The vectors have another dimension than those of the index.
        DataError: ``strict``, and a product is left out; or two ids are equal as texts.
    """
    _require_dimension(items, engine, tr("The vectors have another dimension than the index."))
    left_out = LeftOut(progress, strict=strict)
    added = Added(skipped=left_out.errors)
    if catalogue is not None:
        added.unknown = sorted(set(catalogue.attributes) - set(engine.layout.attributes))
    position = _positions(items)
    products: Iterable[Product | InputError]
    if catalogue is None:
        products = (Product(items.places(at), name) for name, at in position.items())
    else:
        products = unique_products(catalogue)
        catalogue.remarks.report(progress, images=False)
    warn_of_lengths(items, progress)
    source = str(items.path.resolve())
    found = _with_vectors(products, position, left_out)
    with (
        engine.filling(source),
        progress.task(
            tr("Adding {source}", source=items.path), len(items.ids), tr("{n} products", n="{n}")
        ) as task,
    ):
        for part in iter(lambda: list(islice(found, ROWS)), []):
            rows = np.array([at for _, at in part], np.int64)
            added.replaced += _upsert(engine, items, [product for product, _ in part], rows)
            added.rows += len(part)
            task.advance(len(part))
    left_out.finish()
    missed = [error.product for error in left_out.errors if error.product is not None]
    stored = engine.stored(list(dict.fromkeys(missed)))
    added.unchanged = [name for name in dict.fromkeys(missed) if name in stored]
    unused = len(items.ids) - added.rows
    if unused:
        progress.warn(tr("{n} vectors belong to no product of the catalogue.", n=unused))
    return added


def require_features_index(engine: Engine) -> None:
    """Check that another program made the vectors of an index.

    Raises:
        InputError: A model of xmr made them.
    """
    if engine.layout.model != FEATURES:
        raise InputError(
            tr("A model of xmr made the vectors of this index; others cannot be added to it."),
            where=engine.uri,
            found=tr("model {name}", name=engine.layout.checkpoint or engine.layout.model),
            hint=tr("Leave out --features, or build an index of these vectors."),
        )


def _require_dimension(items: VectorItems, engine: Engine, message: str) -> None:
    if items.vectors.dim != engine.layout.dim:
        raise InputError(
            message, where=items.path, found=items.vectors.dim, expected=engine.layout.dim
        )


def warn_of_lengths(items: VectorItems, progress: Progress) -> None:
    """Say how many vectors of a file were scaled: a model of dot products is ranked otherwise."""
    if items.scaled:
        progress.warn(
            tr(
                "{n} of {total} vectors had another length than 1 and were scaled to it: an index "
                "compares cosines.",
                n=f"{items.scaled:,}",
                total=f"{len(items.vectors.values):,}",
            )
        )


def _positions(items: VectorItems) -> dict[str, int]:
    position: dict[str, int] = {}
    for at, identity in enumerate(items.ids):
        if position.setdefault(str(identity), at) != at:
            raise DataError(
                tr("The id {id} occurs twice.", id=identity),
                where=items.places(at),
                found=tr("first in {place}", place=items.places(position[str(identity)])),
            )
    return position


def _with_vectors(
    products: Iterable[Product | InputError], position: dict[str, int], left_out: LeftOut
) -> Iterator[tuple[Product, int]]:
    for product in products:
        if isinstance(product, InputError):
            left_out(product)
        elif product.id not in position:
            error = InputError(tr("No vector has the id of this product."), where=product.place)
            error.product = product.id
            left_out(error)
        else:
            yield product, position[product.id]


def _upsert(
    engine: Engine, items: VectorItems, products: Sequence[Product], rows: NDArray[np.int64]
) -> int:
    vectors = _selected(items, rows)
    side = SideRows(np.ones(len(rows), np.bool_), vectors, vectors.mean())
    none = [None] * len(rows)
    return engine.upsert(to_rows(engine.layout, products, none, {"image": side}, engine.codebook))


def _selected(items: VectorItems, rows: NDArray[np.int64]) -> Vectors:
    return items.vectors.select(torch.from_numpy(rows)).arrays()


class StoredQueries:
    """Queries whose vectors come from a file, as the encoder of an index: a "title" is an id.

    Args:
        items: The vectors.
        engine: The index that is searched.

    Raises:
        InputError: The vectors have another dimension than those of the index.
    """

    as_original = False
    image_size = 0
    beta = 1.0
    merge: Literal["sum", "mean"] = "sum"
    single_vector: Literal["cls", "mean"] = "mean"

    def __init__(self, items: VectorItems, engine: Engine) -> None:
        message = tr("The queries' vectors have another dimension than those of the index.")
        _require_dimension(items, engine, message)
        self.fingerprint = engine.layout.model
        self.scoring = engine.layout.scoring
        self.dim = engine.layout.dim
        self.names = list(_positions(items))
        self._items = items
        self._position = _positions(items)

    @property
    def titles(self) -> TitleEncoder:
        """Raise an error: nothing is cut into tokens here.

        Raises:
            InputError: Always.
        """
        raise InputError(
            tr("Queries that are vectors have no words."),
            hint=tr("Leave out --without and --fusion."),
        )

    def encode_titles(self, titles: Sequence[str]) -> EncodedArrays:
        """Return the vectors of these ids."""
        rows = np.array([self._position[name] for name in titles], np.int64)
        vectors = _selected(self._items, rows)
        return EncodedArrays(vectors, vectors.mean())

    def encode_pixels(self, pixels: NDArray[np.uint8]) -> EncodedArrays:
        """Raise an error: no image is encoded here."""
        raise NotImplementedError

    def require_reranking(self) -> None:
        """Raise an error: vectors have no cross-encoder."""
        raise NotImplementedError

    def score_pairs(self, titles: Sequence[str], pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Raise an error: vectors have no cross-encoder."""
        raise NotImplementedError


def read_queries(path: Path, engine: Engine) -> StoredQueries:
    """Read a file of query vectors for a search of an index.

    Raises:
        InputError: The file cannot be read, or its vectors do not fit the index.
    """
    from bagformer_cli.vectors.vector_files import read_vector_file

    return StoredQueries(read_vector_file(path, "text"), engine)
