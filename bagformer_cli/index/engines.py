"""Choose the engine for the address of an index."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from bagformer_cli.errors import InputError, MissingDependencyError
from bagformer_cli.index.attribute_names import require_names
from bagformer_cli.index.engine import Engine
from bagformer_cli.index.rows import Layout
from bagformer_cli.messages import tr

if TYPE_CHECKING:
    from bagformer_cli.vectors.residual_codes import Codebook

SHARED_STORAGE = ("s3://", "gs://", "az://", "memory://")


DEFAULT_INDEX = "index"
"""The folder that is searched if it exists and no other is named."""


def open_engine(uri: str) -> Engine:
    """Open an index: a folder, ``s3://bucket/path``, or ``qdrant://host:6333/collection``.

    Raises:
        InputError: There is no index, it is damaged, or no engine has such an address.
    """
    return _engine(uri).open(uri)


def create_engine(
    uri: str, layout: Layout, codebook: Codebook | None = None, **options: Any
) -> Engine:
    """Create an empty index; see :meth:`~bagformer_cli.index.engine.Engine.create`.

    Raises:
        InputError: The place already holds something, no engine has such an address, or an
            attribute has a name that no filter can write.
    """
    require_names(layout.attributes)
    return _engine(uri).create(uri, layout, codebook, **options)


def find_index() -> str:
    """Return ``index/`` if it exists, else the index of the newest run that has one."""
    default = Path(DEFAULT_INDEX)
    runs = sorted(Path("runs").glob("*/index"), key=lambda path: path.stat().st_mtime_ns)
    if default.exists() or not runs:
        return str(default)
    return str(runs[-1])


def _engine(uri: str) -> type[Engine]:
    if uri.startswith(("qdrant://", "qdrants://")):
        try:
            from bagformer_cli.index.qdrant import QdrantEngine
        except ImportError:
            raise MissingDependencyError(
                tr("Qdrant's client is not installed."), hint='pip install "bagformer-cli[qdrant]"'
            ) from None
        return QdrantEngine
    if "://" in uri and not uri.startswith(SHARED_STORAGE):
        raise InputError(
            tr("No index engine has addresses of this kind."),
            found=uri,
            expected=tr("a folder, s3://bucket/path, or qdrant://host:6333/collection"),
        )
    try:
        from bagformer_cli.index.lancedb import LanceEngine
    except ModuleNotFoundError as error:
        if error.name != "lancedb":
            raise
        raise MissingDependencyError(
            tr("LanceDB is not installed."), hint="pip install lancedb"
        ) from error

    return LanceEngine
