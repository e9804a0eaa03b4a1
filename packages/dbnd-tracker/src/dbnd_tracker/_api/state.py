"""What routes work with: the parts of the application that a request came to."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Depends, Request

from dbnd_tracker._access.tokens import Keyring
from dbnd_tracker._middleware.observing import ServerMetrics
from dbnd_tracker._middleware.replica import REPLICA
from dbnd_tracker._queries.points.arrays import SeriesCache
from dbnd_tracker._storage.database import Database


# Coroutines, since what is none would take a thread for each request.
async def _database(request: Request) -> Database:
    found: Database = request.scope.get(REPLICA) or request.app.state.database
    return found


def _part(name: str) -> Any:
    """What the application has under a name."""

    async def found(request: Request) -> Any:
        return getattr(request.app.state, name)

    return Depends(found)


TheDatabase = Annotated[Database, Depends(_database)]
"""The database, or its replica for what only reads."""
TheCache = Annotated[SeriesCache, _part("cache")]
TheKeyring = Annotated[Keyring | None, _part("keyring")]
"""None where the tracker asks for no token."""
TheMetrics = Annotated[ServerMetrics, _part("metrics")]
