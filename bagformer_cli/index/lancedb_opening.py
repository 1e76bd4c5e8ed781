"""Open the table of an index with the ``lancedb`` library; its exceptions become our errors."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lancedb

from bagformer_cli.errors import InputError, XmrError, nearest
from bagformer_cli.index.engine_errors import engine_error
from bagformer_cli.index.lancedb_folder import TABLE, not_an_index
from bagformer_cli.messages import tr
from bagformer_cli.opening import require_plain_folder


def index_folder(uri: str) -> str:
    """Return the folder of an index on this machine, with its links followed.

    Links are followed once, so that one which is turned to a new index does not mix the two.

    Raises:
        InputError: The folder is missing, holds no index, or holds links or pipes.
    """
    real = os.path.realpath(uri)
    place = uri if real == os.path.abspath(uri) else real
    path = Path(place)
    if not path.exists():
        indexes = [found.parent.name for found in path.parent.glob(f"*/{TABLE}.lance")]
        near = nearest(path.name, indexes)
        hint = tr("Create one: xmr index build CATALOGUE {uri}", uri=place)
        if near is not None:
            hint = tr("Did you mean {name}?", name=path.parent / near)
        raise InputError(tr("There is no index here."), where=place, hint=hint)
    if not (path / f"{TABLE}.lance").is_dir():
        raise not_an_index(place)
    require_plain_folder(path)
    return place


def is_missing(error: Exception) -> bool:
    """Tell whether LanceDB found no table, or not all of its files."""
    return "not found" in str(error).lower()


def open_table(uri: str) -> Any:
    """Open a table of the ``lancedb`` library at its newest version.

    Raises:
        InputError: It is not there, or it is damaged.
    """
    with lance_errors(uri):
        try:
            return lancedb.connect(uri).open_table(TABLE)
        except (ValueError, FileNotFoundError) as error:
            if is_missing(error):
                raise not_an_index(uri) from None
            raise


@contextmanager
def lance_errors(uri: str) -> Iterator[None]:
    """Raise LanceDB's exceptions as this project's errors."""
    try:
        yield
    except (XmrError, KeyboardInterrupt, OSError):
        raise
    except (RuntimeError, ValueError) as error:
        raise engine_error(uri, error) from error
