"""Request bodies: read whole, bounded and unpacked; and those that nobody reads.

Clients send gzip, some without saying so, and send bodies even with GET requests.
"""

from __future__ import annotations

import asyncio
import contextlib
import zlib
from typing import Final

from anyio import CapacityLimiter
from anyio.to_thread import run_sync
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dbnd_tracker._access.roles import Role, role_needed

_SMALL: Final = 1 << 16  # largest body of a request that needs no token, or whose method has no body
_MODEST: Final = 1 << 20  # largest body of a request that is no tracking call
_MEMBERS: Final = 16  # of one gzip; clients make one
# What unpacks to more than this must not unpack to more than _RATIO times its size.
_FREE: Final = 1 << 24
_RATIO: Final = 250
_SLICE: Final = 1 << 16  # of gzip, unpacked at once
# Bodies of so many bytes are unpacked without a thread: handing them over would take longer.
_INLINE: Final = 1 << 16
# Larger ones are worked on a few at a time, for the memory that they and what is made of them need.
_LARGE: Final = 1 << 20
_LARGE_AT_ONCE: Final = 2
_THREADS: Final = 4
# Seconds and bytes that a client may go on to send after its answer: most read only when they have sent all, and find
# no answer on a connection that is closed before.
_PATIENCE: Final = 5.0
_MOST: Final = 1 << 26
_GZIP_MAGIC: Final = b"\x1f\x8b"
_GZIP_WINDOW: Final = 16 + zlib.MAX_WBITS
_METHODS_WITH_BODY: Final = frozenset({"POST", "PUT", "PATCH"})
_PLAIN: Final = frozenset({"", "identity"})
_GZIP: Final = frozenset({"gzip", "x-gzip"})


class BodyMiddleware:
    """Reads each request's body and hands it on unpacked, in one message.

    A body that is too large is refused as soon as that is known, and not read further. ``max_received`` and
    ``max_unpacked`` limit tracking calls, before and after gunzip; others may have less. It is known by now who asks.
    """

    def __init__(self, app: ASGIApp, max_received: int, max_unpacked: int) -> None:
        self._app = app
        self._max_received = max_received
        self._max_unpacked = max_unpacked
        self._threads = CapacityLimiter(_THREADS)
        self._large = asyncio.Semaphore(_LARGE_AT_ONCE)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with contextlib.AsyncExitStack() as stack:
            body = await self._body(scope, receive, stack)
            if body is not None:
                await self._app(scope, _replayed(body, receive), send)

    async def _body(self, scope: Scope, receive: Receive, stack: contextlib.AsyncExitStack) -> bytes | None:
        """The body, unpacked; None when the client has gone. ``stack`` keeps the place of a large one until the end."""
        has_body = scope["method"] in _METHODS_WITH_BODY
        is_gzip = has_body and _says_gzip(scope)
        needed = role_needed(scope["method"], scope["path"])
        received = _SMALL if not has_body or needed is None else _MODEST if needed is not Role.WRITE else None
        body = await _read(scope, receive, min(received or self._max_received, self._max_received))
        if not body or not has_body:
            return body and b""
        if is_gzip or body[:2] == _GZIP_MAGIC:
            return await self._unpack(body, min(received or self._max_unpacked, self._max_unpacked), stack)
        if len(body) > _LARGE:
            await stack.enter_async_context(self._large)
        return body

    async def _unpack(self, packed: bytes, limit: int, stack: contextlib.AsyncExitStack) -> bytes:
        hint = int.from_bytes(packed[-4:], "little")  # gzip ends with the size of what it holds, unless it lies
        bound = min(limit, next((bound for bound in (_INLINE, _LARGE) if max(hint, len(packed)) <= bound), limit))
        try:
            if bound <= _INLINE and len(packed) <= _INLINE:
                return gunzip(packed, bound)
            if bound <= _LARGE:
                return await run_sync(gunzip, packed, bound, limiter=self._threads)
        except HTTPException as error:
            if error.status_code != 413 or bound == limit:
                raise
        await stack.enter_async_context(self._large)
        return await run_sync(gunzip, packed, limit, limiter=self._threads)


def _replayed(body: bytes, receive: Receive) -> Receive:
    """A ``receive`` that gives the body once, and then what the server says (that the client has gone)."""
    is_given = False

    async def replay() -> Message:
        nonlocal is_given
        if is_given:
            return await receive()
        is_given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


def _says_gzip(scope: Scope) -> bool:
    """Whether the body is said to be gzip; it must not be said to be packed otherwise."""
    said = ",".join(Headers(scope=scope).getlist("content-encoding"))
    names = [name for part in said.split(",") if (name := part.strip().lower()) not in _PLAIN]
    if len(names) > 1 or not _GZIP.issuperset(names):
        detail = f"The body is said to be packed by {said[:80]!r}; this tracker knows gzip alone."
        raise HTTPException(415, detail, {"Accept-Encoding": "gzip"})
    return bool(names)


def declared_size(scope: Scope) -> int | None:
    """How many bytes of body the head of a request announces; None where it does not say."""
    size: int | None = 0
    for name, value in scope["headers"]:
        if name == b"transfer-encoding":
            return None
        if name == b"content-length":
            size = int(value) if value.isdigit() else None
    return size


async def _read(scope: Scope, receive: Receive, limit: int) -> bytes | None:
    """The whole body as received, of at most ``limit`` bytes; None when the client has gone."""
    size = declared_size(scope) or 0
    body, more = bytearray(), True
    while more and size <= limit:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        part = message.get("body", b"")
        more = message.get("more_body", False)
        if not body and not more and len(part) <= limit:
            return bytes(part)
        body += part
        size = max(size, len(body))
    if size > limit:
        what = f"The body of {size:,} bytes" if declared_size(scope) else "The body"
        raise HTTPException(413, f"{what} is larger than {limit:,} bytes.")
    return bytes(body)


def gunzip(packed: bytes, limit: int) -> bytes:
    """``packed`` unpacked, a little at a time, so that no more than ``limit`` bytes are ever made of it.

    Raises:
        HTTPException: It would be larger, grows more than data does, is not gzip, or consists of too many parts.
    """
    unpacked = bytearray()
    member, members = zlib.decompressobj(_GZIP_WINDOW), 1
    try:
        for start in range(0, len(packed), _SLICE):
            rest = packed[start : start + _SLICE]
            while rest:  # gzip may consist of several members
                if member.eof:
                    member, members = zlib.decompressobj(_GZIP_WINDOW), members + 1
                if members > _MEMBERS:
                    raise HTTPException(400, f"The body's gzip has more than {_MEMBERS} members.")
                unpacked += member.decompress(rest, limit - len(unpacked) + 1)
                if len(unpacked) > limit:
                    raise HTTPException(413, f"The body is larger than {limit:,} bytes after gunzip.")
                rest = member.unused_data
            if len(unpacked) > max(_FREE, _RATIO * (start + _SLICE)):
                raise HTTPException(413, f"The body grows to more than {_RATIO} times its size by gunzip.")
    except zlib.error as error:
        raise HTTPException(400, f"The body says that it is gzip and is not: {error}.") from None
    if not member.eof:
        raise HTTPException(400, "The body ends before its gzip does.")
    return bytes(unpacked)


class UnreadMiddleware:
    """Keeps connections in step when a request is answered before its body was read.

    What is still to come is thrown away, within bounds, and the connection is closed unless that is only a little.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        size = declared_size(scope)
        if size == 0:
            await self._app(scope, receive, send)
            return
        has_ended = False
        has_asked = "expect" not in Headers(scope=scope)

        async def noting_receive() -> Message:
            nonlocal has_ended, has_asked
            has_asked = True
            message = await receive()
            has_ended = message["type"] != "http.request" or not message.get("more_body", False)
            return message

        async def ending_send(message: Message) -> None:
            if has_ended:
                await send(message)
            elif message["type"] == "http.response.start":
                if size is None or size > _SMALL or not has_asked:
                    MutableHeaders(scope=message)["Connection"] = "close"
                await send(message)
            elif message.get("more_body", False) or not has_asked:
                await send(message)
            else:
                await send({**message, "more_body": True})
                await _throw_away(noting_receive)
                await send({"type": "http.response.body", "body": b""})

        await self._app(scope, noting_receive, ending_send)


async def _throw_away(receive: Receive) -> None:
    """Read what is left of the body, within bounds."""
    size, more, end = 0, True, asyncio.get_running_loop().time() + _PATIENCE
    with contextlib.suppress(asyncio.TimeoutError):
        while more and size <= _MOST:
            message = await asyncio.wait_for(receive(), end - asyncio.get_running_loop().time())
            size += len(message.get("body", b""))
            more = message.get("more_body", False)
