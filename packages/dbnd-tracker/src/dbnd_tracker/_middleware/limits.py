"""Limits on how many requests are under way, and on how long one may take."""

from __future__ import annotations

import asyncio
from typing import Final

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dbnd_tracker._middleware.bodies import declared_size
from dbnd_tracker._storage.writer import DEADLINE, Deadline

# Seconds beyond the time-out for a commit that has begun before.
_COMMIT: Final = 10.0


class CapacityMiddleware:
    """Refuses requests when too many are under way already; `/healthz` is answered still."""

    def __init__(self, app: ASGIApp, most: int) -> None:
        self._app = app
        self._most = most
        self._running = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._running >= self._most and scope["path"] != "/healthz":
            detail = f"{self._most} requests are under way already (tracker.max_connections)."
            raise HTTPException(503, detail, {"Retry-After": "1", "Connection": "close"})
        self._running += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._running -= 1


class TimeoutMiddleware:
    """Answers in place of what takes too long to begin its answer: a body that drips in, a database that is stuck.

    What was not committed by then is not committed later: a client that hears that nothing was applied may send it
    again, numbered or not.
    """

    def __init__(self, app: ASGIApp, seconds: float) -> None:
        self._app = app
        self._seconds = seconds
        self._left: set[asyncio.Task[None]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        deadline = Deadline()
        has_begun = is_taken_over = False
        is_read = declared_size(scope) == 0

        async def noting_receive() -> Message:
            nonlocal is_read
            message = await receive()
            is_read = is_read or not message.get("more_body", False)
            return message

        async def noting_send(message: Message) -> None:
            nonlocal has_begun
            if not is_taken_over:
                has_begun = True
                await send(message)

        async def handle() -> None:
            DEADLINE.set(deadline)
            await self._app(scope, noting_receive, noting_send)

        task = asyncio.ensure_future(handle())
        try:
            await asyncio.wait({task}, timeout=self._seconds)
            is_known = task.done() or has_begun or deadline.pass_by()
            if not is_known:
                await asyncio.wait({task}, timeout=_COMMIT)
            if task.done() or has_begun:
                await task
            else:
                is_taken_over = True
                self._leave(task)
                raise self._refusal(is_known=is_known, is_read=is_read)
        except asyncio.CancelledError:
            task.cancel()
            raise

    def _leave(self, task: asyncio.Task[None]) -> None:
        """End what works on the request; a thread that it waits for comes to its own end."""
        self._left.add(task)  # asyncio itself keeps tasks only weakly
        task.add_done_callback(self._left.discard)
        # Its outcome is retrieved, so that asyncio does not complain of it.
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        task.cancel()

    def _refusal(self, *, is_known: bool, is_read: bool) -> HTTPException:
        limit = f"{self._seconds:g} seconds (tracker.request_timeout_s)"
        if not is_read:
            detail = f"The body did not arrive within {limit}, and nothing of it was applied."
            return HTTPException(408, detail, {"Connection": "close"})
        what = "nothing of it was applied" if is_known else "the database has not said yet whether it is applied"
        detail = f"The request took longer than {limit}, and {what}."
        return HTTPException(503, detail, {"Retry-After": "1"})
