"""Extension of griffe: docstrings as the page of Python shows them.

The sources write ``:func:`load```, literal blocks that start with ``::``, and examples without a
heading. Markdown would show the first two as they stand and the third as a quotation.
"""

from __future__ import annotations

import re
from typing import Any

import griffe

ROLE = re.compile(r":(?:func|class|meth|mod|attr|exc|data):`~?([^`]+)`")
EXAMPLE = re.compile(r"\n\n(?P<indent> *)>>> .*(?:\n(?P=indent).*\S.*)*")


class PlainDocstrings(griffe.Extension):
    """Rewrite docstrings before they are parsed."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite the docstring of an object."""
        if obj.docstring is not None:
            obj.docstring.value = for_markdown(obj.docstring.value)


def for_markdown(text: str) -> str:
    """Return a docstring without roles, with examples under a heading of their own."""
    text = ROLE.sub(r"`\1`", text)
    text = re.sub(r"::\n\n", ":\n\n", text)

    def example(found: re.Match[str]) -> str:
        return "\n\nExamples:" + found[0][1:].replace("\n", "\n    ")

    return EXAMPLE.sub(example, text)
