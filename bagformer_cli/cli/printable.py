"""Make any text safe to print: the only place between data and a terminal.

Titles, ids, file names, error texts of libraries: whatever a file or a network holds may contain
characters that a terminal obeys. They clear the screen, set the window's title, or reorder what is
read. ``console.py`` and ``bars.py`` pass every text through :func:`printable`, every JSON text
through :func:`printable_json`.

A stream may also lack characters: ``LANG=C`` has neither ``✓`` nor Chinese. :func:`adapt_streams`
gives it the nearest ASCII sign or an escape, so that printing never fails.
"""

from __future__ import annotations

import codecs
import os
import re
import select
import sys
from contextlib import suppress
from io import UnsupportedOperation
from typing import IO, Any

_CONTROLS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # C0 without tab and line feed; DEL; C1
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # direction: overrides, embeddings, isolates
    "\u2028\u2029\ufff9-\ufffb\U000e0001-\U000e007f"  # line separators, annotations, tags
    "\ud800-\udfff]"  # half a character, or a byte of a file name that is not UTF-8
)
_NOT_ASCII = re.compile("[\x7f-\U0010ffff]")
_ASCII_SIGNS = {"✓": "+", "→": "->", "←": "<-", "│": "|", "–": "-", "—": "-", "…": "...", "×": "x",
                "·": "-", "━": "=", "─": "-", "•": "*", "≥": ">=", "≤": "<=",
                "\u00a0": " "}  # fmt: skip
_ERRORS = "xmr_ascii_signs"


def printable(text: str) -> str:
    r"""Replace characters that a terminal obeys by their escapes; line feeds and tabs stay.

    >>> print(printable("红\x1b[2J\u202e裙"))
    红\x1b[2J\u202e裙
    """
    return _CONTROLS.sub(_escape, text)


def one_line(text: str) -> str:
    r"""Do the same for a text that must stay on one line, for example a table cell.

    >>> one_line("红\n裙")
    '红 裙'
    """
    return printable(" ".join(text.split("\n"))).replace("\t", " ")


def printable_json(text: str, stream: Any) -> str:
    r"""Escape the same characters inside JSON, which keeps its meaning.

    Args:
        text: JSON, or JSON lines.
        stream: Where it is printed. A stream that is not UTF-8 gets ASCII only.
    """
    plain = is_utf8(stream)
    return (_CONTROLS if plain else _NOT_ASCII).sub(_json_escape, text) if text else text


def is_utf8(stream: Any) -> bool:
    """Tell whether a stream encodes text as UTF-8; one without an encoding (a buffer) does."""
    name = getattr(stream, "encoding", None) or "utf-8"
    try:
        return codecs.lookup(name).name == "utf-8"
    except LookupError:
        return False


def adapt_streams() -> None:
    """Let stdout and stderr print any text, and replace a closed one by the null device."""
    codecs.register_error(_ERRORS, _ascii_signs)
    for name in ("stdout", "stderr"):
        stream: IO[str] | None = getattr(sys, name)
        if stream is None:  # `xmr … >&-`
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
            continue
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors=_ERRORS)


def is_broken(stream: Any) -> bool:
    """Tell whether nobody reads a stream any more (`xmr … | head`), or its disk is full."""
    try:
        stream.flush()
        number = stream.fileno()
    except UnsupportedOperation:  # a test's stream has no file
        return False
    except (OSError, ValueError):
        return True
    if not hasattr(select, "poll"):  # Windows
        return False
    waiting = select.poll()
    waiting.register(number, 0)
    return any(events & select.POLLERR for _, events in waiting.poll(0))


def discard_output(stream: Any) -> None:
    """Point a broken stream at the null device, so that its flush at exit fails silently."""
    with suppress(OSError, ValueError):  # a test's stream has no file
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _escape(found: re.Match[str]) -> str:
    return ascii(found[0])[1:-1]


def _json_escape(found: re.Match[str]) -> str:
    # As UTF-16: a character beyond U+FFFF becomes two escapes.
    units = found[0].encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i]:02x}{units[i + 1]:02x}" for i in range(0, len(units), 2))


def _ascii_signs(error: UnicodeError) -> tuple[str, int]:
    """Handle characters that a stream's encoding lacks (a codec error handler)."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lost = error.object[error.start : error.end]
    return "".join(_ASCII_SIGNS.get(sign) or ascii(sign)[1:-1] for sign in lost), error.end
