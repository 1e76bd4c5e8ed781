"""Image-title retrieval for Chinese e-commerce: the ``xmr`` command and its Python interface.

Importing the package is cheap: :func:`load` and :class:`Retriever` (``api.py``), which need torch,
are imported at their first use.
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
