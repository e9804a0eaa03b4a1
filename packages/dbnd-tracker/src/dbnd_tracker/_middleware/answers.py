"""Answers: to HEAD, to methods that an address does not have, and large ones."""

from __future__ import annotations

from typing import Final

from fastapi.responses import JSONResponse, Response
from starlette.requests import Request
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

POINTS_HEADER: Final = "X-Databand-Points"
"""In an answer: the form of points that log_metrics takes beside the protocol's. In a request: the form it has."""
POINTS_FORM: Final = "1"

_SLICE: Final = 1 << 18
# Bytes that clients may leave untaken before a further large answer is refused.
_MOST_KEPT: Final = 1 << 28


class HeadMiddleware:
    """Answers HEAD, by which load balancers and people with curl ask, as GET; the server sends no body then."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return
        inner = {**scope, "method": "GET"}  # the server looks at the method of its own scope
        try:
            await self._app(inner, receive, send)
        finally:
            scope["route"] = inner.get("route")


async def answer_other_method(request: Request, _: Exception) -> Response:
    """Answer OPTIONS, or refuse a method, with those that the routes of an address have together."""
    asked = [(method, {**request.scope, "method": method}) for method in ("DELETE", "GET", "PATCH", "POST", "PUT")]
    routes = request.app.routes
    methods = {method for method, scope in asked if any(r.matches(scope)[0] is Match.FULL for r in routes)}
    allow = {"Allow": ", ".join(sorted(methods | {"OPTIONS"} | ({"HEAD"} if "GET" in methods else set())))}
    if request.method == "OPTIONS":
        return Response(status_code=204, headers=allow)
    return JSONResponse({"detail": "Method Not Allowed"}, 405, allow)


class LargeMiddleware:
    """Hands a large answer to the server as fast as the client takes it, and refuses to keep too many of them.

    Handed over whole, it would be copied in one go, while nobody else is answered, and a client would have to take all
    of it before that counts as progress.
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
            size = len(message.get("body", b""))
            if start is not None:
                if size > _SLICE and self._kept + size > _MOST_KEPT:
                    detail = "Too many large answers are under way already, which their clients do not take."
                    refusal = JSONResponse({"detail": detail}, 503, {"Retry-After": "5"})
                    await refusal(scope, receive, send)
                    return
                await send(start)
                start = None
            if size <= _SLICE:
                await send(message)
                return
            self._kept += size
            try:
                body, more = memoryview(message["body"]), message.get("more_body", False)
                for begin in range(0, size, _SLICE):
                    part = {"body": bytes(body[begin : begin + _SLICE]), "more_body": more or begin + _SLICE < size}
                    await send({"type": "http.response.body", **part})
            finally:
                self._kept -= size

        await self._app(scope, receive, slicing)
