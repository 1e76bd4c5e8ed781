"""What is wrong with a filter, or with an index, out of what an engine says of it."""

from __future__ import annotations

import re

from bagformer_cli.errors import DiskFullError, InputError, XmrError, nearest
from bagformer_cli.index.rows import Layout
from bagformer_cli.messages import tr

EXAMPLE = "price < 200 AND category = '连衣裙'"


def bad_where(where: str, said: str, layout: Layout) -> InputError | None:
    """The error for a filter that LanceDB refuses, or None where it is not the filter's fault."""
    names = ["id", "title", *layout.attributes]
    unknown = re.search(r"No field named \"?([^\s.\"]+)\"?", said)
    if unknown is not None:
        return unknown_attribute(unknown[1], layout, where)
    kinds = ", ".join(f"{name} ({layout.attributes.get(name, 'str')})" for name in names)
    parser = re.search(r"sql parser error: (.*?)\)?$", said, re.DOTALL)
    if parser is not None:
        return InputError(
            tr("The filter is not an expression."),
            where=where,
            found=parser[1].strip(),
            expected=EXAMPLE,
            hint=tr("Attributes: {names}", names=kinds),
        )
    if re.search(
        r"resolving filter|parsing function|literal|coerc|compar|cast|boolean", said, re.I
    ):
        detail = re.split(r", /|\n", said.partition("Invalid user input: ")[2] or said)[0]
        return InputError(
            tr("The filter does not fit its attributes."),
            where=where,
            found=detail,
            expected=tr("a comparison: text in single quotes, numbers without"),
            hint=tr("Attributes: {names}", names=kinds),
        )
    return None


def unknown_attribute(name: str, layout: Layout, where: str) -> InputError:
    """The error for an attribute that no product has, with the nearest that there is."""
    names = ["id", "title", *layout.attributes]
    near = nearest(name, names)
    return InputError(
        tr("The index has no attribute '{name}'.", name=name),
        where=where,
        expected=", ".join(names),
        hint=tr("Did you mean {name}?", name=near)
        if near
        else tr("Text goes in single quotes: '{text}'", text=name),
    )


def damaged(uri: str, error: Exception) -> XmrError:
    """The error for what an engine cannot read."""
    said = str(error).split("\n")[0][:300]
    if "No space left" in said:
        return DiskFullError(tr("The disk is full."), where=uri, found=said)
    if re.search(r"commit conflict|preempted", said, re.I):
        return InputError(
            tr("Another process is writing to this index."),
            where=uri,
            found=said,
            hint=tr("Run the command again when it is done."),
        )
    return InputError(
        tr("The index cannot be read: it is damaged, or not reachable."),
        where=uri,
        found=said,
        hint=tr("Build it anew, or go back to a copy of it."),
    )
