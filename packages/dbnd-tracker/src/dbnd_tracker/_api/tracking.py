"""The calls that clients make while runs go on."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from itertools import islice
from typing import Final

from anyio.to_thread import run_sync
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from starlette.datastructures import Headers

from dbnd.tracking import PartlyAppliedError
from dbnd_tracker._errors import PayloadError
from dbnd_tracker._ingest import CALLS, BatchId, apply_points, apply_raw, parse_json
from dbnd_tracker._ingest.limits import check_json
from dbnd_tracker._middleware.answers import POINTS_FORM, POINTS_HEADER
from dbnd_tracker._middleware.observing import ServerMetrics
from dbnd_tracker._storage.database import Database

BATCH_HEADER = "X-Databand-Batch"
APPLIED_HEADER = "X-Databand-Applied"
DROPPED_HEADER = "X-Databand-Dropped"
"""``<run uid>=<number of events>,…``: events of the call that were dropped, since their runs were deleted."""
_MAX_DROPPED: Final = 100

_BATCH_PARAMETER: Final = {
    "name": BATCH_HEADER,
    "in": "header",
    "required": False,
    "description": "<journal id>:<first>-<last>: the numbered events that the call is made of. "
    "What was applied before is not applied again.",
    "schema": {"type": "string", "pattern": "^[0-9a-f]{32}:[0-9]{1,18}-[0-9]{1,18}$"},
}
_POINTS_PARAMETER: Final = {
    "name": POINTS_HEADER,
    "in": "header",
    "required": False,
    "description": 'With the value 1, the body is {"points": [[attempt uid, source, points], …]}, and points is a list '
    "with five values of each point, one point after the other: key, value, time in µs since the epoch, step or null, "
    "and mark (s: text, j: JSON, d: deleted) or null.",
    "schema": {"type": "string", "enum": [POINTS_FORM]},
}


def _endpoint(name: str) -> Callable[[Request], Awaitable[JSONResponse]]:
    async def endpoint(request: Request) -> JSONResponse:
        raw = await request.body()
        state = request.app.state
        given = state.database, state.metrics, name, raw, request.headers
        return await run_sync(_apply, *given, limiter=state.calling_threads)

    return endpoint


def call_path(name: str) -> str:
    """The path of a call below that of the API."""
    return f"/{name}" if name == "log_exception" else f"/tracking/{name}"


router = APIRouter(prefix="/api/v1", tags=["tracking"])

for _name, _call in CALLS.items():
    router.add_api_route(
        call_path(_name),
        _endpoint(_name),
        methods=["POST"],
        name=_name,
        summary=f"{_name}: {(_call.body.__doc__ or '').splitlines()[0]}",
        openapi_extra={
            "requestBody": {"required": True, "content": {"application/json": {"schema": {"type": "object"}}}},
            "parameters": [_BATCH_PARAMETER, *([_POINTS_PARAMETER] if _name == "log_metrics" else [])],
        },
    )


def _apply(database: Database, metrics: ServerMetrics, name: str, raw: bytes, headers: Headers) -> JSONResponse:
    given = headers.get(BATCH_HEADER)
    batch = None if given is None else BatchId.parse(given)
    try:
        if POINTS_HEADER in headers and name == "log_metrics":
            check_json(raw)
            applied = apply_points(database, _groups(parse_json(name, raw), headers[POINTS_HEADER]), batch)
        else:
            applied = apply_raw(database, name, raw, batch)
        metrics.dropped.inc(sum(applied.dropped.values()))
        # Whoever asks takes only an answer that says this for a delivery: a proxy's page may be a 200, too.
        said = {} if batch is None else {APPLIED_HEADER: str(batch.last)}
        return JSONResponse(applied.answer, headers={**said, **_dropped(applied.dropped)})
    except PartlyAppliedError as error:
        detail = f"Events up to {error.last} are applied already; send the others in a batch of their own."
        return JSONResponse({"detail": detail}, 409, {APPLIED_HEADER: str(error.last)})


def _dropped(dropped: Mapping[str, int]) -> dict[str, str]:
    """The header that says what was dropped; of more runs than a header has room for, some."""
    some = [f"{run_uid}={events}" for run_uid, events in islice(dropped.items(), _MAX_DROPPED)]
    return {DROPPED_HEADER: ",".join(some)} if some else {}


def _groups(body: object, form: str) -> object:
    """The points of a body of form ``form``, the value of ``POINTS_HEADER``."""
    if form != POINTS_FORM:
        raise PayloadError(f"This tracker takes points of the form {POINTS_FORM}, not {form[:80]!r} ({POINTS_HEADER}).")
    if not isinstance(body, dict) or "points" not in body:
        raise PayloadError(f'The body of log_metrics with {POINTS_HEADER} is not {{"points": [group, …]}}.')
    return body["points"]
