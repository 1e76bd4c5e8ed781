"""Open the table of an index with the ``lancedb`` library; its exceptions become our errors."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lancedb

from bagformer_cli.errors import XmrError
from bagformer_cli.index.engine import engine_error
from bagformer_cli.index.lancedb_folder import TABLE, not_an_index


def resolved(uri: str) -> str:
    """Follow links once, so that one which is turned to a new index does not mix the two."""
    real = os.path.realpath(uri)
    return uri if real == os.path.abspath(uri) else real


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


def indexes_in(folder: Path) -> list[str]:
    """Name the folders of a folder that hold an index."""
    return [found.parent.name for found in folder.glob(f"*/{TABLE}.lance")]
