"""xmr: image-title retrieval for Chinese e-commerce.

The package imports nothing heavy by itself: :func:`load` and :class:`Retriever` (the Python face,
``api.py``) are brought in when they are first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from bagformer_cli.api import Retriever, load

__all__ = ["Retriever", "__version__", "load"]


def __getattr__(name: str) -> Any:
    if name in {"Retriever", "load"}:
        from bagformer_cli import api

        return getattr(api, name)
    raise AttributeError(f"module 'bagformer_cli' has no attribute {name!r}")
