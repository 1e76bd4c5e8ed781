"""Messages in the user's language: English in the sources, Chinese from a gettext catalogue.

Every sentence a user may read goes through :func:`tr`, with its English text as the key::

    raise InputError(tr("No such file: {path}", path=path))

The translations are in ``locales/zh/LC_MESSAGES/xmr.po``. Installing the package compiles that
file to ``xmr.mo``; in a checkout a newer ``xmr.po`` is compiled in memory, so that an edit shows
at once.

``XMR_LANG`` (``en``; ``zh`` or ``cn``) chooses the language of the process, otherwise ``LC_ALL``,
``LC_MESSAGES`` or ``LANG`` does. The service answers each request in the language that the request
prefers: :func:`in_language` sets it for one thread or task. A message without a translation is
shown in English.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from gettext import GNUTranslations, NullTranslations
from io import BytesIO
from pathlib import Path

LOCALES = Path(__file__).with_name("locales")


_requested: ContextVar[str | None] = ContextVar("requested_language", default=None)


def language() -> str:
    """Return the language of messages made here and now: ``"en"`` or ``"zh"``."""
    return _requested.get() or process_language()


@contextmanager
def in_language(requested: str | None) -> Iterator[None]:
    """Make messages in a language while the block runs.

    Only the running thread or asyncio task is affected, and those that get a copy of its context
    (:mod:`contextvars`): tasks that it creates, ``asyncio.to_thread``, FastAPI's thread pool.

    Args:
        requested: ``"en"`` or ``"zh"``; None: the language of the process.
    """
    before = _requested.set(requested)
    try:
        yield
    finally:
        _requested.reset(before)


@cache
def process_language() -> str:
    """Return the language that the environment chooses: ``"en"`` or ``"zh"``."""
    for variable in ("XMR_LANG", "LC_ALL", "LC_MESSAGES", "LANG"):
        value = os.environ.get(variable, "")
        if value:
            return "zh" if value.lower().startswith(("zh", "cn")) else "en"
    return "en"


@cache
def catalogue(lang: str) -> NullTranslations:
    """Load the translations of a language; without a catalogue every message stays English."""
    folder = LOCALES / lang / "LC_MESSAGES"
    source, compiled = folder / "xmr.po", folder / "xmr.mo"
    if source.is_file() and not _is_newer(compiled, source):
        edited = _compile(source)
        if edited is not None:
            return edited
    if compiled.is_file():
        with compiled.open("rb") as file:
            return GNUTranslations(file)
    return NullTranslations()


def _is_newer(file: Path, source: Path) -> bool:
    return file.is_file() and file.stat().st_mtime >= source.stat().st_mtime


def _compile(source: Path) -> GNUTranslations | None:
    """Compile a ``.po`` file in memory; None where Babel (a development tool) is not installed."""
    try:
        from babel.messages.mofile import write_mo
        from babel.messages.pofile import read_po
    except ImportError:
        return None
    compiled = BytesIO()
    with source.open("rb") as file:
        write_mo(compiled, read_po(file))
    compiled.seek(0)
    return GNUTranslations(compiled)


def tr(text: str, /, **values: object) -> str:
    """Translate ``text`` and fill in its ``{placeholders}``.

    Args:
        text: The English message, a literal (the catalogue is extracted from the sources).
        **values: One value for each placeholder.
    """
    template = catalogue(language()).gettext(text)
    return template.format(**values) if values else template


def translated(text: str) -> str:
    """Translate a text that is kept elsewhere than in a call of :func:`tr`.

    Args:
        text: The docstring of a setting or the heading of a built-in configuration, on one line.
            ``tests/support/sources.py`` collects them for the catalogue.
    """
    return catalogue(language()).gettext(text) if text else ""
