"""Requests that are answered before their body is read: refused ones, for nobody reads a stranger's body."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Final

from starlette.datastructures import Headers, MutableHeaders

from dbnd_tracker._middleware.bodies import SMALL, declared_size

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

# Seconds and bytes that a client may go on to send after its answer: most read only when they have sent all, and find
# no answer on a connection that is closed before.
_PATIENCE: Final = 5.0
_MOST: Final = 1 << 26


class UnreadMiddleware:
    """Keeps connections in step when a request is answered before its body was read.

    What is still to come is thrown away, within bounds, and the connection is closed unless that is only a little.

    Args:
        app: What handles the request.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        size = declared_size(scope) if scope["type"] == "http" else 0
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
                if size is None or size > SMALL or not has_asked:
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

    async def rest() -> None:
        size, more = 0, True
        while more and size <= _MOST:
            message = await receive()
            size += len(message.get("body", b""))
            more = message.get("more_body", False)

    with contextlib.suppress(asyncio.TimeoutError):
        await asyncio.wait_for(rest(), _PATIENCE)
