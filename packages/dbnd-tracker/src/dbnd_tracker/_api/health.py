"""What machines ask of a server: whether it lives, whether it can work, and its counters."""

from __future__ import annotations

from anyio.to_thread import run_sync
from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from sqlalchemy import text

from dbnd_tracker._api.state import TheDatabase, TheMetrics
from dbnd_tracker._errors import StorageError

router = APIRouter(tags=["health"])


@router.get("/healthz")
async def healthz() -> dict[str, str]:
    """Say that the process lives."""
    return {"status": "ok"}


@router.get("/readyz", responses={503: {"description": "The database cannot be used now."}})
async def readyz(request: Request, database: TheDatabase) -> Response:
    """Say whether the database can be used."""

    def ask() -> None:
        with database.read() as session:
            session.execute(text("SELECT 1"))

    try:
        await run_sync(ask, limiter=request.app.state.health_thread)
    except StorageError:  # its text names the database, which is nothing for everyone
        return JSONResponse({"status": "the database cannot be used"}, 503)
    return JSONResponse({"status": "ok"})


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
def counters(metrics: TheMetrics) -> Response:
    """Counters in the text form of Prometheus."""
    return Response(metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")
