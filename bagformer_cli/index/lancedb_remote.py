"""Tables that say whether an index on shared storage is whole.

Such storage has no locks and no renames. A local folder keeps the same in files
(``lancedb_folder.py``).
"""

from __future__ import annotations

import lancedb
import pyarrow as pa

from bagformer_cli.index.lancedb_folder import INCOMPLETE, TABLE, UNKNOWN
from bagformer_cli.index.lancedb_opening import is_missing


def is_whole(uri: str) -> bool:
    """Tell whether an address on shared storage holds a table, not a part of one.

    A creation that was killed leaves files that have the name of the table, but no version of it.
    """
    if TABLE not in lancedb.connect(uri).list_tables().tables:
        return False
    try:
        lancedb.connect(uri).open_table(TABLE)
    except (ValueError, FileNotFoundError) as error:
        return not is_missing(error)
    return True


def remote_sources(uri: str) -> set[str]:
    """Return the sources that are being added, from a table that exists only meanwhile."""
    database = lancedb.connect(uri)
    if INCOMPLETE not in database.list_tables().tables:
        return set()
    try:
        found = database.open_table(INCOMPLETE).to_arrow()
    except (ValueError, RuntimeError, OSError) as error:
        if not is_missing(error):
            raise
        return {UNKNOWN}  # the process was killed while it wrote or removed this table
    return set(found["source"].to_pylist())


def mark_remote(uri: str, source: str, *, unfinished: bool) -> None:
    """Store that a source is being added, or that it is complete."""
    sources = remote_sources(uri)
    left = sources | {source} if unfinished else sources - {source, UNKNOWN}
    database = lancedb.connect(uri)
    if left:
        rows = pa.table({"source": pa.array(sorted(left), pa.string())})
        database.create_table(INCOMPLETE, rows, mode="overwrite")
    elif sources:
        database.drop_table(INCOMPLETE)
