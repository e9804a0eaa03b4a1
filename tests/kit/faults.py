"""Faults to inject into a client: a proxy of real sockets, a disk that is full, a home that cannot be used, a clock.

A fault is a function of one exchange, the request of a client that waits for its answer. ``Proxy.script`` says what
becomes of the next batches, one fault each; what comes after them, and every other request, gets ``Proxy.otherwise``:

    with Proxy(tracker.url) as proxy:
        proxy.script(answering(500), cut_answer, delaying(2))
        ...  # a process whose tracker is proxy.url
        assert [seen.fault for seen in proxy.batches][:3] == ["answering(500)", "cut_answer", "delaying(2)"]
"""

from __future__ import annotations

import http.client
import resource
import select
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from functools import wraps
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, ParamSpec
from urllib.parse import urlsplit

from typing_extensions import Self

P = ParamSpec("P")
BATCH_HEADER = "X-Databand-Batch"
# Headers that are the connection's and not the message's.
_OF_CONNECTION = {"connection", "content-length", "transfer-encoding", "keep-alive"}
# Seconds that the server behind the proxy may take.
_PATIENCE = 120


@dataclass(frozen=True)
class Seen:
    """A request that has reached the proxy.

    Args:
        path: Its path.
        batch: The header that numbers its events, ``<journal>:<first>-<last>``.
        fault: Name of what it met.
        time: When, in monotonic seconds.
    """

    path: str
    batch: str | None
    fault: str
    time: float


class Exchange:
    """A request whose answer is in the hands of a fault.

    Attributes:
        path: Its path, with the query.
        headers: Its headers.
        size: Bytes of its body, as they travel.
    """

    def __init__(self, handler: _Handler, proxy: Proxy) -> None:
        self._handler = handler
        self._proxy = proxy
        self.path = handler.path
        self.headers = handler.headers
        self.size = int(handler.headers.get("Content-Length") or 0)
        self._read = b""

    def read(self, share: float = 1.0) -> bytes:
        """The request's body as it travels, or only the first share of it; what is not asked for is not read."""
        self._read += self._handler.rfile.read(int(self.size * share) - len(self._read))
        return self._read

    def forward(self) -> bytes:
        """Hand the whole request to the server; returns the bytes of its whole answer.

        Raises:
            OSError: The server is down.
        """
        with self._connected() as connection:
            headers = {n: v for n, v in self._handler.headers.items() if n.lower() not in _OF_CONNECTION}
            connection.request(self._handler.command, self._handler.path, self.read(), headers)
            answer = connection.getresponse()
            body = answer.read()
            return message(answer.status, dict(answer.getheaders()), body)

    def forward_part(self) -> None:
        """Hand the head and half of the body to the server, and hang up on it."""
        body = self.read(0.5)
        with self._connected() as connection:
            connection.putrequest(self._handler.command, self._handler.path, skip_accept_encoding=True, skip_host=True)
            for name, value in self._handler.headers.items():
                connection.putheader(name, value)
            connection.endheaders(body)

    @contextmanager
    def _connected(self) -> Iterator[http.client.HTTPConnection]:
        target = self._proxy.target
        if target is None:
            raise ConnectionRefusedError
        connection = http.client.HTTPConnection(urlsplit(target).netloc, timeout=_PATIENCE)
        try:
            yield connection
        except http.client.HTTPException as error:
            raise ConnectionResetError from error
        finally:
            connection.close()

    def send(self, data: bytes) -> None:
        """Send bytes to the client, whatever they are."""
        self._handler.wfile.write(data)

    def hang_up(self, *, rudely: bool = False) -> None:
        """Close the connection when the fault returns: with a reset if ``rudely``."""
        if rudely:
            self._handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._handler.close_connection = True

    def wait(self, seconds: float = float("inf")) -> bool:
        """Do nothing for a time; False as soon as the client or the proxy has gone."""
        deadline = time.monotonic() + seconds
        while not self._proxy.ended.is_set():
            left = deadline - time.monotonic()
            if left <= 0:
                return True
            readable, _, _ = select.select([self._handler.connection], [], [], min(left, 0.1))
            if readable and not self._handler.connection.recv(1, socket.MSG_PEEK):
                return False
        return False


Fault = Callable[[Exchange], None]


def message(status: int, headers: Mapping[str, str], body: bytes) -> bytes:
    """The bytes of an answer."""
    kept = {name: value for name, value in headers.items() if name.lower() not in _OF_CONNECTION}
    lines = [f"HTTP/1.1 {status} {http.client.responses.get(status, '-')}"]
    lines += [f"{name}: {value}" for name, value in {**kept, "Content-Length": str(len(body))}.items()]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def _fault(make: Callable[P, Fault]) -> Callable[P, Fault]:
    """Name the faults that ``make`` makes by its call."""

    @wraps(make)
    def named(*args: P.args, **kwargs: P.kwargs) -> Fault:
        made = make(*args, **kwargs)
        made.__name__ = f"{make.__name__}({', '.join(map(str, args))})"
        return made

    return named


def passing(exchange: Exchange) -> None:
    """No fault."""
    exchange.send(exchange.forward())


@_fault
def delaying(seconds: float) -> Fault:
    """The request waits before the server gets it, which it does not if the client goes away in the meantime."""

    def fault(exchange: Exchange) -> None:
        exchange.read()
        if exchange.wait(seconds):
            passing(exchange)
        else:
            exchange.hang_up()

    return fault


def unanswered(exchange: Exchange) -> None:
    """The request is read, the server does not get it, and no answer ever comes."""
    exchange.read()
    exchange.wait()
    exchange.hang_up()


def applied_unanswered(exchange: Exchange) -> None:
    """The server applies the request, and no answer ever comes."""
    exchange.forward()
    exchange.wait()
    exchange.hang_up()


def cut_connection(exchange: Exchange) -> None:
    """The connection is reset before the body is read."""
    exchange.hang_up(rudely=True)


def cut_request(exchange: Exchange) -> None:
    """The connection is reset in the middle of the body, and the server gets half of it."""
    exchange.forward_part()
    exchange.hang_up(rudely=True)


def cut_answer(exchange: Exchange) -> None:
    """The server applies the request; the connection ends in the middle of its answer."""
    exchange.send(exchange.forward()[:-1])
    exchange.hang_up()


def lost_answer(exchange: Exchange) -> None:
    """The server applies the request; the connection is reset before its answer begins."""
    exchange.forward()
    exchange.hang_up(rudely=True)


@_fault
def dripping(seconds: float) -> Fault:
    """The server applies the request; its answer comes byte by byte, with so many seconds between them."""

    def fault(exchange: Exchange) -> None:
        for byte in exchange.forward():
            exchange.send(bytes([byte]))
            if not exchange.wait(seconds):
                return exchange.hang_up()
        return None

    return fault


def garbage(exchange: Exchange) -> None:
    """The answer is no HTTP."""
    exchange.read()
    exchange.send(b"\x16\x03\x01\x02\x00\x01\x00SSH-2.0 nonsense\r\n\r\n" * 20)
    exchange.hang_up()


@_fault
def answering(status: int, headers: Mapping[str, str] | None = None, body: bytes = b"{}") -> Fault:
    """The server gets nothing; the client gets this answer."""

    def fault(exchange: Exchange) -> None:
        exchange.read()
        exchange.send(message(status, headers or {}, body))

    return fault


def bad_gateway(exchange: Exchange) -> None:
    """What a reverse proxy says whose server is down: 502 with a page."""
    page = b"<html><head><title>502 Bad Gateway</title></head><body><h1>502 Bad Gateway</h1></body></html>"
    answering(502, {"Content-Type": "text/html"}, page)(exchange)


@_fault
def busy(seconds: int, *, as_date: bool = False) -> Fault:
    """429 with a Retry-After, in seconds or as a date."""

    def fault(exchange: Exchange) -> None:
        due = format_datetime(datetime.now(timezone.utc) + timedelta(seconds=seconds), usegmt=True)
        answering(429, {"Retry-After": due if as_date else str(seconds)})(exchange)

    return fault


@_fault
def limiting(size: int) -> Fault:
    """413 for every body of more than ``size`` bytes, as they travel."""

    def fault(exchange: Exchange) -> None:
        if exchange.size > size:
            answering(413, body=b"too large")(exchange)
        else:
            passing(exchange)

    return fault


class Proxy:
    """A proxy in front of a server, on a loopback port that stays its own even while it refuses connections.

    Args:
        target: URL of the server; it may change at any time, and is None while there is no server.

    Attributes:
        url: The URL of the proxy.
        otherwise: What becomes of requests that no script is left for.
        seen: The requests, in the order in which they came.
        served: How many batches have met their fault to its end, which for ``passing`` is the answer.
        ended: Set when the proxy is closed.
    """

    def __init__(self, target: str | None) -> None:
        self.target = target
        self.otherwise: Fault = passing
        self.seen: list[Seen] = []
        self.served = 0
        self.ended = threading.Event()
        self._faults: deque[Fault] = deque()
        self._lock = threading.Lock()
        # A socket that is bound and does not listen: connections are refused, and nobody else gets the port.
        self._holder = socket.socket()
        self._holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self._holder.bind(("127.0.0.1", 0))
        self._port = int(self._holder.getsockname()[1])
        self.url = f"http://127.0.0.1:{self._port}"
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None
        self.listen()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.ended.set()
        self.refuse()
        self._holder.close()

    @property
    def batches(self) -> list[Seen]:
        """The requests that carried numbered events."""
        return [seen for seen in self.seen if seen.batch]

    def script(self, *faults: Fault) -> None:
        """Say what becomes of the next batches, one fault each."""
        with self._lock:
            self._faults.extend(faults)

    @property
    def rest(self) -> int:
        """How many faults of the script no batch has met yet."""
        return len(self._faults)

    def listen(self) -> None:
        """Take connections (again)."""
        if self._server is None:
            self._server = _Server(self, self._port)
            self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
            self._thread.start()

    def refuse(self) -> None:
        """Close the port, and cut every connection."""
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()
            self._server.cut()
            self._server = self._thread = None

    def meet(self, path: str, batch: str | None) -> Fault:
        """What becomes of a request that has just come."""
        with self._lock:
            fault = self._faults.popleft() if batch and self._faults else self.otherwise
            self.seen.append(Seen(path, batch, getattr(fault, "__name__", repr(fault)), time.monotonic()))
            return fault


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def setup(self) -> None:
        super().setup()
        self.server.open.add(self.connection)

    def finish(self) -> None:
        self.server.open.discard(self.connection)
        super().finish()

    def _serve(self) -> None:
        proxy, batch = self.server.proxy, self.headers.get(BATCH_HEADER)
        try:
            proxy.meet(self.path, batch)(Exchange(self, proxy))
        except OSError:  # the client, or the server behind us, has gone: so does the connection
            self.close_connection = True
        else:
            proxy.served += batch is not None

    do_GET = do_POST = do_HEAD = do_PUT = do_PATCH = do_DELETE = _serve  # noqa: N815  the names that http.server calls

    def log_message(self, *_: object) -> None:
        """Print nothing."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, proxy: Proxy, port: int) -> None:
        self.proxy = proxy
        self.open: set[socket.socket] = set()
        super().__init__(("127.0.0.1", port), _Handler)

    def server_bind(self) -> None:
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        super().server_bind()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that breaks is what this is for; nobody wants to read of it."""

    def cut(self) -> None:
        for connection in list(self.open):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue  # it has gone already


def fill_disk(size: int) -> None:
    """Let no file of this process grow beyond ``size`` bytes: writes fail, or write a part."""
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, most))


def free_disk() -> None:
    """Take ``fill_disk`` back."""
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))


def unusable_folder(path: Path) -> Path:
    """A path at which no folder can be made, not even by root: a file stands in its way."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("not a folder")
    return path / "dbnd"


def shift_clock(seconds: float) -> None:
    """Let the wall clock of this process jump, as far as Python's ``time`` module shows it; it goes on from there."""
    wall, wall_ns = time.time, time.time_ns
    time.time = lambda: wall() + seconds
    time.time_ns = lambda: wall_ns() + int(seconds * 1e9)
