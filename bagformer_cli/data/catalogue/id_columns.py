"""A table in which no column of ids is recognised, although one may hold them.

Its products get the paths of their images, or the numbers of their rows, as ids. If such a table
is added to an index whose products have other ids, they replace none of them but are new products,
so the user shall know of it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from bagformer_cli.errors import shell_word
from bagformer_cli.messages import tr

_LIKELY = re.compile(r"(?:(?<!型)号|编码|代码|条码|条形码|id|sku|code|no\.?)$", re.IGNORECASE)
_ROWS_LOOKED_AT = 1000


class IdColumns:
    """The columns whose headings sound like ids, with values that differ in every row."""

    def __init__(self) -> None:
        self._has_ids = False
        self._rows = 0
        self._values: dict[str, set[str]] = {}  # column to its values
        self._repeated: set[str] = set()

    def add(self, heading: str | None, attributes: Mapping[str, Any]) -> None:
        """Take in one row.

        Args:
            heading: The heading of the column of ids; None: none is recognised.
            attributes: The other columns.
        """
        self._has_ids = self._has_ids or heading is not None
        if self._has_ids or self._rows >= _ROWS_LOOKED_AT:
            return
        self._rows += 1
        for name, value in attributes.items():
            if _LIKELY.search(name) is None:
                continue
            values = self._values.setdefault(name, set())
            if str(value) in values:
                self._repeated.add(name)
            values.add(str(value))

    @property
    def remark(self) -> str | None:
        """The sentence that names the likeliest column; None: there are ids, or no such column."""
        if self._has_ids or self._rows < 2:
            return None
        for name, values in self._values.items():
            if name not in self._repeated and len(values) == self._rows:
                return tr(
                    "No column of ids was recognised: ids are image paths, or row numbers without "
                    "an image. '{name}' differs in every row; if it holds the ids: "
                    "--column id={heading}",
                    name=name,
                    heading=shell_word(name),
                )
        return None
