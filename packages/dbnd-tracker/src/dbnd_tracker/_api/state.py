"""What routes work with: the parts of the application that a request came to."""

from __future__ import annotations

from typing import Annotated

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


async def _cache(request: Request) -> SeriesCache:
    found: SeriesCache = request.app.state.cache
    return found


async def _keyring(request: Request) -> Keyring | None:
    found: Keyring | None = request.app.state.keyring
    return found


async def _metrics(request: Request) -> ServerMetrics:
    found: ServerMetrics = request.app.state.metrics
    return found


TheDatabase = Annotated[Database, Depends(_database)]
"""The database, or its replica for what only reads."""
TheCache = Annotated[SeriesCache, Depends(_cache)]
TheKeyring = Annotated[Keyring | None, Depends(_keyring)]
"""None where the tracker asks for no token."""
TheMetrics = Annotated[ServerMetrics, Depends(_metrics)]
