"""Answer each request in the language that it prefers.

One place chooses: this middleware, the outermost one, sets the language of messages
(:func:`~bagformer_cli.messages.in_language`) for all that happens while a request is answered.
Tasks and threads that FastAPI starts for it inherit the choice. Two places carry it further:
``batcher.py`` to the thread that searches, ``cluster.py`` to another process.
"""

from __future__ import annotations

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bagformer_cli.messages import in_language, language

LANGUAGES = ("en", "zh")

MOST_RANGES = 20
"""Ranges of a header that are read; browsers send at most ten."""


class RequestLanguage:
    """Sets the language of messages by the header ``Accept-Language``.

    A request without the header, or that prefers no language of :data:`LANGUAGES`, is answered in
    the language of the process.

    Args:
        app: The application.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def labelled(message: Message) -> None:
            if message["type"] == "http.response.start" and scope["path"].startswith("/api/"):
                headers = MutableHeaders(scope=message)
                headers["Content-Language"] = language()
                headers.add_vary_header("Accept-Language")  # for caches of a proxy
            await send(message)

        with in_language(preferred(Headers(scope=scope).get("accept-language", ""))):
            await self.app(scope, receive, labelled)


def preferred(accepted: str) -> str | None:
    """Return the language that a header ``Accept-Language`` prefers; None: none that is known.

    >>> preferred("zh-CN,zh;q=0.9,en;q=0.8"), preferred("de, en;q=0.7, zh;q=0.3"), preferred("fr")
    ('zh', 'en', None)
    """
    weights: dict[str, float] = {}
    for part in accepted.lower().split(",")[:MOST_RANGES]:
        tag, *parameters = (text.strip() for text in part.split(";"))
        name = tag.split("-")[0]
        if name in LANGUAGES:
            weights[name] = max(weights.get(name, 0.0), _weight(parameters))
    best = max(weights, key=weights.__getitem__, default=None)  # the first of equal ones
    return best if best is not None and weights[best] > 0 else None


def _weight(parameters: list[str]) -> float:
    """Return the weight of a range, 0 to 1: ``q=0.8``; 0 where it is not a number."""
    for parameter in parameters:
        if parameter.startswith("q="):
            text = parameter[2:].strip()
            known = text.replace(".", "", 1).isdecimal() and text.isascii()
            return min(1.0, float(text)) if known else 0.0
    return 1.0
