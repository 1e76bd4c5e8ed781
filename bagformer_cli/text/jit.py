"""The kernels over code points, as plain Python or compiled by numba.

Kernels are loops written in the subset of Python that numba compiles. :func:`kernels` returns them
as they are for a few titles, where loading the compiled ones would take longest, and compiled for
many. There is one source, so both give the same answer.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import FunctionType, ModuleType, SimpleNamespace
from typing import Any

from bagformer_cli.text import (
    alignment,
    automaton,
    boundary_features,
    characters,
    cover,
    cover_arrays,
    patterns,
    wordpiece,
)

COMPILE_FROM = 5000
"""Titles in one call from which the compiled kernels are loaded. Loading takes about as long as
cutting that many titles in Python."""

CHARACTERS_A_TITLE = 40
"""Characters that cost as much as a title."""

_MODULES = (automaton, wordpiece, patterns, cover, boundary_features, alignment)
"""Every public function of these modules is a kernel. Each module comes after those that it
imports, and each function after those that it calls."""


def kernels(titles: int, characters: int = 0) -> Any:
    """Return all kernels by name, for a call over some titles.

    Args:
        titles: Number of titles.
        characters: Number of their characters, all together.

    They are compiled for many titles or characters, and once they have been loaded.
    """
    many = titles >= COMPILE_FROM or characters >= CHARACTERS_A_TITLE * COMPILE_FROM
    if many or _compiled.cache_info().currsize:
        return _compiled()
    return _PLAIN


def _functions(module: ModuleType) -> Iterator[FunctionType]:
    for name, value in vars(module).items():
        own = isinstance(value, FunctionType) and value.__module__ == module.__name__
        if own and not name.startswith("_"):
            yield value


_PLAIN = SimpleNamespace(**{f.__name__: f for module in _MODULES for f in _functions(module)})


@cache
def _compiled() -> SimpleNamespace:
    from bagformer_cli.compiled import digest_of, jit

    files = [Path(module.__file__ or "") for module in (characters, cover_arrays, *_MODULES)]
    digest = digest_of(files)
    compiled: dict[Any, Any] = {}
    for module in _MODULES:
        scope = {
            name: compiled.get(value, value) if isinstance(value, FunctionType) else value
            for name, value in vars(module).items()
        }
        for kernel in _functions(module):
            plain = FunctionType(kernel.__code__, scope, kernel.__name__)
            scope[kernel.__name__] = jit(plain, digest)
            compiled[kernel] = scope[kernel.__name__]
    return SimpleNamespace(**{kernel.__name__: function for kernel, function in compiled.items()})
