"""A connection that cannot be held open for longer than a request may take.

uvicorn bounds how many connections are open, and how long one is idle between two requests. It
waits for ever for the rest of a request's head, whatever its length, and for a client that does not
read its answer, so clients that send a byte now and then could take all connections::

    client      GET /ap…      …i/se…          …                        closed after `seconds`
    timer       ├──────────────────── seconds ────────────────────┤
"""

from __future__ import annotations

import asyncio
from typing import Any, cast

from uvicorn.protocols.http.auto import AutoHTTPProtocol

_Protocol: Any = AutoHTTPProtocol

HEAD_BYTES = 64 << 10
"""Longest head of a request: its address and its headers."""

TOO_SLOW, TOO_LONG = (
    b"HTTP/1.1 %b\r\nconnection: close\r\ncontent-length: 0\r\n\r\n" % status
    for status in (b"408 Request Timeout", b"431 Request Header Fields Too Large")
)


def bounded_connection(seconds: float) -> type[asyncio.Protocol]:
    """Return uvicorn's HTTP protocol with bounds on slow clients.

    Args:
        seconds: Longest time for the head of a request to arrive, and for a client to take an
            answer that has been written. The body of a request has its own bound (``limits.py``).
    """

    class BoundedConnection(_Protocol):  # type: ignore[misc]
        """One connection."""

        def connection_made(self, transport: asyncio.Transport) -> None:
            self._head: asyncio.TimerHandle | None = None
            self._reader: asyncio.TimerHandle | None = None
            self._head_bytes = 0
            super().connection_made(transport)
            self._head = self.loop.call_later(seconds, self._refuse, TOO_SLOW)

        def data_received(self, data: bytes) -> None:
            if not self._answering():
                self._head_bytes += len(data)
                # A body may follow the head in the same part, which has 256 KiB at most.
                if self._head_bytes > HEAD_BYTES and b"\r\n\r\n" not in data[:HEAD_BYTES]:
                    self._refuse(TOO_LONG)
                    return
            super().data_received(data)
            if self._answering():  # the head is complete
                self._head, self._head_bytes = _none(self._head), 0
            elif self._head is None:
                self._head = self.loop.call_later(seconds, self._refuse, TOO_SLOW)

        def _answering(self) -> bool:
            return self.cycle is not None and not self.cycle.response_complete

        def pause_writing(self) -> None:
            super().pause_writing()
            self._reader = self.loop.call_later(seconds, self.transport.abort)

        def resume_writing(self) -> None:
            super().resume_writing()
            self._reader = _none(self._reader)

        def connection_lost(self, exc: Exception | None) -> None:
            self._head, self._reader = _none(self._head), _none(self._reader)
            super().connection_lost(exc)

        def _refuse(self, answer: bytes) -> None:
            if not self.transport.is_closing():
                self.transport.write(answer)
                self.transport.close()

    return cast(type[asyncio.Protocol], BoundedConnection)


def _none(timer: asyncio.TimerHandle | None) -> asyncio.TimerHandle | None:
    """Cancel a timer, if there is one; return None to forget it."""
    if timer is not None:
        timer.cancel()
    return None
