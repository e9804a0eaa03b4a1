"""What machines ask of a server: whether it lives, whether it can work, and its counters."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anyio import CapacityLimiter
from anyio.to_thread import run_sync
from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse
from sqlalchemy import text

from dbnd_tracker._errors import StorageError

if TYPE_CHECKING:
    from dbnd_tracker._middleware.observing import ServerMetrics
    from dbnd_tracker._storage.database import Database


def health_router(database: Database, metrics: ServerMetrics) -> APIRouter:
    """Routes for supervisors, load balancers and Prometheus."""
    router = APIRouter(tags=["health"])
    threads = CapacityLimiter(1)  # of its own: where all others are busy, the answer is not later for that

    @router.get("/healthz")
    async def healthz() -> dict[str, str]:
        """Say that the process lives."""
        return {"status": "ok"}

    @router.get("/readyz", responses={503: {"description": "The database cannot be used now."}})
    async def readyz() -> Response:
        """Say whether the database can be used."""

        def ask() -> None:
            with database.read() as session:
                session.execute(text("SELECT 1"))

        try:
            await run_sync(ask, limiter=threads)
        except StorageError:  # its text names the database, which is nothing for everyone
            return JSONResponse({"status": "the database cannot be used"}, 503)
        return JSONResponse({"status": "ok"})

    @router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
    def counters() -> Response:
        """Counters in the text form of Prometheus."""
        return Response(metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    return router
