"""The routes of what charts draw: parts of histories, and all points as a file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from dbnd_tracker._api.pages import HEADERS, answer
from dbnd_tracker._api.state import TheCache, TheDatabase
from dbnd_tracker._exports import csv_lines, point_cells
from dbnd_tracker._queries.points.lines import Axis
from dbnd_tracker._queries.points.metrics import find_all_series, metric_history
from dbnd_tracker._queries.points.series import chart_sample
from dbnd_tracker._queries.table.row_series import drawn_task_runs
from dbnd_tracker._storage.database import Database

_MAX_VALUES: Final = 5_000
_MAX_LINES: Final = 50
_COLUMNS: Final = ("task_run_uid", "metric", "step", "timestamp", "value", "text")

router = APIRouter(include_in_schema=False)

_Tasks = Annotated[list[str], Query(min_length=1, max_length=_MAX_LINES)]
_From = Annotated[float | None, Query(alias="from", allow_inf_nan=False)]
_To = Annotated[float | None, Query(alias="to", allow_inf_nan=False)]
_Values = Annotated[int, Query(ge=1, le=_MAX_VALUES)]


@router.get("/app/series")
def series(  # noqa: PLR0913  the parameters of a query
    *,
    database: TheDatabase,
    cache: TheCache,
    request: Request,
    task: _Tasks,
    key: str,
    axis: Axis = "step",
    first: _From = None,
    last: _To = None,
    values: _Values = 1_000,
) -> Response:
    """A part of one metric's history in each of some task runs, as a chart draws them."""
    samples = []
    uids = [uid.lower() for uid in task]
    with database.read() as session:
        found = find_all_series(session, uids, key)
        for uid in uids:
            if uid not in found:
                return JSONResponse({"detail": f"The task run {uid} has no metric {key!r}."}, 404, HEADERS)
            sample = chart_sample(session, cache, found[uid], axis=axis, first=first, last=last, values=values)
            samples.append(sample._asdict())
    return answer(request, JSONResponse(samples))


@router.get("/app/rows")
def row_series(  # noqa: PLR0913  the parameters of a query
    *,
    database: TheDatabase,
    cache: TheCache,
    request: Request,
    row: _Tasks,
    key: str,
    axis: Axis = "step",
    first: _From = None,
    last: _To = None,
    values: _Values = 200,
) -> Response:
    """The same of rows of the table, by their uids; what has not got the metric is left out."""
    samples = []
    with database.read() as session:
        drawn = drawn_task_runs(session, [each.lower() for each in row], key, _MAX_LINES)
        found = find_all_series(session, [each.task_run_uid for each in drawn], key)
        for each in drawn:
            if series := found.get(each.task_run_uid):
                sample = chart_sample(session, cache, series, axis=axis, first=first, last=last, values=values)
                samples.append({"row": each.row, "task": each.task_run_uid, "name": each.name, **sample._asdict()})
    return answer(request, JSONResponse(samples))


@router.get("/app/points.csv")
def points(database: TheDatabase, task: _Tasks, key: Annotated[list[str], Query(min_length=1)]) -> Response:
    """All points of a chart: of each task its metric, of which there are as many, or one that is common to all."""
    keys = key * len(task) if len(key) == 1 else key
    headers = {**HEADERS, "Content-Disposition": 'attachment; filename="points.csv"'}
    return StreamingResponse(_lines(database, zip(task, keys, strict=False)), media_type="text/csv", headers=headers)


def _lines(database: Database, series: Iterable[tuple[str, str]]) -> Iterator[str]:
    line = csv_lines()
    yield line(_COLUMNS)
    for task_run_uid, key in series:
        yield from map(line, _points(database, task_run_uid.lower(), key))


def _points(database: Database, task_run_uid: str, key: str) -> Iterator[tuple[Any, ...]]:
    after: int | None = 0
    while after is not None:
        with database.read() as session:
            page = metric_history(session, task_run_uid, key, after=after)
        for point in page.data:
            yield task_run_uid, key, point.step, *point_cells(point.timestamp, point.value, point.type)
        after = page.after
