"""Large answers: sent a slice at a time, and not kept for too many clients at once."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from fastapi.responses import JSONResponse

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_SLICE: Final = 1 << 18
# Bytes that clients may leave untaken before a further large answer is refused.
_MOST_KEPT: Final = 1 << 28
_HEADERS: Final = {"Retry-After": "5"}


class LargeMiddleware:
    """Hands a large answer to the server as fast as the client takes it.

    Handed over whole, it would be copied in one go, while nobody else is answered, and a client would have to take all
    of it before that counts as progress.

    Args:
        app: What handles the request.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._kept = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        start: Message | None = None

        async def slicing(message: Message) -> None:
            nonlocal start
            if message["type"] == "http.response.start":
                start = message  # until it is known how large the answer is
                return
            body = message.get("body", b"")
            if start is not None and len(body) > _SLICE and self._kept + len(body) > _MOST_KEPT:
                detail = "Too many large answers are under way already, which their clients do not take."
                await JSONResponse({"detail": detail}, HTTPStatus.SERVICE_UNAVAILABLE, _HEADERS)(scope, receive, send)
                return
            if start is not None:
                await send(start)
                start = None
            if len(body) <= _SLICE:
                await send(message)
                return
            self._kept += len(body)
            try:
                await _send_slices(memoryview(body), send, more_body=message.get("more_body", False))
            finally:
                self._kept -= len(body)

        await self._app(scope, receive, slicing if scope["type"] == "http" else send)


async def _send_slices(body: memoryview, send: Send, *, more_body: bool) -> None:
    for begin in range(0, len(body), _SLICE):
        end = begin + _SLICE
        part = {"body": bytes(body[begin:end]), "more_body": more_body or end < len(body)}
        await send({"type": "http.response.body", **part})
