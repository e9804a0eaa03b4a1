"""A limit on how long a request may take."""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from fastapi.responses import JSONResponse

from dbnd_tracker._middleware.bodies import declared_size
from dbnd_tracker._storage.deadline import DEADLINE, Deadline

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_RETRY_AFTER: Final = {"Retry-After": "1"}
# Seconds beyond the time-out for a commit that has begun before.
_COMMIT: Final = 10.0


class TimeoutMiddleware:
    """Answers in place of what takes too long to begin its answer: a body that drips in, a database that is stuck.

    What was not committed by then is not committed later: a client that hears that nothing was applied may send it
    again, numbered or not.

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
        deadline = Deadline()
        answer = _Answer(send)
        body = _Body(receive, is_whole=declared_size(scope) == 0)
        task = asyncio.ensure_future(self._handle(deadline, scope, body, answer))
        try:
            await asyncio.wait({task}, timeout=self._seconds)
            is_known = task.done() or answer.has_begun or deadline.pass_by()
            if not is_known:
                await asyncio.wait({task}, timeout=_COMMIT)
            if not task.done() and answer.take_over():
                self._leave(task)
                await self._refusal(is_known=is_known, is_read=body.is_whole)(scope, receive, send)
                return
            await task
        except asyncio.CancelledError:
            task.cancel()
            raise

    async def _handle(self, deadline: Deadline, scope: Scope, receive: Receive, send: Send) -> None:
        DEADLINE.set(deadline)
        await self._app(scope, receive, send)

    def _leave(self, task: asyncio.Task[None]) -> None:
        """End what works on the request; a thread that it waits for comes to its own end."""
        self._left.add(task)  # asyncio itself keeps tasks only weakly
        task.add_done_callback(self._left.discard)
        task.add_done_callback(_forget)
        task.cancel()

    def _refusal(self, *, is_known: bool, is_read: bool) -> JSONResponse:
        limit = f"{self._seconds:g} seconds (tracker.request_timeout_s)"
        if not is_read:
            detail = f"The body did not arrive within {limit}, and nothing of it was applied."
            return JSONResponse({"detail": detail}, HTTPStatus.REQUEST_TIMEOUT, {"Connection": "close"})
        what = "nothing of it was applied" if is_known else "the database has not said yet whether it is applied"
        detail = f"The request took longer than {limit}, and {what}."
        return JSONResponse({"detail": detail}, HTTPStatus.SERVICE_UNAVAILABLE, _RETRY_AFTER)


class _Answer:
    """A ``send`` that is either the application's or, once taken over, of no effect."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.has_begun = False
        self._is_taken = False

    def take_over(self) -> bool:
        """Keep the application from answering; False when it has begun to."""
        self._is_taken = not self.has_begun
        return self._is_taken

    async def __call__(self, message: Message) -> None:
        if not self._is_taken:
            self.has_begun = True
            await self._send(message)


class _Body:
    """A ``receive`` that notes whether the whole body has come."""

    def __init__(self, receive: Receive, *, is_whole: bool) -> None:
        self._receive = receive
        self.is_whole = is_whole

    async def __call__(self) -> Message:
        message = await self._receive()
        self.is_whole = self.is_whole or not message.get("more_body", False)
        return message


def _forget(task: asyncio.Task[None]) -> None:
    """Retrieve the outcome of a request that was answered already, so that asyncio does not complain of it."""
    if not task.cancelled():
        task.exception()
