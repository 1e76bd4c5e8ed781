"""Rows and files that a command leaves out: the first are named, all are counted."""

from __future__ import annotations

import re
from pathlib import Path

from bagformer_cli.errors import InputError
from bagformer_cli.messages import tr
from bagformer_cli.progress import SILENT, Progress

NAMED = 20
"""How many are named in warnings. The others are counted: a million lines would hide the rest."""

_NUMBER = re.compile("[0-9]+")


class LeftOut:
    """The rows or files that one command leaves out.

    Args:
        progress: Receives the warnings.
        strict: Raise the first error instead of collecting it.
        in_order_of: A table that is read several times: errors are named at the end, in the order
            of its lines. None: they are named at once.
    """

    def __init__(
        self,
        progress: Progress = SILENT,
        *,
        strict: bool = False,
        in_order_of: Path | None = None,
    ) -> None:
        self.errors: list[InputError] = []
        self._progress, self._strict, self._table = progress, strict, in_order_of

    def __call__(self, error: InputError) -> None:
        """Name an error, or only count it, or raise it if this is strict."""
        if self._strict:
            raise error
        self.errors.append(error)
        if self._table is None and len(self.errors) <= NAMED:
            self._name(error)

    def finish(self) -> None:
        """Name errors that were kept back; say how many more were left out than were named."""
        if self._table is not None:
            self.errors.sort(key=self._line)
            for error in self.errors[:NAMED]:
                self._name(error)
        if len(self.errors) > NAMED:
            self._progress.warn(tr("left out: {n} more", n=len(self.errors) - NAMED))

    def _name(self, error: InputError) -> None:
        self._progress.warn(tr("left out: {error}", error=error))

    def _line(self, error: InputError) -> int:
        """Return the line of the table that an error is about; 0 if it names none."""
        place = (error.where or "").removeprefix(f"{self._table}:")
        found = _NUMBER.match(place)
        return int(found[0]) if found else 0

    def nothing_left(self, message: str, where: object) -> InputError:
        """Make the error for a source of which nothing is left; it shows the first reason."""
        self.finish()
        first = self.errors[0] if self.errors else None
        if first is None:
            return InputError(
                message, where=str(where), expected=tr("at least one product below the headings")
            )
        return InputError(
            message, where=str(where), found=first, hint=tr("The warnings above say why.")
        )
