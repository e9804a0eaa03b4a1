"""A tracker's server, and a transport, that do what a test's script says."""

from __future__ import annotations

import contextlib
import gzip
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Request:
    method: str
    path: str
    headers: dict[str, str]
    body: Any


@dataclass
class ScriptedServer:
    """A real HTTP server that keeps what it is sent and answers as told."""

    url: str = ""
    requests: list[Request] = field(default_factory=list)
    answer: Callable[[Request], tuple[int, dict[str, str], bytes]] = lambda _: (200, {}, b"{}")

    def tracked(self) -> list[tuple[str, Any]]:
        """Calls and bodies. What was sent again is left out: on a slow machine, an answer may come too late."""
        found = {r.headers.get("X-Databand-Batch", str(n)): r for n, r in enumerate(self.requests)}
        return [(r.path.rpartition("/")[2], r.body) for r in found.values() if "/tracking/" in r.path]

    def calls(self) -> list[str]:
        return [r.path.rpartition("/")[2] for r in self.requests if "/tracking/" in r.path]


@contextmanager
def scripted_server() -> Iterator[ScriptedServer]:
    """A server on a port of its own."""
    scripted = ScriptedServer()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _serve(self) -> None:
            data = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if self.headers.get("Content-Encoding") == "gzip":
                data = gzip.decompress(data)
            request = Request(self.command, self.path, dict(self.headers), json.loads(data) if data else None)
            scripted.requests.append(request)
            status, headers, body = scripted.answer(request)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            with contextlib.suppress(ConnectionError):  # whoever asked does not wait any more
                self.end_headers()
                self.wfile.write(body)

        do_GET = do_POST = _serve  # noqa: N815  the names that http.server calls

        def log_message(self, *_: object) -> None:
            """Print nothing."""

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    scripted.url = f"http://127.0.0.1:{httpd.server_port}"
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield scripted
    httpd.shutdown()
    thread.join()
    httpd.server_close()


class ScriptedTransport:
    """Takes batches into a list, or does what the script says next: raises an error, or calls a function."""

    def __init__(self, *script):
        self.script = list(script)
        self.batches = []
        self.attempts = []
        self.beats = []
        self.state = "running"
        self.deadline = None
        self.closed = False

    def send(self, batch):
        self.attempts.append(batch)
        step = self.script.pop(0) if self.script else None
        if isinstance(step, Exception):
            raise step
        if callable(step):
            step(batch)
        self.batches.append(batch)

    def heartbeat(self, run_uid):
        self.beats.append(run_uid)
        return self.state

    def check(self):
        """All is well."""

    def close(self):
        self.closed = True
