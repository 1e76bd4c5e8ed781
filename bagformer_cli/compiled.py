"""Compile loops over numpy arrays with numba, once per machine.

Import this module only where compiled loops are needed: importing numba takes half a second, and
compiling a loop takes seconds. numba keeps the machine code on disk for the next process.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from types import FunctionType
from typing import Any

import numba

from bagformer_cli.files import cache_folder

# The fast-math flags let LLVM reorder sums and maxima of floats, without which it cannot make
# vector instructions of them. "nnan" promises that no number is NaN: callers check that first.
_FAST: dict[str, Any] = {
    "boundscheck": False,
    "error_model": "numpy",
    "fastmath": {"nnan", "nsz", "reassoc", "contract"},
}


@cache
def _digest() -> str:
    """Hash every file that contains or generates a loop over vectors."""
    package = Path(__file__).parent
    sources = [Path(__file__), package / "vectors" / "decode.py"]
    sources += sorted((package / "interaction" / "kernels").rglob("*.py"))
    return digest_of(sources)


def digest_of(sources: Iterable[Path]) -> str:
    """Hash source files, for the names of the loops compiled from them.

    numba looks up its cache by the file and name of one function. It would not notice that another
    file changed, from which that function calls something or takes a constant.
    """
    return hashlib.sha256(b"".join(file.read_bytes() for file in sources)).hexdigest()[:12]


def compile_loop(function: Any) -> Any:
    """Compile a loop over vectors on its first call, and keep the machine code on disk."""
    plain = FunctionType(function.__code__, function.__globals__, function.__name__)
    return jit(plain, _digest(), **_FAST)


def jit(function: FunctionType, digest: str, **options: Any) -> Any:
    """Compile a function on its first call, and keep the machine code on disk.

    The machine code lies next to the source. If that folder cannot be written, it lies in the
    user's cache folder; if that cannot be written either, every process compiles again.

    Args:
        function: A copy that nobody else uses: its name is changed.
        digest: From :func:`digest_of`.
        **options: Further options of numba.
    """
    function.__qualname__ = f"{function.__name__}_{digest}"
    source = Path(function.__code__.co_filename).parent
    settings: Any = numba.config
    if not settings.CACHE_DIR and not os.access(source / "__pycache__", os.W_OK):
        settings.CACHE_DIR = str(cache_folder() / "numba")
    try:
        return numba.njit(cache=True, nogil=True, **options)(function)
    except RuntimeError:  # numba found no folder that it can write to
        return numba.njit(nogil=True, **options)(function)
