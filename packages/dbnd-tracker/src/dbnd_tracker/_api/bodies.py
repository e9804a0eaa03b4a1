"""Reading of request bodies: whole, bounded, and unpacked.

Clients send gzip, some without saying so, and send bodies even with GET requests. A body is always read to its end,
for otherwise a kept-alive connection goes out of step.
"""

from __future__ import annotations

import zlib
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_GZIP_MAGIC: Final = b"\x1f\x8b"
_GZIP_WINDOW: Final = 16 + zlib.MAX_WBITS
_METHODS_WITH_BODY: Final = frozenset({"POST", "PUT", "PATCH"})


class TooLargeError(Exception):
    """A body is larger than allowed; the text says which limit it passed."""


class NotGzipError(Exception):
    """A body claims to be gzip and is not."""


class BodyMiddleware:
    """Reads each request's body and hands it on unpacked, in one message.

    Args:
        app: What handles the request.
        max_received: Largest body as received, in bytes.
        max_unpacked: Largest body after gunzip, in bytes.
    """

    def __init__(self, app: ASGIApp, max_received: int, max_unpacked: int) -> None:
        self._app = app
        self._max_received = max_received
        self._max_unpacked = max_unpacked

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            body = await self._read(receive)
            if scope["method"] not in _METHODS_WITH_BODY:
                body = b""
            elif body[:2] == _GZIP_MAGIC or _says_gzip(scope):
                body = await run_in_threadpool(gunzip, body, self._max_unpacked)
        except TooLargeError as error:
            await _answer(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, str(error))(scope, receive, send)
        except NotGzipError as error:
            await _answer(HTTPStatus.BAD_REQUEST, str(error))(scope, receive, send)
        else:
            await self._app(scope, _Replay(body, receive), send)

    async def _read(self, receive: Receive) -> bytes:
        """The whole body. Of one that is too large the rest is read too: a client that still sends hears no answer."""
        body, size, more = bytearray(), 0, True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return b""
            part = message.get("body", b"")
            size += len(part)
            if size <= self._max_received:
                body += part
            else:
                body.clear()
            more = message.get("more_body", False)
        if size > self._max_received:
            msg = f"The body of {size:,} bytes is larger than {self._max_received:,} bytes."
            raise TooLargeError(msg)
        return bytes(body)


class _Replay:
    """A ``receive`` that gives the body once, and then what the server says (that the client has gone)."""

    def __init__(self, body: bytes, receive: Receive) -> None:
        self._body: bytes | None = body
        self._receive = receive

    async def __call__(self) -> Message:
        if self._body is None:
            return await self._receive()
        body, self._body = self._body, None
        return {"type": "http.request", "body": body, "more_body": False}


def _says_gzip(scope: Scope) -> bool:
    return "gzip" in Headers(scope=scope).get("content-encoding", "").lower()


def _answer(status: HTTPStatus, detail: str) -> JSONResponse:
    return JSONResponse({"detail": detail}, status)


def gunzip(packed: bytes, limit: int) -> bytes:
    """``packed`` unpacked, in steps, so that no more than ``limit`` bytes are ever made of it.

    Raises:
        TooLargeError: It would be larger.
        NotGzipError: It is not gzip, or it ends too early.
    """
    unpacked = bytearray()
    rest = packed
    try:
        while rest:  # gzip may consist of several members
            member = zlib.decompressobj(_GZIP_WINDOW)
            unpacked += member.decompress(rest, limit - len(unpacked) + 1)
            if len(unpacked) > limit:
                msg = f"The body is larger than {limit:,} bytes after gunzip."
                raise TooLargeError(msg)
            if not member.eof:
                msg = "The body ends before its gzip does."
                raise NotGzipError(msg)
            rest = member.unused_data
    except zlib.error as error:
        msg = f"The body says that it is gzip and is not: {error}."
        raise NotGzipError(msg) from None
    return bytes(unpacked)
