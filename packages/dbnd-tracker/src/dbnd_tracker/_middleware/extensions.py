"""What this tracker takes beyond the protocol, said in each answer of the API."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from starlette.datastructures import MutableHeaders

from dbnd_tracker._access.roles import API

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

POINTS_HEADER: Final = "X-Databand-Points"
"""In an answer: the form of points that log_metrics takes beside the protocol's. In a request: the form it has."""
POINTS_FORM: Final = "1"


class ExtensionsMiddleware:
    """Adds ``POINTS_HEADER`` to every answer of the API, refusals included.

    Args:
        app: What handles the request.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith(API):
            await self._app(scope, receive, send)
            return

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)[POINTS_HEADER] = POINTS_FORM
            await send(message)

        await self._app(scope, receive, answer)
