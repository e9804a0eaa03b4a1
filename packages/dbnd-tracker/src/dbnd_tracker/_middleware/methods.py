"""Methods of HTTP beside those that routes name: HEAD where there is GET, OPTIONS, and a complete ``Allow``."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from fastapi import Response
from starlette.datastructures import MutableHeaders
from starlette.routing import Match

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.routing import BaseRoute
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_METHODS: Final = ("DELETE", "GET", "PATCH", "POST", "PUT")


class MethodsMiddleware:
    """Answers HEAD as GET, of which the server sends no body, and OPTIONS with the methods that an address has.

    Load balancers and people with curl ask by HEAD. Where a method is refused, ``Allow`` names those of all routes of
    the address; a router by itself knows only one of them.

    Args:
        app: What handles the request.
        routes: The routes of the application.
    """

    def __init__(self, app: ASGIApp, routes: Sequence[BaseRoute]) -> None:
        self._app = app
        self._routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] == HTTPStatus.METHOD_NOT_ALLOWED:
                MutableHeaders(scope=message)["Allow"] = ", ".join(self._methods(scope))
            await send(message)

        if scope["method"] == "OPTIONS" and (methods := self._methods(scope)):
            allow = {"Allow": ", ".join(methods)}
            await Response(status_code=HTTPStatus.NO_CONTENT, headers=allow)(scope, receive, send)
        elif scope["method"] == "HEAD" and self._has(scope, "GET"):
            inner = {**scope, "method": "GET"}  # the server looks at the method of its own scope
            try:
                await self._app(inner, receive, send)
            finally:
                if "route" in inner:
                    scope["route"] = inner["route"]
        else:
            await self._app(scope, receive, answer)

    def _methods(self, scope: Scope) -> list[str]:
        """The methods of the address of ``scope``; none where there is no such address."""
        found = {method for method in _METHODS if self._has(scope, method)}
        return sorted(found | {"OPTIONS"} | ({"HEAD"} if "GET" in found else set())) if found else []

    def _has(self, scope: Scope, method: str) -> bool:
        asked = {**scope, "method": method}
        return any(route.matches(asked)[0] is Match.FULL for route in self._routes)
