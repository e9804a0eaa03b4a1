"""Trackers that are of no use, each in its way."""

from __future__ import annotations

import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TROUBLES = ("refusing", "hanging", "500", "garbage", "garbled")


class Troubles:
    """One tracker of each kind of trouble, which last as long as the tests.

    ``refusing`` refuses connections, ``hanging`` answers nothing for 30 s, ``500`` answers that it has failed,
    ``garbage`` answers what is no HTTP, and ``garbled`` a body that is not what its headers say.
    """

    def __init__(self) -> None:
        self._servers = {kind: _Server(kind) for kind in TROUBLES if kind != "refusing"}
        # Bound and not listening: nobody else can come to listen there.
        self._refusing = socket.socket()
        self._refusing.bind(("127.0.0.1", 0))

    def url(self, kind: str) -> str:
        """The URL of a tracker with this trouble."""
        server = self._servers.get(kind)
        port = self._refusing.getsockname()[1] if server is None else server.server_address[1]
        return f"http://127.0.0.1:{port}"

    def asked(self, kind: str) -> threading.Event | None:
        """Set once somebody has sent something since it was cleared; None where nobody can connect."""
        server = self._servers.get(kind)
        return None if server is None else server.asked

    def close(self) -> None:
        """Let go of all who wait, and close."""
        self._refusing.close()
        for server in self._servers.values():
            server.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, kind: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.kind = kind
        self.asked = threading.Event()
        self.ended = threading.Event()
        self._thread = threading.Thread(target=self.serve_forever, args=(0.05,))
        self._thread.start()

    def handle_error(self, request, client_address) -> None:
        """Not on the console: a client that goes away while it waits is no error."""

    def close(self) -> None:
        self.ended.set()
        self.shutdown()
        self._thread.join()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        kind = self.server.kind
        self.server.asked.set()
        if kind == "hanging":
            self.server.ended.wait(30)
            self.close_connection = True
            return
        if kind == "garbage":
            self.wfile.write(b"\x00\xff no HTTP at all \r\n\r\n" * 50)
            self.close_connection = True
            return
        body = b"<html>Internal error" if kind == "500" else b"\x1f\x8b garbage"
        self.send_response(500 if kind == "500" else 200)
        self.send_header("Content-Type", "application/json")
        if kind == "garbled":
            self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST  # noqa: N815  the name that http.server looks for

    def log_message(self, *args: object) -> None:
        """Not on the console."""
