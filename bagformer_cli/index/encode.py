"""Encode products into rows: read and decode images ahead, run the model, batch by batch.

Images are decoded by threads while the model works on the batch before::

    products ─▶ threads: file → pixels [H, W, 3] uint8, thumbnail ─▶ model ─▶ rows (rows.py)
         └────▶ an unreadable product goes to ``LeftOut`` instead

Shapes: n items, N vectors in all, D dimensions, H × W pixels.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image

from bagformer_cli.data.catalogue.products import Product
from bagformer_cli.data.colour import is_shown_as_stored
from bagformer_cli.data.image_files import ANYWHERE, image_error
from bagformer_cli.data.images import decode, open_image, resize
from bagformer_cli.data.left_out import LeftOut
from bagformer_cli.data.prefetch import prefetch
from bagformer_cli.errors import InputError
from bagformer_cli.index.compression.reduction import VectorReduction
from bagformer_cli.index.row_columns import SideRows, to_rows
from bagformer_cli.index.rows import SIDES, Layout, Side, SingleVector, VectorType
from bagformer_cli.index.terms import title_terms
from bagformer_cli.messages import tr
from bagformer_cli.models.item_encoder import AnyEncoder, ItemEncoder, encoder_of
from bagformer_cli.vectors.arrays import EncodedArrays, Vectors

if TYPE_CHECKING:
    from bagformer_cli.vectors.residual_codes import Codebook

MAX_OWN_THUMBNAIL = 24 << 10  # bytes; an image file up to this size is its own thumbnail


@dataclass(frozen=True)
class EncodeOptions:
    """Options for encoding products into rows.

    Args:
        dtype: The type of the stored multi-vector embeddings.
        single_vector: The single vector of an item: the class token's, or the mean. None: the class
            token's if it was trained.
        sides: Which sides to encode.
        reduction: How images get fewer vectors.
        thumbnail: The longer side of the thumbnails in pixels; 0: no thumbnails.
        batch_size: Products per forward pass. Larger values use more memory.
        workers: Threads that read and decode images ahead.
        codebook: The codebook of residual codes; required if ``dtype`` is ``residual4``.
        strict: Raise at the first unreadable product instead of leaving it out.
    """

    dtype: VectorType = "int8"
    single_vector: SingleVector | None = None
    sides: tuple[Side, ...] = SIDES
    reduction: VectorReduction = field(default_factory=VectorReduction)
    thumbnail: int = 256
    batch_size: int = 64
    workers: int = 2
    codebook: Codebook | None = None
    strict: bool = False

    @classmethod
    def of_layout(cls, layout: Layout, codebook: Codebook | None) -> EncodeOptions:
        """Return the options that make rows of an existing layout."""
        return cls(
            layout.dtype,
            layout.single_vector,
            layout.sides,
            VectorReduction.from_json(layout.reduction),
            codebook=codebook,
        )


def layout_of(
    model: AnyEncoder, options: EncodeOptions, attributes: dict[str, str], checkpoint: str = ""
) -> Layout:
    """Return the layout of the rows that a model makes with these options.

    Args:
        model: The model.
        options: How products become rows.
        attributes: Name and type of each attribute of the catalogue.
        checkpoint: The model's folder.
    """
    encoder = encoder_of(model)
    return Layout(
        encoder.fingerprint,
        encoder.dim,
        options.dtype,
        options.single_vector or encoder.single_vector,
        options.sides,
        options.reduction.to_json(),
        attributes,
        checkpoint,
        "" if options.codebook is None else options.codebook.digest,
        terms=True,
        pooling=encoder.scoring.pooling,
        means=encoder.scoring.means,
    )


@dataclass
class _Read:
    """A product with its decoded image: pixels [H, W, 3] uint8, both None without an image."""

    product: Product
    pixels: NDArray[np.uint8] | None
    thumbnail: bytes | None


def encode_products(
    model: AnyEncoder,
    layout: Layout,
    products: Iterable[Product | InputError],
    options: EncodeOptions,
    left_out: LeftOut,
) -> Iterator[pa.RecordBatch]:
    """Encode products into rows, one batch at a time.

    Args:
        model: The model.
        layout: The layout of the rows; of the same model.
        products: The products. Errors among them are left out.
        options: How products become rows.
        left_out: Receives these errors, and products whose image cannot be read.
    """
    encoder = encoder_of(model)
    size, as_original = encoder.image_size, encoder.as_original
    read = partial(_read_all, size=size, as_original=as_original, options=options)
    source = iter(products)
    chunks = iter(lambda: list(islice(source, options.batch_size)), [])
    for results in prefetch(read, chunks, options.workers):
        readable: list[_Read] = []
        for result in results:
            if isinstance(result, InputError):
                left_out(result)
            else:
                readable.append(result)
        if readable:
            yield _encode_batch(encoder, layout, readable, options)


def _read_all(
    products: list[Product | InputError], *, size: int, as_original: bool, options: EncodeOptions
) -> list[_Read | InputError]:
    wanted = [
        product.image
        for product in products
        if isinstance(product, Product) and _wants_file(product, options)
    ]
    access = next((one.access for one in products if isinstance(one, Product)), ANYWHERE)
    contents = access.read_all(image for image in wanted if image is not None)
    results: list[_Read | InputError] = []
    for product in products:
        if isinstance(product, InputError):
            results.append(product)
            continue
        data = next(contents) if _wants_file(product, options) else product.data
        if "image" not in options.sides:
            data = None
        results.append(_read(product, data, size, as_original, options))
    return results


def _wants_file(product: Product, options: EncodeOptions) -> bool:
    """Say whether the image of a product must be read from a file or an address."""
    return "image" in options.sides and product.image is not None and product.data is None


def _read(
    product: Product,
    data: bytes | InputError | None,
    size: int,
    as_original: bool,
    options: EncodeOptions,
) -> _Read | InputError:
    if data is None:
        if product.title is None or "title" not in options.sides:
            return InputError(
                tr("This product has neither an image nor a title to encode."), where=product.place
            )
        return _Read(replace(product, data=None), None, None)
    if isinstance(data, InputError):
        return _unusable(product, data)
    try:
        image = decode(data, where=product.image, as_original=as_original)
        thumbnail = make_thumbnail(data, image, options.thumbnail)
    except InputError as error:
        return _unusable(product, error)
    return _Read(replace(product, data=None), resize(image, size), thumbnail)


def _unusable(product: Product, error: InputError) -> InputError:
    """Name the product in an error of its image; a row of a table also names the image."""
    if product.image == product.where:
        error.where = product.place
    else:
        error = image_error(product.place, error)
    error.product = product.id
    return error


def make_thumbnail(data: bytes, image: Image.Image, side: int) -> bytes | None:
    """Make a small JPEG; a file that is small enough and has plain RGB pixels is returned as it is.

    Args:
        data: The content of the image file.
        image: The decoded image.
        side: The longer side in pixels; 0: None is returned.
    """
    if not side:
        return None
    small = max(image.size) <= side and len(data) <= MAX_OWN_THUMBNAIL
    if small:
        stored = open_image(data)
        if stored.format in {"JPEG", "PNG", "WEBP"} and is_shown_as_stored(stored):
            return data
    thumbnail = image.copy()
    thumbnail.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=2.0)
    stream = io.BytesIO()
    thumbnail.save(stream, "JPEG", quality=88)
    return stream.getvalue()


def _encode_batch(
    encoder: ItemEncoder, layout: Layout, items: list[_Read], options: EncodeOptions
) -> pa.RecordBatch:
    sides: dict[Side, SideRows] = {}
    pixels = [item.pixels for item in items if item.pixels is not None]
    if pixels:
        present = np.array([item.pixels is not None for item in items])
        encoded = encoder.encode_pixels(np.stack(pixels))
        sides["image"] = _side_rows(encoded, present, layout.single_vector, options.reduction)
    titles = [item.product.title if "title" in options.sides else None for item in items]
    texts = [title for title in titles if title is not None]
    if texts:
        present = np.array([title is not None for title in titles])
        encoded = encoder.encode_titles(texts)
        sides["title"] = _side_rows(encoded, present, layout.single_vector, VectorReduction())
    products, thumbnails = [item.product for item in items], [item.thumbnail for item in items]
    terms = None
    if layout.terms:
        terms = title_terms(encoder.titles.segmenter, [product.title for product in products])
    return to_rows(layout, products, thumbnails, sides, options.codebook, terms)


def _side_rows(
    encoded: EncodedArrays,
    present: NDArray[np.bool_],
    single_vector: SingleVector,
    reduction: VectorReduction,
) -> SideRows:
    return SideRows(present, _reduced(encoded.vectors, reduction), encoded.single(single_vector))


def _reduced(vectors: Vectors, reduction: VectorReduction) -> Vectors:
    """Keep fewer vectors of each item; torch is imported only if there is something to do."""
    if not reduction.to_json():
        return vectors
    from bagformer_cli.vectors.multi_vectors import MultiVectors

    return reduction(MultiVectors.from_arrays(vectors)).arrays()
