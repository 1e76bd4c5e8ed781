"""Run the application: a socket, uvicorn, and a log of JSON lines on stderr."""

from __future__ import annotations

import gc
import logging
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from bagformer_cli.errors import InputError
from bagformer_cli.messages import tr
from bagformer_cli.serve.app import create_app
from bagformer_cli.serve.connection import bounded_connection
from bagformer_cli.serve.measurements import LOG
from bagformer_cli.serve.service import SearchService

STOP_SIGNALS = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
]

CONNECTIONS = 1024
"""Connections that are open at once; others get status 503."""


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens, so that a taken port is an error before anything is served.

    Raises:
        InputError: The address or the port cannot be used.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind((host, port))
        made.listen(CONNECTIONS)  # who connects from now on waits until uvicorn accepts
    except OSError as error:
        made.close()
        raise InputError(
            tr("The service cannot listen there."),
            where=f"{host}:{port}",
            found=error.strerror or str(error),
            hint=tr("Choose another port: --port 8001"),
        ) from error
    return made


class StoppableServer(uvicorn.Server):
    """Stops on a signal as a service does: it answers what has begun, then returns.

    uvicorn would raise the signal again afterwards, so that a service that was stopped as intended
    would end like one that crashed (exit code 130 or 143). It also leaves SIGHUP alone, which
    comes when the terminal is closed.
    """

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Let signals end the service while the block runs."""
        if threading.current_thread() is not threading.main_thread():
            yield  # Python allows no handlers here
            return
        # A signal that is ignored stays so: nohup ignores SIGHUP.
        handled = [one for one in STOP_SIGNALS if signal.getsignal(one) != signal.SIG_IGN]
        before = {one: signal.signal(one, self.handle_exit) for one in handled}
        try:
            yield
        finally:
            for one, handler in before.items():
                signal.signal(one, handler)


def run(service: SearchService, listening: socket.socket, api_key: str | None) -> None:
    """Serve until SIGINT, SIGTERM or SIGHUP; requests that have begun are answered first.

    Args:
        service: The open index.
        listening: From :func:`listen`.
        api_key: Key that requests must have; None: none is needed.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    LOG.handlers, LOG.propagate = [handler], False
    LOG.setLevel(logging.INFO)
    config = uvicorn.Config(
        create_app(service, api_key),
        http=bounded_connection(service.limits.seconds),
        access_log=False,
        log_level="error",
        limit_concurrency=CONNECTIONS,
        timeout_keep_alive=5,
        timeout_graceful_shutdown=int(service.limits.seconds) + 1,
        server_header=False,
    )
    # All objects that exist by now stay. Else the garbage collector looks through the million
    # objects of torch and the model again and again while results are made.
    gc.collect()
    gc.freeze()
    server = StoppableServer(config)
    server.run(sockets=[listening])
    if server.force_exit:  # a second Ctrl-C did not wait for requests
        raise KeyboardInterrupt
