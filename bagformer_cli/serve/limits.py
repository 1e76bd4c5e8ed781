"""Bounds on request bodies and on the rate of requests, as ASGI middleware."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bagformer_cli.messages import tr
from bagformer_cli.serve.refusals import refusal

CLIENTS = 10_000
"""Client addresses that the rate limit remembers."""


class _TooLargeError(Exception):
    pass


class _TooSlowError(Exception):
    pass


class BodyLimit:
    """Refuses bodies that are too large (413) or arrive too slowly (408).

    Args:
        app: The application.
        most_bytes: Largest body.
        seconds: Time for the whole body to arrive.
    """

    def __init__(self, app: ASGIApp, most_bytes: int, seconds: float) -> None:
        self.app, self.most_bytes, self.seconds = app, most_bytes, seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        length = dict(scope["headers"]).get(b"content-length", b"0")
        if not length.isdigit() or int(length) > self.most_bytes:
            await self._refuse(413, tr("The upload is too large."))(scope, receive, send)
            return
        deadline = time.monotonic() + self.seconds
        taken, complete = 0, False

        async def bounded() -> Message:
            nonlocal taken, complete
            if complete:  # only the end of the connection can follow
                return await receive()
            try:
                message = await asyncio.wait_for(receive(), max(0.0, deadline - time.monotonic()))
            except TimeoutError:
                raise _TooSlowError from None
            taken += len(message.get("body", b""))
            complete = not message.get("more_body", False)
            if taken > self.most_bytes:
                raise _TooLargeError
            return message

        try:
            await self.app(scope, bounded, send)
        except _TooLargeError:
            await self._refuse(413, tr("The upload is too large."))(scope, receive, send)
        except _TooSlowError:
            await self._refuse(408, tr("The upload took too long."))(scope, receive, send)

    def _refuse(self, status: int, message: str) -> JSONResponse:
        most = tr("at most {n} bytes", n=f"{self.most_bytes:,}") if status == 413 else None
        return refusal(status, message, expected=most, headers={"connection": "close"})


class RateLimit:
    """A token bucket for each client address.

    Args:
        rate: Requests per second; a bucket holds four seconds' worth.
    """

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def allows(self, client: str, now: float) -> bool:
        """Say whether a client may make a request now, in seconds; it is counted if so.

        >>> limit = RateLimit(1.0)
        >>> [limit.allows("a", 0.0) for _ in range(5)], limit.allows("a", 1.0)
        ([True, True, True, True, False], True)
        """
        if self.rate <= 0:
            return True
        tokens, before = self._buckets.pop(client, (4 * self.rate, now))
        tokens = min(4 * self.rate, tokens + (now - before) * self.rate)
        allowed = tokens >= 1
        self._buckets[client] = (tokens - 1 if allowed else tokens, now)
        if len(self._buckets) > CLIENTS:
            self._buckets.popitem(last=False)
        return allowed
