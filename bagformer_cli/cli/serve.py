"""``xmr serve``: a search service over an index."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bagformer_cli.cli import bars, console
from bagformer_cli.cli.app import App, Debug, Json
from bagformer_cli.cli.index import warn_incomplete
from bagformer_cli.cli.options import Device, IndexModel, Runtime, SearchedIndex, Trust
from bagformer_cli.errors import InputError, MissingDependencyError
from bagformer_cli.messages import tr

if TYPE_CHECKING:
    pass

app = App()

API_KEY = "XMR_API_KEY"
LOCAL = ("127.0.0.1", "localhost", "::1")


@app.command(
    help=tr(
        "Serve a search page and a JSON API over an index.\n\n"
        "    xmr serve\n\n"
        "    xmr serve --index index/ --host 0.0.0.0 --port 8000\n\n"
        "The page is at /, the API under /api/, its description at /openapi.json, metrics for "
        "Prometheus at /metrics. With the environment variable XMR_API_KEY set, requests need that "
        "key in the header X-API-Key. Ctrl-C or SIGTERM answers running requests, then stops."
    )
)
def serve(
    index: SearchedIndex = None,
    host: Annotated[
        str, typer.Option(help=tr("Address to listen on; 0.0.0.0: all networks."))
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help=tr("Port; 0: a free one."))] = 8000,
    max_upload: Annotated[
        int, typer.Option(min=1, help=tr("Largest image that is accepted, in MB."))
    ] = 10,
    timeout: Annotated[
        float, typer.Option(min=0.1, help=tr("Longest time for a request, in seconds."))
    ] = 20.0,
    rate: Annotated[
        float,
        typer.Option(
            min=0, help=tr("Requests per second and client address that are served; 0: no limit.")
        ),
    ] = 0.0,
    batch: Annotated[
        int, typer.Option(min=1, help=tr("Waiting searches that are run together at most."))
    ] = 32,
    checkpoint: IndexModel = None,
    runtime: Runtime = "torch",
    trust: Trust = False,
    device: Device = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Open the index, then serve until the process is stopped."""
    _require_packages()
    from bagformer_cli.index.engines import find_index
    from bagformer_cli.index.search import Index
    from bagformer_cli.serve.run import listen, run
    from bagformer_cli.serve.service import SearchService
    from bagformer_cli.serve.settings import ServiceLimits

    limits = ServiceLimits(upload_bytes=max_upload << 20, seconds=timeout, rate=rate, batch=batch)
    index = index or find_index()
    with bars.progress() as progress:
        opened = Index.open(
            index, checkpoint, device=device, runtime=runtime, trust=trust, progress=progress
        )
        if opened.engine.incomplete:
            warn_incomplete(index)
        if not opened.engine.count():
            hint = tr("`{command}` shows what it holds.", command=f"xmr index info {index}")
            raise InputError(tr("The index is empty."), where=index, hint=hint)
        _warm(opened)
    socket = listen(host, port)
    key = os.environ.get(API_KEY) or None
    if host not in LOCAL and key is None:
        console.warn(
            tr(
                "Anybody who reaches {host} can search. Set {variable} to require a key.",
                host=host,
                variable=API_KEY,
            )
        )
    address = f"http://{host if host != '0.0.0.0' else '127.0.0.1'}:{socket.getsockname()[1]}"
    report = {"index": index, "address": address, "products": opened.engine.count()}
    console.result(
        report,
        lambda: console.info(
            tr("Serving {index} at {address}. Ctrl-C stops.", index=index, address=address)
        ),
    )
    sys.stdout.flush()  # a program that started this one waits for the address
    run(SearchService(opened, limits), socket, key)


def _require_packages() -> None:
    try:
        import fastapi  # noqa: F401
        import prometheus_client  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError(
            tr("The packages of the service are not installed."),
            found=error.name,
            hint="pip install 'bagformer-cli[serve]'",
        ) from error


def _warm(opened: Any) -> None:
    """Search once, so that the first visitor does not wait for caches to be filled."""
    from bagformer_cli.index.search import SearchOptions

    for side in opened.engine.layout.sides:
        opened.search_many(["红色连衣裙"], SearchOptions(k=1, of=side))
