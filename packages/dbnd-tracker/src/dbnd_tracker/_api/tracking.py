"""The calls that clients make while runs go on."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool

from dbnd_tracker._errors import PayloadError
from dbnd_tracker._ingest import CALLS, BatchId, PartlyApplied, apply_call

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from dbnd_tracker._database import Database

BATCH_HEADER = "X-Databand-Batch"
APPLIED_HEADER = "X-Databand-Applied"


def tracking_router(database: Database) -> APIRouter:
    """A route for each call."""
    router = APIRouter(prefix="/api/v1", tags=["tracking"])
    for name, call in CALLS.items():
        path = name if name == "log_exception" else f"tracking/{name}"
        router.add_api_route(
            f"/{path}",
            _endpoint(database, name),
            methods=["POST"],
            name=name,
            summary=f"{name}: {(call.body.__doc__ or '').splitlines()[0]}",
            openapi_extra={
                "requestBody": {"required": True, "content": {"application/json": {"schema": {"type": "object"}}}},
                "parameters": [
                    {
                        "name": BATCH_HEADER,
                        "in": "header",
                        "required": False,
                        "description": "<journal id>:<first>-<last>: the numbered events that the call is made of. "
                        "What was applied before is not applied again.",
                        "schema": {"type": "string"},
                    }
                ],
            },
        )
    return router


def _endpoint(database: Database, name: str) -> Callable[[Request], Awaitable[JSONResponse]]:
    async def endpoint(request: Request) -> JSONResponse:
        raw = await request.body()
        header = request.headers.get(BATCH_HEADER)
        return await run_in_threadpool(_apply, database, name, raw, header)

    return endpoint


def _apply(database: Database, name: str, raw: bytes, header: str | None) -> JSONResponse:
    batch = None if header is None else BatchId.parse(header)
    try:
        return JSONResponse(apply_call(database, name, _parse(name, raw), batch))
    except PartlyApplied as error:
        return JSONResponse({"detail": str(error)}, HTTPStatus.CONFLICT, {APPLIED_HEADER: str(error.last)})


def _parse(name: str, raw: bytes) -> Any:  # noqa: ANN401  any JSON value
    """JSON with the bare words NaN, Infinity and -Infinity, as Python writes it."""
    try:
        return json.loads(raw)
    except (ValueError, RecursionError) as error:
        msg = f"The body of {name} is not JSON: {error}."
        raise PayloadError(msg) from None
