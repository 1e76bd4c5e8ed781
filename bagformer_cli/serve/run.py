"""Run the application: a socket, uvicorn, and a log of JSON lines on stderr."""

from __future__ import annotations

import gc
import logging
import socket
import sys

import uvicorn

from bagformer_cli.errors import InputError
from bagformer_cli.messages import tr
from bagformer_cli.serve.app import create_app
from bagformer_cli.serve.measurements import LOG
from bagformer_cli.serve.service import SearchService

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


def run(service: SearchService, listening: socket.socket, api_key: str | None) -> None:
    """Serve until SIGINT or SIGTERM; requests that have begun are answered first.

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
    uvicorn.Server(config).run(sockets=[listening])
