"""The server process: a socket, uvicorn, and an end without a stack trace."""

from __future__ import annotations

import errno
import signal
import socket
from collections.abc import Callable
from typing import Final

import uvicorn
from fastapi import FastAPI

from dbnd import ConfigError
from dbnd_tracker._server.connections import ConnectionLimits, allow_files, connection_class
from dbnd_tracker._settings import TrackerSettings

_BACKLOG: Final = 512


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens, so that a port in use is known before anything else starts; port 0 takes a free one.

    Raises:
        ConfigError: The address cannot be listened on.
    """
    where = f"The tracker cannot listen on {host}:{port}"
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        # The protocol is named because asyncio sets TCP_NODELAY only on sockets that say TCP; without it, an answer
        # whose head and body are written apart waits 40 ms for an acknowledgement.
        found = socket.socket(family, kind, socket.IPPROTO_TCP)
    except (OSError, UnicodeError) as error:  # a name that cannot be one of a host
        raise ConfigError(f"{where}: {getattr(error, 'strerror', None) or error}.") from None
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(address)
        found.listen(_BACKLOG)
    except OSError as error:
        found.close()
        if error.errno != errno.EADDRINUSE:
            raise ConfigError(f"{where}: {error.strerror or error}.") from None
        raise ConfigError(
            f"The port {port} of {host} is in use: end the program that uses it, or choose another with --port."
        ) from None
    return found


def make_server(app: FastAPI, grace: int = 30, limits: ConnectionLimits | None = None) -> uvicorn.Server:
    """A server of ``app`` that says only what goes wrong, and ends at most ``grace`` seconds after it is told to."""
    limits = limits or ConnectionLimits()
    config = uvicorn.Config(
        app,
        log_level="error",  # it warns of what clients send: who asks for WebSocket, or sends no HTTP, is answered so
        access_log=False,
        lifespan="off",
        server_header=False,
        proxy_headers=False,  # the application looks at them, where there is a proxy
        http=connection_class(limits),
        ws="none",
        h11_max_incomplete_event_size=limits.head_bytes,
        timeout_keep_alive=limits.idle_s,
        timeout_graceful_shutdown=grace,
    )
    return uvicorn.Server(config)


def serve(app: FastAPI, listening: socket.socket, started: Callable[[], None], settings: TrackerSettings) -> None:
    """Serve ``app`` until SIGINT or SIGTERM, and return after the requests in progress.

    ``started`` is called before the first request is served.
    """
    limits = ConnectionLimits(most=allow_files(settings.max_connections))
    server = make_server(app, settings.shutdown_timeout_s, limits)
    # uvicorn raises the signal again when it has shut down, for the handlers that stood here before it.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    started()
    server.run(sockets=[listening])
