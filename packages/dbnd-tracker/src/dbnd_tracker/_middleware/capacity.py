"""A limit on how many requests are under way, beyond which only `/healthz` is answered."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from fastapi.responses import JSONResponse

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

_ALWAYS: Final = "/healthz"
_HEADERS: Final = {"Retry-After": "1", "Connection": "close"}


class CapacityMiddleware:
    """Answers 503 when too many requests are under way already.

    Args:
        app: What handles the request.
        most: How many may be under way.
    """

    def __init__(self, app: ASGIApp, most: int) -> None:
        self._app = app
        self._most = most
        self._running = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] == _ALWAYS:
            await self._app(scope, receive, send)
            return
        if self._running >= self._most:
            detail = f"{self._most} requests are under way already (tracker.max_connections)."
            refusal = JSONResponse({"detail": detail}, HTTPStatus.SERVICE_UNAVAILABLE, _HEADERS)
            await refusal(scope, receive, send)
            return
        self._running += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._running -= 1
