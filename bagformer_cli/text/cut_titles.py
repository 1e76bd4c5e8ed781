"""Count titles that are longer than a model reads, so that a command can say so once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from bagformer_cli.messages import tr

SHOWN = 40
"""Characters of the longest title that are shown."""


class CutTitles(NamedTuple):
    """Titles that were cut.

    Args:
        number: How many there are.
        longest: Characters of the longest one.
        beginning: Its first characters.
    """

    number: int = 0
    longest: int = 0
    beginning: str = ""

    @classmethod
    def among(cls, titles: Sequence[str], cut: npt.NDArray[np.bool_]) -> CutTitles:
        """Describe those of some titles that are marked as cut."""
        if not cut.any():
            return cls()
        longest = max((titles[i] for i in np.flatnonzero(cut).tolist()), key=len)
        return cls(int(cut.sum()), len(longest), longest[: SHOWN + 1])

    @classmethod
    def from_json(cls, values: Any) -> CutTitles:
        """Read what ``_asdict`` gave; no titles if it is something else."""
        try:
            number, longest = int(values["number"]), int(values["longest"])
            return cls(number, longest, str(values["beginning"]))
        except (KeyError, TypeError, ValueError):
            return cls()

    def plus(self, other: CutTitles) -> CutTitles:
        """Join two counts."""
        longer = max(self, other, key=lambda one: one.longest)
        return CutTitles(self.number + other.number, longer.longest, longer.beginning)

    def sentence(self, max_tokens: int) -> str:
        """Say what happened to the titles, for a warning; empty if none was cut.

        Args:
            max_tokens: Tokens that the model reads.
        """
        if not self.number:
            return ""
        shown = self.beginning
        shown = f"{shown[:SHOWN]}…" if len(shown) > SHOWN else shown
        values: Mapping[str, object] = {
            "tokens": max_tokens, "count": self.number, "longest": self.longest, "title": shown,
        }  # fmt: skip
        if self.number == 1:
            return tr(
                "A title is longer than the model's {tokens} tokens; its end is ignored. It has "
                "{longest} characters: {title}",
                **values,
            )
        return tr(
            "{count} titles are longer than the model's {tokens} tokens; their ends are ignored. "
            "The longest has {longest} characters: {title}",
            **values,
        )
