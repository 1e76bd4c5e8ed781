"""Start ``xmr`` in new processes without waiting seconds for torch and transformers each time.

A server process imports the large libraries once and nothing of xmr. For each command it forks a
process with its own process group, which can be killed, limited and given another environment like
any other. Run as a program, this module is the server.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

LIBRARIES = (
    "torch", "safetensors.torch", "timm", "transformers.models.bert.modeling_bert", "PIL.Image",
    "numba", "yaml", "typer", "rich.console",
)  # fmt: skip
"""Libraries that the server imports: none that starts threads, which a fork would lose."""
STARTED_FOR = ("PYTHONPATH", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "PATH", "LD_LIBRARY_PATH")
"""Variables that the libraries read when they are imported: these cannot be changed."""


@dataclass
class Started:
    """A command that runs; ``returncode`` is negative for a signal, None while it runs."""

    pid: int
    connection: socket.socket
    returncode: int | None = None

    def poll(self) -> int | None:
        """Return the exit code, or None if the command still runs."""
        with suppress(subprocess.TimeoutExpired):
            self.wait(0.0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end.

        Raises:
            subprocess.TimeoutExpired: It still runs.
        """
        if self.returncode is None:
            # Zero would make the socket non-blocking, and an answer could be missed.
            self.connection.settimeout(None if timeout is None else max(timeout, 1e-4))
            try:
                self.returncode = int(self.connection.recv(64))
            except TimeoutError:
                raise subprocess.TimeoutExpired("xmr", timeout or 0.0) from None
            self.connection.close()
        return self.returncode

    def kill(self) -> None:
        """Kill the command with all its workers, and wait for its end."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.wait()


def start(
    arguments: list[str],
    environment: dict[str, str],
    cwd: str | Path | None = None,
    output: tuple[int, int] | None = None,
    limits: dict[int, int] | None = None,
    code: str = "",
) -> Started:
    """Start ``xmr`` with arguments.

    Args:
        arguments: Arguments after ``xmr``.
        environment: All variables.
        cwd: Working directory.
        output: Open files for stdout and stderr; None: both are thrown away.
        limits: Values of ``resource.setrlimit`` by resource.
        code: Python code that runs first.
    """
    request = json.dumps([arguments, environment, str(cwd or Path.cwd()), limits or {}, code])
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(_server())
    with open(os.devnull, "r+b") as null:
        outputs = output or (null.fileno(), null.fileno())
        socket.send_fds(connection, [b"x"], [null.fileno(), *outputs])
        connection.sendall(request.encode("utf-8", "surrogateescape") + b"\0")
        pid = b""
        while not pid.endswith(b"\n"):
            part = connection.recv(1)
            if not part:
                raise RuntimeError("the server of warm processes ended")
            pid += part
    return Started(int(pid), connection)


@cache
def _server() -> str:
    """Start the server of this process and return its address."""
    folder = tempfile.TemporaryDirectory(prefix="xmr-warm-")
    address = f"{folder.name}/socket"
    project = str(Path(__file__).parents[2])
    paths = os.pathsep.join([project, *filter(None, [os.environ.get("PYTHONPATH")])])
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.warm", address],
        env={**os.environ, "PYTHONPATH": paths},
    )

    def stop() -> None:
        process.kill()
        process.wait()
        folder.cleanup()

    atexit.register(stop)
    while not os.path.exists(address):
        if process.poll() is not None:
            raise RuntimeError("the server of warm processes did not start")
        time.sleep(0.02)
    return address


def serve(address: str) -> Any:
    """Answer requests; return in the forked process what it has to run."""
    for name in LIBRARIES:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()  # the collector writes to objects, so that their pages would be copied
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(f"{address}.new")
    listener.listen(16)
    os.rename(f"{address}.new", address)
    parent = os.getppid()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the system collects handlers that ended
    listener.settimeout(2)
    while True:
        try:
            connection, _ = listener.accept()
        except TimeoutError:
            if os.getppid() != parent:
                os._exit(0)
            continue
        if os.fork():
            connection.close()
            continue
        listener.close()
        connection.settimeout(None)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        _, handles, _, _ = socket.recv_fds(connection, 1, 3)
        request = b""
        while not request.endswith(b"\0"):
            request += connection.recv(1 << 16)
        child = os.fork()
        if not child:
            connection.close()
            return json.loads(request[:-1].decode("utf-8", "surrogateescape")), handles
        os.setpgid(child, child)
        connection.sendall(f"{child}\n".encode())
        _, status = os.waitpid(child, 0)
        with suppress(BrokenPipeError):
            connection.sendall(str(os.waitstatus_to_exitcode(status)).encode())
        os._exit(0)


def become(request: list[Any], handles: list[int]) -> None:
    """Turn this process into the one that was asked for."""
    arguments, environment, cwd, limits, code = request
    with suppress(PermissionError):  # its parent was faster
        os.setpgid(0, 0)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, handle in enumerate(handles):
        os.dup2(handle, number)
        os.close(handle)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["xmr", *arguments]
    if limits:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    for kind, value in limits.items():
        resource.setrlimit(int(kind), (value, value))
    exec(code)


def run() -> int:
    """Run ``xmr``, and what Python runs before a process ends, but for freeing its memory.

    Freeing all objects of torch and transformers would copy the server's pages: four seconds.
    """
    try:
        code = importlib.import_module("bagformer_cli.cli.main").main()
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    return int(code)


if __name__ == "__main__":
    become(*serve(sys.argv[1]))
    os._exit(run())
