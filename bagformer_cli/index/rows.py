"""Products as Arrow rows: the format of ``xmr encode`` files and of every index.

A row is one product. It holds what is shown, and for each side (image, title) its vectors::

    column          Arrow type                        product with image and title   title only
    id, title       string                            "p1", "红色连衣裙"               "p2", "雨伞"
    image           string (path)                     "a.jpg"                        null
    thumbnail       binary (JPEG, PNG or WebP file)   b"…"                           null
    price, …        one column per attribute          200                            30
    image_vector    fixed_size_list<float16, D>       one vector                     null
    image_vectors   list<fixed_size_list<int8, D>>    multi-vector embedding         null
    image_count     int32                             33                             null
    image_scale     float32 (int8 only)               0.0071                         null
    title_vector …  the same for the title
    title_terms     string                            "红色 连衣裙"                   "雨伞"

``list<fixed_size_list>`` has the memory layout of ``MultiVectors``: values and offsets. The
schema's metadata hold the :class:`Layout` as JSON.

``row_columns.py`` makes rows of products. Shapes: n rows, N vectors in all, D dimensions.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, get_args

import pyarrow as pa

from bagformer_cli.config import Pooling
from bagformer_cli.config.scoring import Scoring
from bagformer_cli.errors import InputError, listed, with_place
from bagformer_cli.messages import tr
from bagformer_cli.runtime.folder import is_exported
from bagformer_cli.vectors.arrays import Vectors
from bagformer_cli.vectors.stored_arrays import RESIDUAL4, code_width

if TYPE_CHECKING:
    from bagformer_cli.vectors.residual_codes import Codebook

Side = Literal["image", "title"]
SIDES: tuple[Side, ...] = ("image", "title")
VectorType = Literal["int8", "float16", "float32", "residual4"]
SingleVector = Literal["cls", "mean"]

FEATURES = "features"
"""``Layout.model`` of an index of vectors that another program made."""
VERSION = 1
MAX_DIM = 1 << 16  # a larger number in a file is damage, and would reserve memory
KEY = b"xmr"
TEXT = ("id", "title", "image")
TERMS = "title_terms"
"""The column of the terms of each title, separated by spaces (``terms.py``)."""

_ARROW_TYPES = {
    "int8": pa.int8(),
    "float16": pa.float16(),
    "float32": pa.float32(),
    RESIDUAL4: pa.uint8(),
}
ATTRIBUTE_TYPES = {
    "bool": pa.bool_(),
    "int": pa.int64(),
    "float": pa.float64(),
    "date": pa.string(),  # as 2024-06-01 or 2024-06-01 08:30:00: see data/catalogue/dates.py
    "str": pa.string(),
}
_JSON_NAMES = {"single_vector": "one", "reduction": "fewer"}  # fields with another name on disk
_DEFAULTS: dict[str, Any] = {"terms": False, "pooling": "each", "means": False}
"""Values of fields that are stored only if they differ, as in layouts of earlier versions."""


@dataclass(frozen=True)
class Layout:
    """The form of the rows of an index or of encoded files; rows of equal layouts fit together.

    Args:
        model: The fingerprint of the model that made the vectors.
        dim: D.
        dtype: The type of the stored multi-vector embeddings.
        single_vector: The single vector of an item: the class token's, or the mean.
        sides: Which sides rows may have.
        reduction: How images got fewer vectors, for example ``{"pool": 4}``; see
            ``compression/token_pooling.py``.
        attributes: Name and type (``bool``, ``int``, ``float``, ``date``, ``str``) of each
            attribute.
        checkpoint: The model's folder when the first row was made; used to find it again.
        codebook: The digest of the codebook of residual codes; empty for other types.
        version: The version of this format.
        terms: Whether rows hold the terms of their titles, which a lexical search finds.
        pooling: The model's ``model.pooling``. Layouts of earlier versions do not say it: a search
            with the model takes it from the model.
        means: Whether the model's scores are means; see ``config/scoring.py``.
    """

    model: str
    dim: int
    dtype: VectorType = "int8"
    single_vector: SingleVector = "cls"
    sides: tuple[Side, ...] = SIDES
    reduction: dict[str, float] = field(default_factory=dict)
    attributes: dict[str, str] = field(default_factory=dict)
    checkpoint: str = ""
    codebook: str = ""
    version: int = VERSION
    terms: bool = False
    pooling: Pooling = "each"
    means: bool = False

    @property
    def scoring(self) -> Scoring:
        """The score of a title and an image by the model of these rows."""
        return Scoring(self.pooling, self.means)

    @property
    def schema(self) -> pa.Schema:
        """The Arrow schema of the rows, with the layout in its metadata."""
        fields = [pa.field(name, pa.string()) for name in TEXT]
        fields.append(pa.field("thumbnail", pa.binary()))
        fields += [pa.field(name, ATTRIBUTE_TYPES[kind]) for name, kind in self.attributes.items()]
        for side in self.sides:
            fields.append(pa.field(f"{side}_vector", pa.list_(pa.float16(), self.dim)))
            fields.append(pa.field(f"{side}_vectors", self.vectors_type))
            fields.append(pa.field(f"{side}_count", pa.int32()))
            if self.dtype == "int8":
                fields.append(pa.field(f"{side}_scale", pa.float32()))
        if self.terms:
            fields.append(pa.field(TERMS, pa.string()))
        return pa.schema(fields, {KEY: json.dumps(self.to_json(), ensure_ascii=False)})

    @property
    def vectors_type(self) -> pa.DataType:
        """The Arrow type of a column of multi-vector embeddings."""
        width = code_width(self.dim) if self.dtype == RESIDUAL4 else self.dim
        return pa.list_(pa.list_(_ARROW_TYPES[self.dtype], width))

    def to_json(self) -> dict[str, Any]:
        """Return the layout as it is stored, and as ``xmr index info --json`` shows it."""
        values = asdict(self)
        for name in ("terms", "pooling", "means"):  # later fields; digests are made of this
            if values[name] == _DEFAULTS[name]:
                del values[name]
        return {_JSON_NAMES.get(name, name): value for name, value in values.items()}

    @classmethod
    def from_schema(cls, schema: pa.Schema) -> Self | None:
        """Read the layout from a schema's metadata; return None if it is missing or damaged.

        Raises:
            InputError: Another version wrote it, or the vectors have a type that this version does
                not know.
        """
        raw = (schema.metadata or {}).get(KEY)
        if raw is None:
            return None
        values: Any = None
        try:
            values = json.loads(raw)
            for name, stored in _JSON_NAMES.items():
                values[name] = values.pop(stored)
            layout = cls(**{**values, "sides": tuple(values["sides"])})
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            version = values.get("version", VERSION) if isinstance(values, dict) else VERSION
            if version == VERSION:
                return None
            raise _wrong_version(version) from None  # it may have other fields
        if layout.version != VERSION:
            raise _wrong_version(layout.version)
        if not layout._is_sound():
            return None
        if layout.dtype not in _ARROW_TYPES:  # residual2, for example, which earlier versions wrote
            raise InputError(
                tr("This version of xmr cannot read vectors of this type."),
                found=layout.dtype,
                expected=listed(_ARROW_TYPES),
                hint=tr("Encode the catalogue again with another --dtype."),
            )
        if schema.names:  # the column may have been added later
            has_terms = TERMS in schema.names and TERMS not in layout.attributes
            return replace(layout, terms=has_terms)
        return layout

    def _is_sound(self) -> bool:
        """Tell whether every field has a value of its type and range."""
        texts = (self.model, self.dtype, self.checkpoint, self.codebook)
        return (
            all(isinstance(text, str) for text in texts)
            and type(self.dim) is int
            and type(self.terms) is bool
            and self.pooling in get_args(Pooling)
            and type(self.means) is bool
            and 0 < self.dim <= MAX_DIM
            and self.single_vector in ("cls", "mean")
            and len(self.sides) > 0
            and all(side in SIDES for side in self.sides)
            and isinstance(self.reduction, dict)
            and all(isinstance(value, (int, float)) for value in self.reduction.values())
            and isinstance(self.attributes, dict)
            and all(kind in list(ATTRIBUTE_TYPES) for kind in self.attributes.values())
        )

    def to_stored(self, vectors: Vectors, codebook: Codebook | None = None) -> Vectors:
        """Convert float32 vectors to the stored type; residual codes are [N, W] uint8 values.

        Raises:
            InputError: The layout has residual codes and ``codebook`` is not their codebook.
        """
        if self.dtype != "residual4":
            return vectors.stored(self.dtype)
        import torch

        codes = self.require_codebook(codebook).encode(torch.from_numpy(vectors.values))
        return Vectors(codes.numpy(), vectors.offsets)

    def require_codebook(self, codebook: Codebook | None) -> Codebook:
        """Return the codebook if it is the one that the layout names.

        Raises:
            InputError: It is missing or another one.
        """
        if codebook is None or codebook.digest != self.codebook:
            raise InputError(
                tr("These residual codes belong to another codebook and cannot be decoded."),
                found=None if codebook is None else codebook.digest,
                expected=self.codebook,
            )
        return codebook

    def require_side(self, side: Side, where: str) -> None:
        """Check that rows may have a side.

        Raises:
            InputError: They may not.
        """
        if side not in self.sides:
            raise InputError(
                tr("The index holds no {side}s.", side=side),
                where=where,
                expected=listed(self.sides),
            )

    def require_same(self, other: Layout, where: str) -> None:
        """Check that rows of another layout fit into an index of this one.

        Raises:
            InputError: The model, or the dimension, type or reduction of the vectors differs.
        """
        if other.model != self.model:
            raise wrong_model(self, other.model, where)
        for name, label in (
            ("dim", tr("dimension")),
            ("dtype", tr("vector type")),
            ("single_vector", tr("single vector")),
            ("reduction", tr("vector reduction")),
            ("codebook", tr("codebook")),
        ):
            own, theirs = getattr(self, name), getattr(other, name)
            if own != theirs:
                raise InputError(
                    tr("These vectors do not fit the index."),
                    where=where,
                    found=with_place(theirs or "-", label),
                    expected=with_place(own or "-", label),
                    hint=tr("Add the catalogue itself: xmr index add CATALOGUE INDEX")
                    if name == "codebook"
                    else tr("Encode them with the options the index was built with."),
                )


def _wrong_version(version: object) -> InputError:
    return InputError(
        tr("Another version of xmr wrote this index or these vectors."),
        found=tr("format {version}", version=version),
        expected=tr("format {version}", version=VERSION),
        hint=tr("Build it again with this version, or update xmr."),
    )


def wrong_model(layout: Layout, found: str, where: str, folder: Path | None = None) -> InputError:
    """Return the error for vectors or queries of another model than the index's.

    Args:
        layout: That of the index.
        found: Fingerprint of the other model.
        where: The index.
        folder: The folder of the other model, if it is known.
    """
    if layout.model == FEATURES:
        return InputError(
            tr("Another program made the vectors of this index, so xmr encodes nothing for it."),
            where=where,
            hint=tr(
                "Give vectors of that program: xmr search --features FILE, "
                "xmr index add CATALOGUE INDEX --features FILE"
            ),
        )
    if folder is not None and str(folder.resolve()) == layout.checkpoint:
        return InputError(
            tr("The model has changed since the index was built with it."),
            where=where,
            found=f"{found} ({folder})",
            expected=layout.model,
            hint=tr(
                "Build the index again, or restore the model: its weights, vocabulary and "
                "dictionaries, and the sections text, image and model of its config.yaml."
            ),
        )
    hint = tr("Pass that model with --checkpoint, or build the index again.")
    if folder is not None and is_exported(folder):
        hint = tr(
            "Export the model of the index ({command}), or build the index again.",
            command=f"xmr export onnx {layout.checkpoint}",
        )
    used = f"{found} ({folder})" if folder is not None else found
    built_with = f" ({layout.checkpoint})" if layout.checkpoint else ""
    return InputError(
        tr("The index was built with another model, so its vectors cannot be compared."),
        where=where,
        found=used,
        expected=f"{layout.model}{built_with}",
        hint=hint,
    )
