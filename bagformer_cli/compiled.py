"""Compile numba loops once per machine, with a cache that notices every changed source file.

Imported where compiled loops are first needed: importing numba takes half a second, compiling a
few more (numba keeps the result on disk).
"""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path
from types import FunctionType
from typing import Any

import numba

# Without the fast-math flags LLVM may neither turn a running maximum of floats into vector
# instructions nor sum in lanes. Callers keep non-finite input away from these loops.
_OPTIONS: dict[str, Any] = {
    "nogil": True,
    "cache": True,
    "boundscheck": False,
    "error_model": "numpy",
    "fastmath": {"nnan", "nsz", "reassoc", "contract"},
}


@cache
def _digest() -> str:
    """Hash every file that contains or generates a compiled loop.

    numba caches machine code under the file and name of one function. It would not notice that a
    function called from there changed in another file.
    """
    package = Path(__file__).parent
    sources = [*(package / "interaction" / "kernels").rglob("*.py"), package / "vectors/decode.py"]
    return hashlib.sha256(b"".join(file.read_bytes() for file in sorted(sources))).hexdigest()[:12]


def compile_loop(function: Any) -> Any:
    """Compile a loop over numpy arrays; without a writable cache folder, for this process only."""
    plain = FunctionType(function.__code__, function.__globals__, function.__name__)
    plain.__qualname__ = f"{function.__name__}_{_digest()}"
    try:
        return numba.njit(**_OPTIONS)(plain)
    except RuntimeError:  # no folder in which numba could keep compiled code
        return numba.njit(**(_OPTIONS | {"cache": False}))(plain)
