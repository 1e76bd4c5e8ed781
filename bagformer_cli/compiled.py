"""Compile loops over numpy arrays with numba, once per machine.

Import this module only where compiled loops are needed: importing numba takes half a second, and
compiling a loop takes seconds. numba keeps the machine code on disk for the next process.
"""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path
from types import FunctionType
from typing import Any

import numba

# The fast-math flags let LLVM reorder sums and maxima of floats, without which it cannot make
# vector instructions of them. "nnan" promises that no number is NaN: callers check that first.
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

    numba looks up its cache by the file and name of one function. It would not notice that another
    file changed, from which that function calls something.
    """
    package = Path(__file__).parent
    sources = [Path(__file__), package / "vectors" / "decode.py"]
    sources += sorted((package / "interaction" / "kernels").rglob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in sources)).hexdigest()[:12]


def compile_loop(function: Any) -> Any:
    """Compile a function on its first call, and keep the machine code on disk.

    Without a writable cache folder the code is compiled again in every process.
    """
    plain = FunctionType(function.__code__, function.__globals__, function.__name__)
    plain.__qualname__ = f"{function.__name__}_{_digest()}"
    try:
        return numba.njit(**_OPTIONS)(plain)
    except RuntimeError:  # numba found no folder that it can write to
        return numba.njit(**(_OPTIONS | {"cache": False}))(plain)
