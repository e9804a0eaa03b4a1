"""Whole runs as files."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from fastapi.responses import StreamingResponse

from dbnd_tracker import _queries as queries

if TYPE_CHECKING:
    from collections.abc import Iterator

    from starlette.responses import Response

    from dbnd_tracker._database import Database

_POINTS_AT_ONCE = 50_000


def whole_run(database: Database, run_uid: str) -> Response | None:
    """A run with the logs and all points of its task runs as a file of JSON, or None when there is no such run.

    Points are read and sent a part at a time, so that a run of any length takes little memory.
    """
    with database.read() as session:
        found = queries.run_detail(session, run_uid)
    if found is None:
        return None
    run = found.model_dump(mode="json")
    tasks = run.pop("task_runs")

    def parts() -> Iterator[str]:
        yield f'{json.dumps(run)[:-1]}, "task_runs": ['
        for number, task in enumerate(tasks):
            with database.read() as session:
                log = queries.task_run_log(session, task["task_run_uid"])
            task["log_body"] = None if log is None else log.log_body
            yield f'{", " if number else ""}{json.dumps(task)[:-1]}, "points": {{'
            for place, metric in enumerate(task["metrics"]):
                yield f"{', ' if place else ''}{json.dumps(metric['key'])}: ["
                yield from _points(database, task["task_run_uid"], metric["key"])
                yield "]"
            yield "}}"
        yield "]}"

    headers = {"Content-Disposition": f'attachment; filename="run-{found.run_uid}.json"'}
    return StreamingResponse(parts(), media_type="application/json", headers=headers)


def _points(database: Database, task_run_uid: str, key: str) -> Iterator[str]:
    after: int | None = 0
    separator = ""
    while after is not None:
        with database.read() as session:
            page = queries.metric_history(session, task_run_uid, key, limit=_POINTS_AT_ONCE, after=after)
        if page.data:
            yield separator + json.dumps([point.model_dump(mode="json") for point in page.data])[1:-1]
            separator = ", "
        after = page.after
