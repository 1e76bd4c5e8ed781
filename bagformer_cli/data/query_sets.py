"""``sets.json``: an optional file of a MUGE folder that names sets of queries.

``xmr eval`` measures recall on each set as well, in columns; all images of the split stay
candidates. The drawn benchmark (``xmr data demo --benchmark``) has one. A shop may write its own,
for example one set for each category::

    {"format": "xmr-query-sets", "version": 1, "splits": {"test": {
      "two": {"queries": [17, 23], "figures": {"oracle": 99.2}}, …}}}

``figures`` are numbers that are known of a set, in percent of mean recall; they may be left out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bagformer_cli.errors import DataError
from bagformer_cli.messages import tr
from bagformer_cli.opening import read_regular

FILE_NAME = "sets.json"
FORMAT = "xmr-query-sets"
VERSION = 1
MOST_BYTES = 1 << 28
_EXAMPLE = {"format": FORMAT, "version": VERSION, "splits": {"test": {"two": {"queries": [17]}}}}


@dataclass(frozen=True)
class QuerySet:
    """Some queries of a split.

    Attributes:
        queries: Their ids.
        figures: Name to a number that is known of the set.
    """

    queries: tuple[int, ...]
    figures: Mapping[str, float] = field(default_factory=dict)


Sets = Mapping[str, QuerySet]
"""Name to set, in the order of the file."""


def sets_text(splits: Mapping[str, Sets]) -> str:
    """Make the content of the file."""
    listed = {
        split: {
            name: {"queries": list(one.queries), "figures": dict(one.figures)}
            for name, one in sets.items()
        }
        for split, sets in splits.items()
    }
    head = {"format": FORMAT, "version": VERSION, "splits": listed}
    return json.dumps(head, ensure_ascii=False) + "\n"


def read_sets(folder: Path, split: str) -> dict[str, QuerySet]:
    """Read the sets of a split; empty without a file.

    Args:
        folder: The dataset.
        split: ``train``, ``valid`` or ``test``.

    Raises:
        DataError: The file is not one of query sets.
        InputError: The file cannot be read.
    """
    path = folder / FILE_NAME
    if not path.is_file():
        return {}
    try:
        content = json.loads(read_regular(path, MOST_BYTES))
        if (content["format"], content["version"]) != (FORMAT, VERSION):
            raise ValueError
        return {str(name): _set(one) for name, one in content["splits"].get(split, {}).items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            tr("This is not a file of query sets."),
            where=path,
            expected=json.dumps(_EXAMPLE),
            hint=tr("Delete or correct the file; `xmr eval` works without it."),
        ) from error


def _set(one: dict[str, Any]) -> QuerySet:
    queries = tuple(one["queries"])
    if not all(isinstance(number, int) and not isinstance(number, bool) for number in queries):
        raise TypeError
    figures = {str(name): float(value) for name, value in one.get("figures", {}).items()}
    return QuerySet(queries, figures)
