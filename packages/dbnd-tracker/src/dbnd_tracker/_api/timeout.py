"""A limit on how long a request may take."""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from fastapi.responses import JSONResponse

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_RETRY_AFTER: Final = {"Retry-After": "1"}


class TimeoutMiddleware:
    """Answers 503 in place of what takes too long to begin its answer: a body that drips in, a database that is stuck.

    A transaction that is under way then is not broken off: whether it is applied or not, a client that numbers its
    batches sends it again and it counts once.

    Args:
        app: What handles the request.
        seconds: How long a request may take until its answer begins.
    """

    def __init__(self, app: ASGIApp, seconds: float) -> None:
        self._app = app
        self._seconds = seconds
        self._left: set[asyncio.Task[None]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        answer = _Answer(send)
        task = asyncio.ensure_future(self._handle(scope, receive, answer))
        try:
            await asyncio.wait({task}, timeout=self._seconds)
            if not task.done() and answer.take_over():
                self._left.add(task)  # asyncio itself keeps tasks only weakly
                task.add_done_callback(self._left.discard)
                task.add_done_callback(_forget)
                detail = f"The request took longer than {self._seconds:g} seconds (tracker.request_timeout_s)."
                refusal = JSONResponse({"detail": detail}, HTTPStatus.SERVICE_UNAVAILABLE, _RETRY_AFTER)
                await refusal(scope, receive, send)
                return
            await task
        except asyncio.CancelledError:
            task.cancel()
            raise

    async def _handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)


class _Answer:
    """A ``send`` that is either the application's or, once taken over, of no effect."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._has_begun = False
        self._is_taken = False

    def take_over(self) -> bool:
        """Keep the application from answering; False when it has begun to."""
        self._is_taken = not self._has_begun
        return self._is_taken

    async def __call__(self, message: Message) -> None:
        if not self._is_taken:
            self._has_begun = True
            await self._send(message)


def _forget(task: asyncio.Task[None]) -> None:
    """Retrieve the outcome of a request that was answered already, so that asyncio does not complain of it."""
    if not task.cancelled():
        task.exception()
