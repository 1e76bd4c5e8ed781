"""What the program says, in every language it speaks (English and Chinese).

Every sentence a user may read goes through :func:`tr` with its English text as the key::

    raise InputError(tr("No such file: {path}", path=path))

``locales/zh.json`` holds the Chinese for each key. ``XMR_LANG`` (``en``; ``zh`` or ``cn``) decides,
then the usual ``LC_ALL``, ``LC_MESSAGES``, ``LANG``. A key without a translation is shown in
English.
"""

from __future__ import annotations

import json
import os
from functools import cache
from importlib import resources

LANGUAGES = ("en", "zh")


@cache
def language() -> str:
    """The language in force: ``"en"`` or ``"zh"``."""
    for variable in ("XMR_LANG", "LC_ALL", "LC_MESSAGES", "LANG"):
        value = os.environ.get(variable, "")
        if value:
            return "zh" if value.lower().startswith(("zh", "cn")) else "en"
    return "en"


@cache
def catalogue(lang: str) -> dict[str, str]:
    """English text to its translation; empty for English itself."""
    if lang == "en":
        return {}
    path = resources.files("bagformer_cli") / "locales" / f"{lang}.json"
    texts: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))
    return texts


def tr(text: str, /, **values: object) -> str:
    """``text`` in the language in force, its ``{placeholders}`` filled in.

    Args:
        text: The English sentence, a literal (a test collects them from the sources).
        **values: What the placeholders stand for.
    """
    template = catalogue(language()).get(text, text)
    return template.format(**values) if values else template
