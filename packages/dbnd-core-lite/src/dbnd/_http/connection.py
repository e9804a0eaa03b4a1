"""One HTTP/1.1 connection to a tracker, on a socket of its own, with limits on time and size.

Test suites, recorders and tracers stand between a process and its HTTP: they replace methods of requests, urllib3 and
``http.client``, or names in ``socket`` and ``ssl``. Tracking must neither show up there nor take a mock's answer for
the tracker's. So requests are written here, on a socket and a TLS context whose classes are bound when this module is
imported, and of ``http.client`` only the parser of answers is used.
"""

from __future__ import annotations

import select
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse, IncompleteRead, LineTooLong
from io import BufferedReader, RawIOBase
from socket import socket
from typing import Any, Final, cast
from urllib.parse import SplitResult

from dbnd._base.clock import monotonic
from dbnd._http.answer import Answer
from dbnd._http.route import PORTS, not_connected, open_socket, proxy_authorization, proxy_for, secured, time_left
from dbnd._tracking.contracts import BusyError, NotATrackerError, UnreachableError

# Bytes that are read at once.
_CHUNK: Final = 1 << 16
# Characters of an answer that messages show.
_EXCERPT: Final = 100


@dataclass(frozen=True, slots=True)
class Limits:
    """What one request may take, in seconds and bytes."""

    connect: float  # for a connection, a proxy's tunnel and TLS included
    answer: float  # from then on until the answer has come
    transfer: float  # for the answer from its first byte on
    size: int  # of the answer's body, unpacked


class Connection:
    """A connection to one server, made by the first request, and again by one that finds it closed.

    A proxy is taken from the environment (``HTTP_PROXY``, ``HTTPS_PROXY``, ``ALL_PROXY``, ``NO_PROXY``).
    """

    def __init__(self, root: SplitResult, *, verifies: bool) -> None:
        assert root.hostname, "whoever makes a connection has looked"
        self._scheme: Final = root.scheme
        self._host: Final = root.hostname if root.hostname.isascii() else root.hostname.encode("idna").decode()
        self._port: Final = root.port or PORTS[root.scheme]
        host = f"[{self._host}]" if ":" in self._host else self._host
        self._authority: Final = f"{host}:{self._port}"
        self._name: Final = host if self._port == PORTS[root.scheme] else self._authority
        self._verifies = verifies
        self._socket: socket | None = None
        self._proxy: SplitResult | None = None

    def request(self, method: str, target: str, headers: Mapping[str, str], body: bytes, limits: Limits) -> Answer:
        """Send a request and return the answer; redirects are not followed.

        Raises:
            UnreachableError: There is no connection, or no answer within the limits.
            NotATrackerError: What answers does not speak HTTP.
            BusyError: There is a server, and it has not answered in time, or the connection broke.
        """
        if self._socket is not None and _is_readable(self._socket):  # closed by the server, or out of step
            self.close()
        try:
            opened = self._socket = self._socket or self._connect(limits)
            headers = {"Host": self._name, **headers}
            if self._proxy is not None and self._scheme == "http":
                target = f"http://{self._name}{target}"
                headers |= proxy_authorization(self._proxy)
            answer, stays_open = _exchange(opened, method, target, headers, body, limits)
        except BaseException:
            self.close()
            raise
        if not stays_open:
            self.close()
        return answer

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _connect(self, limits: Limits) -> socket:
        deadline = monotonic() + limits.connect
        proxy = self._proxy = proxy_for(self._scheme, self._host, self._port)
        host, port = self._host, self._port
        if proxy is not None:
            host, port = proxy.hostname or "", proxy.port or PORTS[proxy.scheme]
        opened: socket | None = None
        try:
            opened = open_socket(host, port, deadline)
            if proxy is not None and proxy.scheme == "https":
                opened = secured(opened, host, deadline, verifies=self._verifies)
            if self._scheme == "https":
                if proxy is not None:
                    self._open_tunnel(opened, deadline)
                opened = secured(opened, self._host, deadline, verifies=self._verifies)
        except BaseException as error:
            if opened is not None:
                opened.close()
            if isinstance(error, OSError):
                raise not_connected(error, limits.connect) from None
            raise
        return opened

    def _open_tunnel(self, opened: socket, deadline: float) -> None:
        left = time_left(deadline)
        headers = {"Host": self._authority, **proxy_authorization(self._proxy)}
        limits = Limits(left, left, left, 0)
        answer, _ = _exchange(opened, "CONNECT", self._authority, headers, b"", limits)
        if not answer.is_success:
            assert self._proxy is not None
            raise UnreachableError(f"the proxy {self._proxy.hostname}:{self._proxy.port} answered {answer.status}")


class _Source(RawIOBase):
    """Reads from a socket until a deadline, and so many bytes at most."""

    def __init__(self, opened: socket, limits: Limits) -> None:
        self._socket = opened
        self._transfer = limits.transfer
        self._deadline = monotonic() + limits.answer
        # An answer in many small chunks is about twice its size, and has a status line and headers.
        self._room = 2 * limits.size + (1 << 16)
        self.has_begun = False

    def makefile(self, _: str) -> BufferedReader:
        """What ``http.client`` asks of a socket."""
        return BufferedReader(self)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._room:
            raise LineTooLong("answer")
        self._socket.settimeout(time_left(self._deadline))
        number = self._socket.recv_into(memoryview(buffer)[: self._room])
        self._room -= number
        if not self.has_begun:
            self.has_begun = True
            self._deadline = min(self._deadline, monotonic() + self._transfer)
        return number


def _exchange(
    opened: socket, method: str, target: str, headers: Mapping[str, str], body: bytes, limits: Limits
) -> tuple[Answer, bool]:
    """Send a request and read its answer; the second value is whether another one may follow."""
    message = _head(method, target, headers, body) + body
    source = _Source(opened, limits)
    response = HTTPResponse(cast("socket", source), method=method)  # of a socket, it asks for makefile alone
    try:
        try:
            opened.settimeout(limits.answer)
            opened.sendall(message)
        except (BrokenPipeError, ConnectionResetError):  # it may have answered before it read all, a 413 say
            pass
        response.begin()
        content, is_whole = (b"", True) if method == "CONNECT" else _read(response, limits.size)
    except TimeoutError:
        if source.has_begun:
            raise UnreachableError(f"its answer did not end within {round(limits.transfer, 1):g} s") from None
        raise BusyError(f"no answer within {round(limits.answer, 1):g} s") from None
    except (OSError, IncompleteRead) as error:
        raise BusyError(f"the connection broke: {str(error) or type(error).__name__}") from None
    except HTTPException as error:
        what = f"{type(error).__name__} {str(error)[:_EXCERPT]!r}"
        raise NotATrackerError(f"it does not answer as a tracker does: {what}") from None
    finally:
        response.close()
    answer = Answer(response.status, response.headers, content, is_whole)
    return _unpacked(answer, limits.size), is_whole and not response.will_close


def _head(method: str, target: str, headers: Mapping[str, str], body: bytes) -> bytes:
    lines = [f"{method} {target} HTTP/1.1"]
    for name, value in headers.items():
        if not (name + value).isprintable() or not (name + value).isascii():
            raise UnreachableError(f"the header {name!r} cannot be sent: name and value must be ASCII of one line")
        lines.append(f"{name}: {value}")
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("ascii")


def _read(response: HTTPResponse, size: int) -> tuple[bytes, bool]:
    """The body, or its first ``size`` bytes; and whether that is all of it."""
    content = bytearray()
    while not response.isclosed() and len(content) <= size:
        part = response.read(min(_CHUNK, size + 1 - len(content)))
        if not part:
            break
        content += part
    is_whole = response.isclosed() and not response.length and len(content) <= size
    return bytes(content[:size]), is_whole


def _unpacked(answer: Answer, size: int) -> Answer:
    if answer.headers.get("Content-Encoding", "").lower() not in {"gzip", "x-gzip"}:
        return answer
    unpacking = zlib.decompressobj(31)  # with the header of gzip
    try:
        content = unpacking.decompress(answer.body, size)
    except zlib.error:
        return Answer(answer.status, answer.headers, b"", is_whole=False)
    return Answer(answer.status, answer.headers, content, is_whole=answer.is_whole and unpacking.eof)


def _is_readable(opened: socket) -> bool:
    poll = select.poll()
    poll.register(opened, select.POLLIN)
    return bool(poll.poll(0))
