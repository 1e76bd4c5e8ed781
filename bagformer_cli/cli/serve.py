"""``xmr serve``: a search service over an index."""

from __future__ import annotations

import os
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import typer

from bagformer_cli.cli import bars, console
from bagformer_cli.cli.app import App, Debug, Json
from bagformer_cli.cli.index_view import warn_incomplete
from bagformer_cli.cli.options import Device, IndexModel, RayAddress, Runtime, Trust
from bagformer_cli.errors import InputError, MissingDependencyError
from bagformer_cli.messages import tr

if TYPE_CHECKING:
    from bagformer_cli.index.search import Index
    from bagformer_cli.serve.settings import ServiceLimits

app = App()

API_KEY = "XMR_API_KEY"
LOCAL = ("127.0.0.1", "localhost", "::1")


@app.command(
    needs={
        "--address": ["--engine ray"],
        "--replicas": ["--engine ray"],
        "--max-replicas": ["--engine ray"],
    },
    help=tr(
        "Serve a search page and a JSON API over an index.\n\n"
        "    xmr serve\n\n"
        "    xmr serve --index index/ --host 0.0.0.0 --port 8000\n\n"
        "    xmr serve --index s3://shop/0 --index s3://shop/1 --engine ray --replicas 2\n\n"
        "The page is at /, the API under /api/, its description at /openapi.json, metrics for "
        "Prometheus at /metrics. With the environment variable XMR_API_KEY set, requests need that "
        "key in the header X-API-Key. Ctrl-C or SIGTERM answers running requests, then stops with "
        "exit code 0.\n\n"
        "Several indexes of one model are searched as one: shards of a catalogue that does not fit "
        "one machine. --engine ray runs the same service on the nodes of a Ray cluster."
    ),
)
def serve(
    index: Annotated[
        list[str] | None,
        typer.Option(
            help=tr(
                "A folder, s3://bucket/path, or qdrant://host:6333/collection; may be repeated: "
                "shards that are searched as one index. Default: index/, or the index of the "
                "newest run."
            ),
            show_default=False,
        ),
    ] = None,
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
    engine: Annotated[
        Literal["local", "ray"],
        typer.Option(help=tr("Serve from this process, or from replicas on a Ray cluster.")),
    ] = "local",
    address: RayAddress = None,
    replicas: Annotated[
        int,
        typer.Option(
            min=1,
            help=tr("Ray: replicas of each shard that always run; 2 or more survive a node."),
        ),
    ] = 1,
    max_replicas: Annotated[
        int, typer.Option(min=1, help=tr("Ray: replicas of each shard under load."))
    ] = 4,
    checkpoint: IndexModel = None,
    runtime: Runtime = "torch",
    trust: Trust = False,
    device: Device = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Open the index, then serve until the process is stopped."""
    if max_replicas < replicas:
        raise InputError(
            tr("--max-replicas is smaller than --replicas."),
            found=f"{max_replicas} < {replicas}",
            hint=tr("Pass --max-replicas {n} or more.", n=replicas),
        )
    _require_packages(engine)
    from bagformer_cli.index.engines import find_index
    from bagformer_cli.index.search import Index
    from bagformer_cli.serve.settings import ServiceLimits
    from bagformer_cli.serve.shards import open_shard, require_same_layout

    limits = ServiceLimits(upload_bytes=max_upload << 20, seconds=timeout, rate=rate, batch=batch)
    uris = index or [find_index()]
    with bars.progress() as progress:
        opened = Index.open(
            uris[0], checkpoint, device=device, runtime=runtime, trust=trust, progress=progress
        )
        require_same_layout(opened, uris[1:])
        others = [open_shard(uri) for uri in uris[1:]]
        products = 0
        for uri, one in zip(uris, (opened, *(other.index for other in others)), strict=True):
            if one.engine.incomplete:
                warn_incomplete(uri)
            products += one.engine.count()
        if not products:
            hint = tr("`{command}` shows what it holds.", command=f"xmr index info {uris[0]}")
            raise InputError(tr("The index is empty."), where=uris[0], hint=hint)
    _warn_of_strangers(host)
    report = {"index": uris[0], "shards": uris, "products": products}
    if engine == "ray":
        replica = _Replica(uris, opened, checkpoint, limits, runtime, device)
        _serve_on_ray(replica, report, address, host, port, (replicas, max_replicas))
    else:
        _serve_here(opened, others, limits, report, host, port)


def _serve_here(
    opened: Index,
    others: list[Any],
    limits: ServiceLimits,
    report: dict[str, Any],
    host: str,
    port: int,
) -> None:
    """Serve from this process until it is stopped."""
    from bagformer_cli.serve.run import listen, run
    from bagformer_cli.serve.service import SearchService
    from bagformer_cli.serve.shards import LocalShard

    with bars.progress():
        _warm(opened)
    socket = listen(host, port)
    _announce(report, host, socket.getsockname()[1])
    shards = [LocalShard(opened), *others]
    run(SearchService(opened, limits, shards), socket, os.environ.get(API_KEY) or None)


class _Replica(NamedTuple):
    """The index and the model that every replica on Ray opens."""

    uris: list[str]
    opened: Index
    checkpoint: Path | None
    limits: ServiceLimits
    runtime: Literal["torch", "onnx"]
    device: str | None


def _serve_on_ray(
    replica: _Replica,
    report: dict[str, Any],
    address: str | None,
    host: str,
    port: int,
    replicas: tuple[int, int],
) -> None:
    """Serve from replicas on a Ray cluster until this process is stopped."""
    from bagformer_cli.index.model_of_index import model_folder
    from bagformer_cli.serve import cluster

    # Replicas run in other folders: only the trust and the relative paths of this process count.
    folder = model_folder(replica.opened.engine, replica.checkpoint, trust=True)
    served = cluster.ServedIndex(
        tuple(uri if "://" in uri else str(Path(uri).resolve()) for uri in replica.uris),
        str(folder.resolve()),
        replica.limits,
        replica.runtime,
        replica.device,
        os.environ.get(API_KEY) or None,
    )
    with bars.progress() as progress:
        progress.info(tr("Starting replicas on Ray …"))
        cluster.start(served, cluster.Replicas(*replicas), address=address, host=host, port=port)
    try:
        _announce(report, host, port)
        with suppress(KeyboardInterrupt):  # the way to stop it, so no failure
            threading.Event().wait()
    finally:
        cluster.stop()


def _announce(report: dict[str, Any], host: str, port: int) -> None:
    """Print where the service is."""
    address = f"http://{host if host != '0.0.0.0' else '127.0.0.1'}:{port}"
    index = report["index"]
    console.result(
        {**report, "address": address},
        lambda: console.info(
            tr("Serving {index} at {address}. Ctrl-C stops.", index=index, address=address)
        ),
    )
    sys.stdout.flush()  # a program that started this one waits for the address


def _warn_of_strangers(host: str) -> None:
    """Warn if others can reach the service and no key is set."""
    if host not in LOCAL and not os.environ.get(API_KEY):
        console.warn(
            tr(
                "Anybody who reaches {host} can search. Set {variable} to require a key.",
                host=host,
                variable=API_KEY,
            )
        )


def _require_packages(engine: str) -> None:
    if engine == "ray":
        try:
            import ray.serve  # noqa: F401
        except ImportError as error:
            raise MissingDependencyError(
                tr("Ray Serve is not installed."),
                found=error.name,
                hint="pip install 'bagformer-cli[serve,ray]'",
            ) from error
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
    from bagformer_cli.index.search_options import SearchOptions

    for side in opened.engine.layout.sides:
        opened.search_many(["红色连衣裙"], SearchOptions(k=1, of=side))
