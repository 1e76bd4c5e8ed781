"""The inner loops over code points, as they are or compiled.

They are plain Python over numpy arrays, written in the subset that numba compiles. :func:`kernels`
hands them out as they are for a few titles (nothing to load) and compiled for many: one source, so
both give the same answer. Names in capitals are compile-time constants.
"""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path
from types import FunctionType, SimpleNamespace
from typing import Any

from bagformer_cli.text import alignment, characters, cover, patterns, wordpiece
from bagformer_cli.text import automaton as trie

COMPILE_FROM = 5000
"""So many titles in one call are worth loading the compiled kernels for."""

_MODULES = (characters, trie, wordpiece, patterns, cover, alignment)

_KERNELS = (
    trie.child,
    wordpiece.wordpiece,
    patterns.run_end,
    patterns.number_end,
    patterns.unit_end,
    patterns.fraction_end,
    patterns.pluses_end,
    patterns.count_end,
    patterns.counted_end,
    patterns.offer_end,
    patterns.size_end,
    patterns.sizes_end,
    patterns.words,
    patterns.thread_end,
    patterns.amounts,
    patterns.scan,
    patterns.glued,
    cover.relax,
    cover.cover,
    alignment.assemble,
    alignment.align,
)
"""Each after those it calls."""

_PLAIN = SimpleNamespace(**{kernel.__name__: kernel for kernel in _KERNELS})


def kernels(titles: int) -> Any:
    """The kernels by name for a call over ``titles`` titles: compiled where that pays."""
    if titles >= COMPILE_FROM or _compiled.cache_info().currsize:
        return _compiled()
    return _PLAIN


@cache
def _compiled() -> SimpleNamespace:
    import numba

    # numba keeps what it compiled by file and name of the function alone: without the digest it
    # would not see that a function which is called, or a constant, changed in another file.
    sources = b"".join(Path(module.__file__ or "").read_bytes() for module in _MODULES)
    digest = hashlib.sha256(sources).hexdigest()[:12]
    scope = {name: value for module in _MODULES for name, value in vars(module).items()}
    for kernel in _KERNELS:
        plain = FunctionType(kernel.__code__, scope, kernel.__name__)
        plain.__qualname__ = f"{kernel.__name__}_{digest}"
        scope[kernel.__name__] = numba.njit(cache=True, nogil=True)(plain)
    return SimpleNamespace(**{kernel.__name__: scope[kernel.__name__] for kernel in _KERNELS})
