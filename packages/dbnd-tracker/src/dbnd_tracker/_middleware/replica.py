"""Reading from a replica of the database, and from the database itself where that does not do."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import Final

from anyio.to_thread import run_sync
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dbnd_tracker._access.roles import Role, role_needed
from dbnd_tracker._errors import StorageError
from dbnd_tracker._storage.database import Database
from dbnd_tracker._storage.replica import Replica, written

REPLICA: Final = "dbnd_replica"
"""In the scope of a request: the replica, if it is to be answered from there."""
COOKIE: Final = "databand_written"
"""Position in the database's log of the last change that its bearer has made."""
# Seconds that a browser keeps it: a replica that lags by more is of no use.
_KEPT: Final = 3600
_POSITION: Final = re.compile("[0-9]{1,20}")
# What is not there may be there soon, and what cannot be read may be elsewhere.
_DOUBTFUL: Final = {404, 503}


class ReplicaMiddleware:
    """Lets what only asks be answered from the replica.

    Who has changed something carries a cookie that says where in the log that stands, and is answered from the database
    itself until the replica has come so far. So is everybody for whom the replica has nothing, or does not answer.
    """

    def __init__(self, app: ASGIApp, database: Database, replica: Replica) -> None:
        self._app = app
        self._database = database
        self._replica = replica

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        needed = role_needed(scope["method"], scope["path"])
        if needed is Role.READ and scope["method"] == "GET" and await self._has_answered(scope, receive, send):
            return
        await self._app(scope, receive, self._marking(send) if needed is Role.ADMIN else send)

    async def _knows(self, position: str) -> bool:
        """Whether the replica is there, and has what was written up to a position."""
        if self._replica.is_away or _POSITION.fullmatch(position) is None:
            return not self._replica.is_away
        try:
            return await run_sync(self._replica.has, int(position))
        except StorageError:
            return False

    async def _has_answered(self, scope: Scope, receive: Receive, send: Send) -> bool:
        """Answer from the replica, if it can."""
        if not await self._knows(Request(scope).cookies.get(COOKIE, "")):
            return False
        inner = {**scope, REPLICA: self._replica}
        is_doubtful = False

        async def holding(message: Message) -> None:
            nonlocal is_doubtful
            if message["type"] == "http.response.start":
                is_doubtful = message["status"] in _DOUBTFUL
            if not is_doubtful:
                await send(message)

        try:
            await self._app(inner, receive, holding)
        finally:
            scope["route"] = inner.get("route")
        return not is_doubtful

    def _marking(self, send: Send) -> Send:
        async def marking(message: Message) -> None:
            if message["type"] == "http.response.start":
                with suppress(StorageError):  # what was written is written
                    position = await run_sync(written, self._database)
                    mark = f"{COOKIE}={position}; Path=/; Max-Age={_KEPT}; HttpOnly; SameSite=Lax"
                    MutableHeaders(scope=message).append("set-cookie", mark)
            await send(message)

        return marking
