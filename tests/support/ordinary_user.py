"""Let a test that root runs meet the permissions of files, as other users do."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_VERSION_3 = 0x20080522
_DAC_OVERRIDE, _DAC_READ_SEARCH = 1, 2  # the capabilities by which root ignores permissions


@contextmanager
def permissions_count() -> Iterator[None]:
    """Inside, this thread cannot read or write what the permissions of a file forbid.

    Root loses two capabilities for the time of the block (``capget(2)``). Other users are refused
    anyway.
    """
    if sys.platform != "linux" or os.geteuid() != 0:
        yield
        return
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(_VERSION_3, 0)
    before = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable; then their upper halves
    if libc.capget(header, before):
        raise OSError(ctypes.get_errno(), "capget")
    without = (ctypes.c_uint32 * 6)(*before)
    without[0] &= ~(1 << _DAC_OVERRIDE | 1 << _DAC_READ_SEARCH)
    _set(libc, header, without)
    try:
        yield
    finally:
        _set(libc, header, before)


def _set(libc: ctypes.CDLL, header: ctypes.Array[ctypes.c_uint32], sets: object) -> None:
    if libc.capset(header, sets):
        raise OSError(ctypes.get_errno(), "capset")
