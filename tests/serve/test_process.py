"""The service as a process: signals, slow clients, clients that hang up, many connections."""

from __future__ import annotations

import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from http.client import HTTPResponse
from pathlib import Path

import httpx
import pytest

from bagformer_cli.serve.run import CONNECTIONS

pytestmark = pytest.mark.slow


@contextmanager
def running(shop: Path, *options: str) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """Start ``xmr serve`` on a free port, and yield the process and its address."""
    command = [
        sys.executable, "-m", "bagformer_cli.cli.main", "serve", "--index", str(shop / "index"),
        "--checkpoint", str(shop / "runs" / "a" / "best"), "--port", "0", *options,
    ]  # fmt: skip
    log = shop / f"log-{time.time_ns()}"
    with log.open("w") as stream:
        process = subprocess.Popen(command, stderr=stream)
    try:
        while "Serving" not in log.read_text():
            assert process.poll() is None, log.read_text()
            time.sleep(0.1)
        address = log.read_text().split(" at ")[1].split(". ")[0]
        wait_until_ready(address)
        yield process, address
    finally:
        process.kill()
        process.wait()


def wait_until_ready(address: str) -> None:
    for _ in range(300):
        try:
            if httpx.get(address + "/readyz").status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.1)
    pytest.fail("the service did not become ready")


@pytest.fixture(scope="module")
def address(shop: Path) -> Iterator[str]:
    with running(shop, "--timeout", "3") as (_, address):
        yield address


def host_and_port(address: str) -> tuple[str, int]:
    host, _, port = address.removeprefix("http://").partition(":")
    return host, int(port)


def test_connections_at_once_are_all_answered(address: str) -> None:
    outcomes: list[int] = []

    def visit() -> None:
        with httpx.Client(base_url=address, timeout=60) as client:
            answers = [client.get("/api/search", params={"q": "红色裙"}) for _ in range(5)]
        outcomes.extend(answer.status_code for answer in answers)

    threads = [threading.Thread(target=visit) for _ in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes == [200] * 160


def test_a_body_that_never_comes_is_given_up(address: str) -> None:
    with socket.create_connection(host_and_port(address), timeout=20) as client:
        client.sendall(b"POST /api/search HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nabc")
        assert b" 408 " in client.recv(1000)
    assert httpx.get(address + "/healthz").status_code == 200


def test_a_head_that_never_ends_is_given_up(address: str) -> None:
    with socket.create_connection(host_and_port(address), timeout=20) as client:
        client.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        first = HTTPResponse(client)
        first.begin()
        assert first.status == 200
        first.read()  # its body may come after its head
        began = time.monotonic()
        answer = b""
        client.settimeout(0.2)
        client.sendall(b"GET /healthz HTTP/1.1\r\nX: ")
        while not answer and time.monotonic() - began < 30:
            client.sendall(b"a")  # now and then
            with suppress(TimeoutError):
                answer = client.recv(1000)
    assert b" 408 " in answer


def test_half_heads_keep_others_out_for_a_short_time_only(address: str) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if min(soft, hard) < 1300:
        pytest.skip("this process may not open as many connections")
    with ExitStack() as held:
        for _ in range(CONNECTIONS + 10):
            client = held.enter_context(socket.create_connection(host_and_port(address), 20))
            client.sendall(b"GET /healthz HTTP/1.1\r\nX: ")
        deadline = time.monotonic() + 30
        while httpx.get(address + "/healthz", timeout=30).status_code == 503:
            assert time.monotonic() < deadline
            time.sleep(0.2)


def test_a_head_without_end_is_refused(address: str) -> None:
    with socket.create_connection(host_and_port(address), timeout=20) as client:
        client.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 200_000)
        assert b" 431 " in client.recv(1000)
    assert httpx.get(address + "/healthz").status_code == 200


def test_clients_that_hang_up_do_no_harm(address: str, shop: Path) -> None:
    for _ in range(20):
        with socket.create_connection(host_and_port(address), timeout=20) as client:
            client.sendall(b"GET /api/search?q=%E8%A3%99 HTTP/1.1\r\nHost: x\r\n\r\n")
        with socket.create_connection(host_and_port(address), timeout=20) as client:
            client.sendall(b"POST /api/search HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nabc")
    assert httpx.get(address + "/api/search", params={"q": "裙"}, timeout=60).status_code == 200
    metrics = httpx.get(address + "/metrics").text
    assert 'status="499"' in metrics
    assert 'status="500"' not in metrics
    assert not any("Traceback" in log.read_text() for log in shop.glob("log-*"))


def test_a_huge_upload_ends_early(address: str) -> None:
    sent = 0
    with socket.create_connection(host_and_port(address), timeout=20) as client:
        client.sendall(b"POST /api/search HTTP/1.1\r\nHost: x\r\nContent-Length: 200000000\r\n\r\n")
        try:
            while sent < 200_000_000:
                sent += client.send(b"x" * 65536)
        except OSError:
            pass
    assert sent < 100_000_000
    assert httpx.get(address + "/healthz").status_code == 200


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_under_load_lets_begun_requests_end(shop: Path, number: signal.Signals) -> None:
    begun, broken = [0], []

    def visit(address: str, stop: threading.Event) -> None:
        while not stop.is_set():
            try:
                answer = httpx.get(address + "/api/search", params={"q": "红色裙"}, timeout=60)
            except httpx.ConnectError:  # it does not listen any more
                return
            except httpx.TransportError as error:
                broken.append(error)
                return
            begun[0] += answer.status_code == 200

    with running(shop) as (process, address):
        stop = threading.Event()
        threads = [threading.Thread(target=visit, args=(address, stop)) for _ in range(8)]
        for thread in threads:
            thread.start()
        while begun[0] < 16:
            time.sleep(0.05)
        process.send_signal(number)
        assert process.wait(30) == 0  # it was stopped as intended
        stop.set()
        for thread in threads:
            thread.join()
    assert not [error for error in broken if isinstance(error, httpx.ReadTimeout)]


def test_a_taken_port_is_one_error(shop: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        command = [
            sys.executable, "-m", "bagformer_cli.cli.main", "serve", "--index",
            str(shop / "index"), "--checkpoint", str(shop / "runs" / "a" / "best"), "--port", port,
        ]  # fmt: skip
        run = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert run.returncode == 2
    assert "cannot listen" in run.stderr
    assert "Traceback" not in run.stderr
