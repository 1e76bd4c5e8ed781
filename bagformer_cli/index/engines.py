"""Which engine a URI means."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bagformer_cli.errors import InputError, MissingDependencyError
from bagformer_cli.index.engine import Engine
from bagformer_cli.index.rows import Layout
from bagformer_cli.messages import tr
from bagformer_cli.vectors.residual_codes import Codebook

SHARED = ("s3://", "gs://", "az://", "memory://")


def open_engine(uri: str) -> Engine:
    """Open the index at ``uri``: a folder, ``s3://…``, or ``qdrant://host:port/collection``.

    Raises:
        InputError: There is none, it is something else or damaged, or no engine has such URIs.
    """
    return _engine(uri).open(uri)


def find_index(given: str | None = None) -> str:
    """The index meant: the one given, ``index/``, or that of the newest run (``xmr demo``'s).

    Raises:
        InputError: There is none.
    """
    if given is not None:
        return given
    own = Path("index")
    runs = sorted(Path("runs").glob("*/index"), key=lambda path: path.stat().st_mtime_ns)
    if own.exists() or not runs:
        return str(own)
    return str(runs[-1])


def create_engine(
    uri: str, layout: Layout, codebook: Codebook | None = None, **options: Any
) -> Engine:
    """Make an empty index at ``uri``; see :meth:`~bagformer_cli.index.engine.Engine.create`.

    Raises:
        InputError: There is something already, or no engine has such URIs.
    """
    return _engine(uri).create(uri, layout, codebook, **options)


def _engine(uri: str) -> type[Engine]:
    if uri.startswith(("qdrant://", "qdrants://")):
        try:
            from bagformer_cli.index.qdrant import QdrantEngine
        except ImportError:
            raise MissingDependencyError(
                tr("Qdrant's client is not installed."), hint='pip install "bagformer-cli[qdrant]"'
            ) from None
        return QdrantEngine
    if "://" in uri and not uri.startswith(SHARED):
        raise InputError(
            tr("No index engine has such addresses."),
            found=uri,
            expected=tr("a folder, s3://bucket/path, or qdrant://host:6333/collection"),
        )
    from bagformer_cli.index.lancedb import LanceEngine

    return LanceEngine
