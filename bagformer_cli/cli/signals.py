"""End a command on SIGTERM and SIGHUP as on Ctrl-C: it cleans up, and says so."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

# SIGTERM comes from `docker stop`, Slurm and a shutdown, SIGHUP from a terminal that is closed.
# Windows has no SIGHUP.
_SIGNALS = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]


class StopSignal(KeyboardInterrupt):
    """A signal asks the process to end.

    A class of our own, because Python remembers a plain ``KeyboardInterrupt`` that passed through
    ``exec`` (every dataclass is made by it). At exit, ``python -m`` then ends itself by SIGINT,
    although the command returned its exit code.
    """


@contextmanager
def signals_interrupt() -> Iterator[None]:
    """Raise :class:`StopSignal` in the block for a signal that asks the process to end.

    Python itself would end at once: temporary files and workers would stay. A signal that is
    ignored (``nohup`` ignores SIGHUP), or that a program around this one handles, stays so. A
    training has its own handlers, which save it first (``training/interrupt.py``).
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # Python allows no handlers here
        return
    handled = [one for one in _SIGNALS if signal.getsignal(one) == signal.SIG_DFL]
    for number in handled:
        signal.signal(number, _interrupt)
    try:
        yield
    finally:
        for number in handled:
            signal.signal(number, signal.SIG_DFL)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise StopSignal
