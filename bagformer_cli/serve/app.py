"""The HTTP application: routes, errors, metrics, log.

::

    GET  /                     the page
    GET  /api/index            what the index holds
    GET  /api/search?q=…       search by a title
    POST /api/search           search by an image, the body, and with q=… by both
    GET  /api/bags?q=…         the bags of a title
    GET  /api/explain?q=…&id=  the score of a title and a product, bag by bag
    GET  /healthz /readyz /metrics

Thumbnails come out of the index, inside the answers: no route takes a path or reads a file by name.
"""

from __future__ import annotations

import asyncio
import hmac
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from anyio import CapacityLimiter
from anyio.to_thread import run_sync
from fastapi import Depends, FastAPI, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from bagformer_cli import __version__
from bagformer_cli.errors import InputError, XmrError
from bagformer_cli.index.arrange import DEPTH, Arrangement
from bagformer_cli.index.combined import WEIGHT
from bagformer_cli.index.ranking import Fusion
from bagformer_cli.index.search_options import SearchOptions
from bagformer_cli.messages import tr
from bagformer_cli.serve.answers import page_json
from bagformer_cli.serve.batcher import TooBusyError
from bagformer_cli.serve.language import RequestLanguage
from bagformer_cli.serve.limits import BodyLimit, RateLimit
from bagformer_cli.serve.measurements import Measurements, log_request
from bagformer_cli.serve.page import content_policy, page
from bagformer_cli.serve.refusals import of_error, of_parameter, refusal
from bagformer_cli.serve.service import SearchService
from bagformer_cli.serve.shards import Query as SearchQuery

OPEN = ("/", "/healthz", "/readyz")
"""Routes that need no key."""

SOON = {"Retry-After": "1"}
"""Header of refusals that will soon pass, in seconds."""


@dataclass(frozen=True)
class SearchParameters:
    """The parameters of a search apart from its query.

    Args:
        of: Compare the query with the products' images or titles.
        k: Results of the page.
        first: Results before the page.
        where: A filter, in SQL.
        sort: An attribute to sort by, with a ``-`` before it from large to small.
        thumbnails: Whether results have their thumbnails.
        fusion: Whether a title's words are searched for as well (BM25), and how both are fused.
    """

    of: Literal["images", "titles"] = "images"
    k: Annotated[int, Query(ge=1, le=DEPTH)] = 24
    first: Annotated[int, Query(ge=0, lt=DEPTH)] = 0
    where: Annotated[str | None, Query(max_length=2000)] = None
    sort: Annotated[str | None, Query(max_length=200)] = None
    thumbnails: bool = False
    fusion: Fusion = "none"

    def options(self) -> SearchOptions:
        """Return them as options of a search: pages and facets are about the best results."""
        return SearchOptions(
            k=min(self.k, DEPTH - self.first),
            where=self.where or None,
            of="title" if self.of == "titles" else "image",
            thumbnails=self.thumbnails,
            fusion=self.fusion,
            arrangement=Arrangement(sort=self.sort or None, offset=self.first, facets=True),
        )


def create_app(service: SearchService, api_key: str | None = None) -> FastAPI:
    """Make the application.

    Args:
        service: The open index.
        api_key: Key that requests must have in the header ``X-API-Key``; None: none is needed.
    """
    ready = {"now": False}

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        ready["now"] = True
        yield
        ready["now"] = False
        await run_in_threadpool(service.close)

    # FastAPI's own documentation page loads scripts from another server.
    app = FastAPI(
        title="xmr", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None
    )
    measurements = Measurements(service)
    _add_middleware(app, service, measurements, api_key)
    _add_error_handlers(app)
    _add_search_routes(app, service)

    @app.get("/", response_class=HTMLResponse, include_in_schema=False)
    async def show_page() -> HTMLResponse:
        return HTMLResponse(page(), headers={"Content-Security-Policy": content_policy()})

    @app.get("/healthz")
    async def healthy() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/readyz")
    async def is_ready() -> JSONResponse:
        return JSONResponse({"ready": ready["now"]}, 200 if ready["now"] else 503)

    @app.get("/metrics", include_in_schema=False)
    async def metrics() -> Response:
        return measurements.response()

    @app.get("/api/index")
    async def index() -> dict[str, Any]:
        return await run_in_threadpool(service.describe)

    @app.get("/api/bags")
    async def bags(q: str) -> list[dict[str, Any]]:
        return await run_in_threadpool(service.bags, q)

    @app.get("/api/explain")
    async def explain(q: str, id: str) -> dict[str, Any]:  # noqa: A002
        return await run_in_threadpool(service.explain, q, id)

    return app


def _add_middleware(
    app: FastAPI, service: SearchService, measurements: Measurements, api_key: str | None
) -> None:
    """Add what surrounds every request; the one that is added last is the outermost."""
    limits = service.limits
    rate = RateLimit(limits.rate)

    app.add_middleware(BodyLimit, most_bytes=limits.upload_bytes, seconds=limits.seconds)

    @app.middleware("http")  # around the other one: it counts what that refuses, too
    async def guard(
        request: Request, call_next: Callable[[Request], Awaitable[Response]]
    ) -> Response:
        started = time.perf_counter()
        route = request.url.path
        client = request.client.host if request.client else "-"
        if route not in OPEN and not _has_key(request, api_key):
            response: Response = refusal(401, tr("This service needs a key."), expected="X-API-Key")
        elif route.startswith("/api/") and not rate.allows(client, time.monotonic()):
            response = refusal(429, tr("Too many requests."), headers=SOON)
        else:
            response = await call_next(request)
        seconds = time.perf_counter() - started
        measurements.add(request, response.status_code, seconds)
        log_request(request, client, response.status_code, seconds)
        response.headers["X-Content-Type-Options"] = "nosniff"
        return response

    app.add_middleware(RequestLanguage)  # around both: they refuse in the request's language


def _add_error_handlers(app: FastAPI) -> None:
    """Turn exceptions of the routes into answers."""

    @app.exception_handler(XmrError)
    async def wrong(_: Request, error: XmrError) -> JSONResponse:
        return of_error(error)

    @app.exception_handler(TooBusyError)
    async def busy(_: Request, __: TooBusyError) -> JSONResponse:
        return refusal(503, tr("The service is busy."), headers=SOON)

    @app.exception_handler(TimeoutError)
    async def slow(_: Request, __: TimeoutError) -> JSONResponse:
        return refusal(503, tr("The search took too long."), headers=SOON)

    @app.exception_handler(ClientDisconnect)
    async def gone(_: Request, __: ClientDisconnect) -> Response:
        return Response(status_code=499)  # nobody reads it; the log and the metrics count it

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        return of_parameter(error.errors()[0])

    @app.exception_handler(HTTPException)
    async def unserved(request: Request, error: HTTPException) -> JSONResponse:
        known = error.status_code in (404, 405)
        message = tr("The service has no such route.") if known else str(error.detail)
        found = f"{request.method} {request.url.path}" if known else None
        return refusal(error.status_code, message, found=found, headers=error.headers)


def _add_search_routes(app: FastAPI, service: SearchService) -> None:
    """Add the two routes of ``/api/search``, which search in the same way."""
    limits = service.limits
    decoders = CapacityLimiter(limits.decoders)

    async def answer(query: SearchQuery, parameters: SearchParameters) -> dict[str, Any]:
        started = time.perf_counter()
        async with asyncio.timeout(limits.seconds):
            if query.image is not None:
                image = await run_sync(service.prepare, query.image, limiter=decoders)
                query = query._replace(image=image)
            waiting = await run_in_threadpool(service.search, query, parameters.options())
            results = await asyncio.wrap_future(waiting)
        found = page_json(results, parameters.first)
        found["seconds"] = round(time.perf_counter() - started, 4)
        return found

    @app.get("/api/search")
    async def search_by_title(
        q: Annotated[str, Query(description="The title.")],
        parameters: Annotated[SearchParameters, Depends()],
    ) -> dict[str, Any]:
        return await answer(SearchQuery(q), parameters)

    @app.post("/api/search")
    async def search_by_image(
        request: Request,
        parameters: Annotated[SearchParameters, Depends()],
        q: Annotated[str | None, Query(description="A title that counts as well.")] = None,
        weight: Annotated[
            float, Query(ge=0, le=1, description="With a title: share of the image in the score.")
        ] = WEIGHT,
    ) -> dict[str, Any]:
        query = SearchQuery(q or None, await _image_of(request), weight)
        return await answer(query, parameters)


async def _image_of(request: Request) -> bytes:
    """Read an image that is the body of a request.

    Raises:
        InputError: It is a field of a form (``curl --form``).
    """
    if request.headers.get("content-type", "").startswith("multipart/form-data"):
        raise InputError(
            tr("The body of the request is a form, not an image."),
            expected=tr("the bytes of the image file alone"),
            hint=tr("curl sends it by --data-binary @photo.jpg."),
        )
    return await request.body()


def _has_key(request: Request, api_key: str | None) -> bool:
    given = request.headers.get("x-api-key", "")
    return api_key is None or hmac.compare_digest(given.encode(), api_key.encode())
