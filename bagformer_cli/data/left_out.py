"""Rows and files that a command leaves out: the first are named, all are counted."""

from __future__ import annotations

from bagformer_cli.errors import InputError
from bagformer_cli.messages import tr
from bagformer_cli.progress import SILENT, Progress

NAMED = 20
"""How many are named in warnings. The others are counted: a million lines would hide the rest."""


class LeftOut:
    """The rows or files that one command leaves out.

    Args:
        progress: Receives the warnings.
        strict: Raise the first error instead of collecting it.
    """

    def __init__(self, progress: Progress = SILENT, *, strict: bool = False) -> None:
        self.errors: list[InputError] = []
        self._progress, self._strict = progress, strict

    def __call__(self, error: InputError) -> None:
        """Name an error, or only count it, or raise it if this is strict."""
        if self._strict:
            raise error
        self.errors.append(error)
        if len(self.errors) <= NAMED:
            self._progress.warn(tr("left out: {error}", error=error))

    def finish(self) -> None:
        """Say how many more were left out than were named."""
        if len(self.errors) > NAMED:
            self._progress.warn(tr("left out: {n} more", n=len(self.errors) - NAMED))

    def nothing_left(self, message: str, where: object) -> InputError:
        """Make the error for a source of which nothing is left; it shows the first reason."""
        first = self.errors[0] if self.errors else None
        if first is None:
            return InputError(
                message, where=str(where), expected=tr("at least one product below the headings")
            )
        return InputError(
            message, where=str(where), found=first, hint=tr("The warnings above say why.")
        )
