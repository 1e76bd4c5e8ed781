"""The same application on a Ray cluster, by Ray Serve (``xmr serve --engine ray``).

::

    client ─▶ proxy of any node ─▶ a replica of "search" ─┬─▶ a replica of "shard-0"
                                   (app.py, the model)    └─▶ a replica of "shard-1"

Replicas keep no state but open files, so any of them answers any request, and Ray starts and stops
them with the load. With one index, a replica of "search" opens it itself. With several, each has a
group of replicas, and "search" sends every query to one replica of each group (``shards.py``).

A search changes nothing, so it may be repeated: a shard's replica that dies during a search is
replaced by another of its group. A client repeats a request if its replica of "search" died; the
proxy answers it with status 500.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import ray
from fastapi import FastAPI
from ray import serve
from ray.exceptions import RayError, RayTaskError

from bagformer_cli.errors import InputError, XmrError
from bagformer_cli.index.results import Results
from bagformer_cli.index.search import Index
from bagformer_cli.index.search_options import SearchOptions
from bagformer_cli.messages import in_language, language, tr
from bagformer_cli.ray_cluster import join_cluster
from bagformer_cli.runtime.folder import Runtime
from bagformer_cli.serve.app import create_app
from bagformer_cli.serve.service import SearchService
from bagformer_cli.serve.settings import ServiceLimits
from bagformer_cli.serve.shards import Encoded, Query, Waiting, open_shard

APPLICATION = "xmr"
REQUESTS_PER_REPLICA = 16
"""Requests under way on each replica, above which another one is started."""

TRIES = 5
"""Replicas of a shard that are tried for one search."""


@dataclass(frozen=True)
class ServedIndex:
    """The indexes and the model that every replica opens.

    Attributes:
        shards: The addresses of the indexes: absolute folders that all nodes see, or on shared
            storage.
        checkpoint: The model folder, which all nodes see.
        limits: Bounds of a request.
        runtime: ``onnx``: encode queries with the exported model.
        device: Device of the model; None: a GPU if there is one.
        api_key: Key that requests must have; None: none is needed.
    """

    shards: tuple[str, ...]
    checkpoint: str
    limits: ServiceLimits
    runtime: Runtime = "torch"
    device: str | None = None
    api_key: str | None = None


@dataclass(frozen=True)
class Replicas:
    """Numbers of replicas of each group.

    Attributes:
        least: Replicas that always run. With two or more, a dead node stops no search.
        most: Replicas under load.
        cores: Cores that Ray reserves for each.
    """

    least: int = 1
    most: int = 4
    cores: float = 1.0

    def options(self) -> dict[str, Any]:
        """Return them as options of a Ray Serve deployment."""
        return {
            "autoscaling_config": {
                "min_replicas": self.least,
                "max_replicas": self.most,
                "target_ongoing_requests": REQUESTS_PER_REPLICA,
            },
            # Searches that wait are run together, so a replica takes far more than Ray's five.
            "max_ongoing_requests": 16 * REQUESTS_PER_REPLICA,
            "health_check_period_s": 5,
            "ray_actor_options": {"num_cpus": self.cores},
        }


class ShardReplica:
    """A replica that searches one shard, without the model.

    Args:
        uri: The address of the index.
    """

    def __init__(self, uri: str) -> None:
        self._shard = open_shard(uri)

    async def search(
        self, queries: Sequence[Query], options: SearchOptions, encoded: Encoded, requested: str
    ) -> list[Results] | XmrError:
        """Search; a user's error is returned as a value, so that it crosses processes whole.

        Args:
            queries: The queries.
            options: How to search.
            encoded: The vectors of the queries.
            requested: The language of an error.
        """
        try:
            with in_language(requested):
                return await asyncio.to_thread(self._shard.start(queries, options, encoded))
        except XmrError as error:
            return error

    async def count(self) -> int:
        """Count the products."""
        return await asyncio.to_thread(self._shard.count)


class RemoteShard:
    """A group of replicas as a :class:`~bagformer_cli.serve.shards.Shard`.

    Args:
        handle: Ray Serve's handle of the group.
        seconds: Longest time for an answer.
    """

    def __init__(self, handle: Any, seconds: float) -> None:
        self._handle, self._seconds = handle, seconds

    def start(self, queries: Sequence[Query], options: SearchOptions, encoded: Encoded) -> Waiting:
        """See :class:`~bagformer_cli.serve.shards.Shard`."""
        arguments = (queries, options, encoded, language())
        first = self._handle.search.remote(*arguments)

        def wait() -> list[Results]:
            found = self._answer(first, "search", *arguments)
            if isinstance(found, XmrError):
                raise found
            results: list[Results] = found
            return results

        return wait

    def count(self) -> int:
        """See :class:`~bagformer_cli.serve.shards.Shard`."""
        return int(self._answer(self._handle.count.remote(), "count"))

    def close(self) -> None:
        """See :class:`~bagformer_cli.serve.shards.Shard`; the replicas close their own files."""

    def _answer(self, response: Any, method: str, *arguments: Any) -> Any:
        """Wait for a response; ask another replica if the one that had the request died."""
        for left in reversed(range(TRIES)):
            try:
                return response.result(timeout_s=self._seconds)
            except RayTaskError:  # an error of the program itself
                raise
            except RayError:
                if not left:
                    raise
                response = getattr(self._handle, method).remote(*arguments)
        raise AssertionError


class SearchReplica:
    """A replica that serves the application.

    Args:
        served: Its indexes and its model.
        handles: Ray Serve's handles of the shards' groups; none with one index.
    """

    def __init__(self, served: ServedIndex, *handles: Any) -> None:
        # --trust or not was decided where the command ran, so the model is always named here.
        index = Index.open(
            served.shards[0], served.checkpoint, device=served.device, runtime=served.runtime
        )
        index.encode(["红色连衣裙"])  # the first visitor does not wait for caches to be filled
        shards = [RemoteShard(handle, served.limits.seconds) for handle in handles]
        self._service = SearchService(index, served.limits, shards)
        self._api_key = served.api_key

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Make the application; Ray Serve calls it in each replica."""
        return create_app(self._service, self._api_key)


def application(served: ServedIndex, replicas: Replicas) -> Any:
    """Describe the groups of replicas to Ray Serve.

    Args:
        served: The indexes and the model.
        replicas: How many of each group.
    """
    options = replicas.options()
    shards = []
    if len(served.shards) > 1:
        shards = [
            serve.deployment(name=f"shard-{number}", **options)(ShardReplica).bind(uri)
            for number, uri in enumerate(served.shards)
        ]
    search = serve.deployment(name="search", **options)(serve.ingress()(SearchReplica))
    return search.bind(served, *shards)


def start(
    served: ServedIndex,
    replicas: Replicas,
    *,
    address: str | None,
    host: str,
    port: int,
    proxies: Literal["EveryNode", "HeadOnly"] = "EveryNode",
) -> None:
    """Join a cluster, or start one here, and serve; return when the first replicas are ready.

    Args:
        served: The indexes and the model.
        replicas: How many of each group.
        address: Address of a running cluster; None: ``RAY_ADDRESS``, or a cluster of this machine.
        host: Address that proxies listen on.
        port: Their port.
        proxies: Nodes that have a proxy.

    Raises:
        InputError: There is no cluster at the address, or the replicas do not start.
    """
    join_cluster(address)
    serve.start(proxy_location=proxies, http_options={"host": host, "port": port})
    try:
        serve.run(application(served, replicas), name=APPLICATION, route_prefix="/")
    except RuntimeError as error:
        raise InputError(
            tr("The replicas of the service do not start."),
            where=served.shards[0],
            found=str(error).strip().splitlines()[-1],
            hint=tr("Every node must see the index and the model: use a shared folder, or s3://."),
        ) from error


def stop() -> None:
    """Stop serving, answer requests that have begun, leave the cluster."""
    serve.delete(APPLICATION)
    ray.shutdown()
