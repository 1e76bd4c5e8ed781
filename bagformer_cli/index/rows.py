"""Products as Arrow rows: what ``xmr encode`` writes and every index engine takes.

A row holds what is shown (id, title, image, thumbnail, attributes) and, for each side it has, one
vector (``image_vector``), the list that the late interaction scores (``image_vectors``) and its
length (``image_count``). Arrow's ``list<fixed_size_list<D>>`` *is* a packed ``MultiVectors``: the
values one after another, and offsets.

Shapes: n rows, N vectors in all, D dimensions.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray
from torch import Tensor

from bagformer_cli.data.catalogue.products import Product
from bagformer_cli.errors import DataError, InputError
from bagformer_cli.messages import tr
from bagformer_cli.vectors.multi_vectors import MultiVectors
from bagformer_cli.vectors.residual_codes import RESIDUAL4, Codebook, code_width

Side = Literal["image", "title"]
SIDES: tuple[Side, ...] = ("image", "title")
VectorType = Literal["int8", "float16", "float32", "residual4"]
One = Literal["cls", "mean"]

VERSION = 1
KEY = b"xmr"
TEXT = ("id", "title", "image")

_VALUES = {
    "int8": pa.int8(),
    "float16": pa.float16(),
    "float32": pa.float32(),
    RESIDUAL4: pa.uint8(),
}
_TORCH = {"int8": torch.int8, "float16": torch.float16, "float32": torch.float32}
_ATTRIBUTES = {"bool": pa.bool_(), "int": pa.int64(), "float": pa.float64(), "str": pa.string()}


@dataclass(frozen=True)
class Layout:
    """What the rows of an index or of encoded files are; two of the same layout go together.

    Args:
        model: The fingerprint of the model that made the vectors.
        dim: D.
        dtype: Of the stored lists of vectors.
        one: Which single vector stands for an item: the class token's, or the mean.
        sides: Which sides may be there.
        fewer: How lists were made shorter (``{"pool": 4}``), for the record.
        attributes: Name to ``bool``, ``int``, ``float`` or ``str``.
        checkpoint: Where the model was when the first row was made, to find it again.
        codebook: The digest of what residual codes mean; empty for other types.
        version: Of this form.
    """

    model: str
    dim: int
    dtype: VectorType = "int8"
    one: One = "cls"
    sides: tuple[Side, ...] = SIDES
    fewer: dict[str, float] = field(default_factory=dict)
    attributes: dict[str, str] = field(default_factory=dict)
    checkpoint: str = ""
    codebook: str = ""
    version: int = VERSION

    @property
    def schema(self) -> pa.Schema:
        """Of the rows, with the layout itself in its metadata."""
        fields = [pa.field(name, pa.string()) for name in TEXT]
        fields.append(pa.field("thumbnail", pa.binary()))
        fields += [pa.field(name, _ATTRIBUTES[kind]) for name, kind in self.attributes.items()]
        for side in self.sides:
            fields.append(pa.field(f"{side}_vector", pa.list_(pa.float16(), self.dim)))
            fields.append(pa.field(f"{side}_vectors", self.list_type))
            fields.append(pa.field(f"{side}_count", pa.int32()))
            if self.dtype == "int8":
                fields.append(pa.field(f"{side}_scale", pa.float32()))
        return pa.schema(fields, {KEY: json.dumps(asdict(self), ensure_ascii=False)})

    @property
    def list_type(self) -> pa.DataType:
        """The type of a column of lists of vectors."""
        width = code_width(self.dim) if self.dtype == RESIDUAL4 else self.dim
        return pa.list_(pa.list_(_VALUES[self.dtype], width))

    def stored(self, vectors: MultiVectors, codebook: Codebook | None = None) -> MultiVectors:
        """Lists in the type that rows hold, on the CPU; codes by the layout's codebook."""
        if self.dtype != RESIDUAL4:
            return vectors.to("cpu", _TORCH[self.dtype])
        return vectors.code(self.codebook_of(codebook))

    def codebook_of(self, codebook: Codebook | None) -> Codebook:
        """The codebook, if it is the one that the layout names.

        Raises:
            InputError: It is another, or there is none.
        """
        if codebook is None or codebook.digest != self.codebook:
            raise InputError(
                tr("The codes were made with another codebook: they would mean nothing."),
                found=None if codebook is None else codebook.digest,
                expected=self.codebook,
            )
        return codebook

    @classmethod
    def of(cls, schema: pa.Schema) -> Self | None:
        """The layout in a schema's metadata, or None."""
        raw = (schema.metadata or {}).get(KEY)
        if raw is None:
            return None
        try:
            values = json.loads(raw)
            layout = cls(**{**values, "sides": tuple(values["sides"])})
            known = layout.dtype in _VALUES
        except (ValueError, TypeError, KeyError):
            return None
        if not known:  # residual2, for example, which earlier versions wrote
            raise InputError(
                tr("This version of xmr cannot read vectors of this type."),
                found=layout.dtype,
                expected=", ".join(_VALUES),
                hint=tr("Encode the catalogue again with another --dtype."),
            )
        return layout

    def require_side(self, side: Side, where: str) -> None:
        """Make sure that there is such a side.

        Raises:
            InputError: There is none.
        """
        if side not in self.sides:
            raise InputError(
                tr("The index holds no {side}s.", side=side),
                where=where,
                expected=", ".join(self.sides),
            )

    def require_same(self, other: Layout, where: str) -> None:
        """Make sure that rows of ``other`` fit into an index of this layout.

        Raises:
            InputError: Another model, dimension, type or kind of vectors made them.
        """
        if other.model != self.model:
            raise wrong_model(self, other.model, where)
        for name, said in (
            ("dim", tr("dimension")),
            ("dtype", tr("type of the vectors")),
            ("one", tr("single vector")),
            ("fewer", tr("fewer vectors")),
            ("codebook", tr("codebook")),
        ):
            own, theirs = getattr(self, name), getattr(other, name)
            if own != theirs:
                raise InputError(
                    tr("These vectors do not fit the index."),
                    where=where,
                    found=f"{said}: {theirs or '-'}",
                    expected=f"{said}: {own or '-'}",
                    hint=tr("Add the catalogue itself: xmr index add CATALOGUE INDEX")
                    if name == "codebook"
                    else tr("Encode them with the options the index was built with."),
                )


def wrong_model(layout: Layout, found: str, where: str) -> InputError:
    """The error for vectors or a query of another model than the index's."""
    place = f" ({layout.checkpoint})" if layout.checkpoint else ""
    return InputError(
        tr("The index was built with another model: its scores would mean nothing."),
        where=where,
        found=found,
        expected=f"{layout.model}{place}",
        hint=tr("Give that model with --checkpoint, or build the index anew."),
    )


@dataclass
class SideRows:
    """One side of some rows.

    Args:
        there: [n] bool, which rows have this side.
        vectors: Of the rows that have it, in order.
        one: [m, D], of the same.
    """

    there: NDArray[np.bool_]
    vectors: MultiVectors
    one: Tensor


def to_batch(
    layout: Layout,
    products: Sequence[Product],
    thumbnails: Sequence[bytes | None],
    sides: Mapping[Side, SideRows],
    codebook: Codebook | None = None,
) -> pa.RecordBatch:
    """Products and their vectors as rows; ``codebook`` is the layout's, if it has one.

    Raises:
        InputError: The codebook is not the layout's.
        DataError: An attribute's value is not of its type; the error names the product.
    """
    columns: list[pa.Array] = [
        pa.array([product.id for product in products], pa.string()),
        pa.array([product.title for product in products], pa.string()),
        pa.array([product.image for product in products], pa.string()),
        pa.array(list(thumbnails), pa.binary()),
    ]
    for name, kind in layout.attributes.items():
        columns.append(_attribute(products, name, kind))
    for side in layout.sides:
        rows = sides.get(side)
        columns += _side_columns(layout, rows, len(products), codebook)
    return pa.record_batch(columns, schema=layout.schema)


def side_vectors(
    rows: pa.RecordBatch | pa.Table, side: Side, codebook: Codebook | None = None
) -> MultiVectors:
    """The lists of vectors of one side; a row without that side has none."""
    column = _whole(rows.column(f"{side}_vectors"))
    dim = column.type.value_type.list_size
    lengths = np.asarray(column.value_lengths().fill_null(0), np.int64)
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
    flat = column.flatten().flatten().to_numpy(zero_copy_only=False)
    values = torch.from_numpy(np.array(flat).reshape(-1, dim))
    scales = None
    if values.dtype == torch.int8:
        stored = _whole(rows.column(f"{side}_scale")).fill_null(0.0)
        scales = torch.from_numpy(np.array(stored.to_numpy(zero_copy_only=False), np.float32))
    return MultiVectors(values, torch.from_numpy(offsets), scales, codebook)


def side_one(rows: pa.RecordBatch | pa.Table, side: Side) -> NDArray[np.float32]:
    """[n, D] the single vectors of one side; zeros where a row has none."""
    column = _whole(rows.column(f"{side}_vector"))
    dim = column.type.list_size
    result = np.zeros((len(column), dim), np.float32)
    there = np.asarray(column.is_valid())
    result[there] = column.drop_null().flatten().to_numpy(zero_copy_only=False).reshape(-1, dim)
    return result


def column_lists(values: NDArray[Any], offsets: NDArray[np.int64], type_: pa.DataType) -> pa.Array:
    """[N, D] values and [n+1] offsets as an Arrow column of lists of vectors, without a copy."""
    flat = pa.array(np.ascontiguousarray(values).reshape(-1))
    inner = pa.FixedSizeListArray.from_arrays(flat, type=type_.value_type)
    return pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), inner, type=type_)


def _side_columns(
    layout: Layout, rows: SideRows | None, n: int, codebook: Codebook | None
) -> list[pa.Array]:
    one_type = pa.list_(pa.float16(), layout.dim)
    if rows is None:
        columns = [pa.nulls(n, one_type), pa.nulls(n, layout.list_type), pa.nulls(n, pa.int32())]
        return [*columns, pa.nulls(n, pa.float32())] if layout.dtype == "int8" else columns
    vectors = layout.stored(rows.vectors, codebook)
    lengths = np.zeros(n, np.int64)
    lengths[rows.there] = vectors.lengths.numpy()
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
    missing = pa.array(~rows.there)
    lists = column_lists(vectors.values.numpy(), offsets, layout.list_type)
    whole = np.zeros((n, layout.dim), np.float16)
    whole[rows.there] = rows.one.detach().cpu().float().numpy()
    one = pa.FixedSizeListArray.from_arrays(
        pa.array(whole.reshape(-1)), type=one_type, mask=missing
    )
    columns = [
        one,
        pc.if_else(missing, pa.nulls(n, layout.list_type), lists),
        pa.array(lengths.astype(np.int32), mask=~rows.there),
    ]
    if vectors.scales is not None:
        scales = np.zeros(n, np.float32)
        scales[rows.there] = vectors.scales.numpy()
        columns.append(pa.array(scales, mask=~rows.there))
    return columns


def _attribute(products: Sequence[Product], name: str, kind: str) -> pa.Array:
    values = [product.attributes.get(name) for product in products]
    try:
        return pa.array(values, _ATTRIBUTES[kind])
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
        pass
    for product, value in zip(products, values, strict=True):
        try:
            pa.array([value], _ATTRIBUTES[kind])
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
            raise DataError(
                tr("The attribute '{name}' is of another type in the index.", name=name),
                where=product.where,
                found=repr(value),
                expected=kind,
            ) from None
    raise AssertionError(name)  # pragma: no cover - one of them was refused above


def _whole(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
