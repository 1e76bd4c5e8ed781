"""The names that an attribute of an index may have; the same rule for every engine.

An attribute is a column in LanceDB and a key in Qdrant, and ``--where`` must be able to write it:
plain, in backticks or in double quotes. LanceDB reads a dot as a path into a nested column; Qdrant
finds no key that has a backslash.
"""

from __future__ import annotations

from collections.abc import Iterable

from bagformer_cli.errors import InputError
from bagformer_cli.messages import tr

FORBIDDEN = '.`"\\'
FIXED = {"id", "title", "image", "title_terms", "thumbnail", "_rowid", "_rowaddr", "_distance",
         "_score"}  # fmt: skip
VECTOR_COLUMNS = {f"{side}_{part}" for side in ("image", "title")
                  for part in ("vector", "vectors", "count", "scale")}  # fmt: skip


def require_names(names: Iterable[str]) -> None:
    """Check the names of attributes before an index is created.

    Raises:
        InputError: A name is empty, has a character that no filter can write, or is the name of a
            column that every index has.
    """
    for name in names:
        reason = None
        if not name.strip():
            reason = tr("An attribute has no name.")
        elif any(letter in FORBIDDEN or not _is_shown(letter) for letter in name):
            reason = tr("An attribute's name has a character that a filter cannot write.")
        elif name.lower() in FIXED | VECTOR_COLUMNS:
            reason = tr("An attribute has the name of a column that every index has.")
        if reason is not None:
            raise InputError(
                reason,
                found=name if name.strip() and name.isprintable() else ascii(name),
                expected=tr('a name without {characters} and control characters',
                            characters=" ".join(FORBIDDEN)),
                hint=tr("Rename the column."),
            )  # fmt: skip


def _is_shown(letter: str) -> bool:
    """Tell whether a character may be in a name: no control character, no half character."""
    return letter.isprintable() or letter in "\u200d\u3000\u00a0"  # in emoji; wide and hard blanks
