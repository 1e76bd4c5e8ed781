"""The service on a Ray cluster of two nodes; one is killed while clients search."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from bagformer_cli.index.search import Index
from tests.serve.conftest import LIMITS
from tests.serve.test_shards import parts  # noqa: F401 - a fixture

pytest.importorskip("ray.serve", reason="Ray Serve is not installed")
# Ray's own threads and sockets are not closed when its interpreter ends: no fault of ours.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(400)]


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A cluster whose head has a core more than one replica of each group needs."""
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 4})
    yield made
    import ray

    ray.shutdown()
    made.shutdown()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


def test_a_node_that_dies_under_load_fails_no_request_after_its_retry(
    nodes: Any,
    parts: list[str],  # noqa: F811
    shop: Path,
) -> None:
    from bagformer_cli.serve import cluster

    victim = nodes.add_node(num_cpus=3)
    nodes.wait_for_nodes()
    model = shop / "runs" / "a" / "best"
    port = free_port()
    served = cluster.ServedIndex((parts[0], parts[1], parts[2]), str(model), LIMITS)
    cluster.start(
        served,
        cluster.Replicas(2, 2, cores=0.5),
        address=nodes.address,
        host="127.0.0.1",
        port=port,
        proxies="HeadOnly",
    )
    assert alive_nodes() == 2
    address = f"http://127.0.0.1:{port}"
    index = Index.open(Path(parts[0]).parent / "whole", model)
    expected = [hit.id for hit in index.search("红色碎花裙", k=5)]
    wrong = httpx.get(
        f"{address}/api/search",
        params={"q": "裙", "where": "nosuch < 3"},
        headers={"Accept-Language": "zh"},
        timeout=60,
    )
    assert "没有属性" in wrong.json()["error"]  # the language crosses to the shards' processes
    stop, answers, repeated, failed = threading.Event(), [], [], []

    def visit() -> None:
        with httpx.Client(base_url=address, timeout=60) as client:
            while not stop.is_set():
                for tries in range(6):
                    try:
                        answer = client.get("/api/search", params={"q": "红色碎花裙", "k": 5})
                    except httpx.TransportError:
                        answer = None
                    if answer is not None and answer.status_code == 200:
                        break
                    repeated.append(answer)
                    time.sleep(0.5 * 2**tries)  # as clients and balancers do
                else:
                    failed.append(answer)
                    return
                answers.append([hit["id"] for hit in answer.json()["hits"]])

    clients = [threading.Thread(target=visit) for _ in range(4)]
    for one in clients:
        one.start()
    wait_for(lambda: len(answers) > 20)
    nodes.remove_node(victim, allow_graceful=False)
    before = len(answers)
    wait_for(lambda: failed or len(answers) > before + 60)
    wait_for(lambda: alive_nodes() == 1)
    before = len(answers)
    wait_for(lambda: failed or len(answers) > before + 20)
    stop.set()
    for one in clients:
        one.join()
    assert not failed
    assert answers
    assert all(found == expected for found in answers)
    assert httpx.get(address + "/api/index", timeout=60).json()["products"] == 12
    cluster.stop()


def alive_nodes() -> int:
    import ray

    return sum(node["Alive"] for node in ray.nodes())


def wait_for(happened: Any) -> None:
    deadline = time.monotonic() + 120
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.1)
