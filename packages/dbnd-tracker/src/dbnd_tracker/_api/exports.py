"""Whole runs as files."""

from __future__ import annotations

import io
import json
import tempfile
from typing import IO, TYPE_CHECKING, Final, Literal

from fastapi.responses import StreamingResponse

from dbnd._errors import UsageError
from dbnd_tracker import _queries as queries
from dbnd_tracker._reader import DatabaseReader
from dbnd_tracker._tables import write_csv, write_parquet

if TYPE_CHECKING:
    from collections.abc import Iterator

    from starlette.responses import Response

    from dbnd_tracker._database import Database
    from dbnd_tracker._views import RunDetail

TableForm = Literal["csv", "parquet"]

MEDIA_TYPES: Final[dict[TableForm, str]] = {"csv": "text/csv", "parquet": "application/vnd.apache.parquet"}
_POINTS_AT_ONCE: Final = 50_000
_BYTES_AT_ONCE: Final = 1 << 18


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


def points_table(database: Database, run_uid: str, form: TableForm) -> Response | None:
    """All points of the metrics of a run as a file of CSV or Parquet, or None when there is no such run.

    Raises:
        QueryError: Parquet is asked for, and there is no pyarrow.
    """
    with database.read() as session:
        found = queries.run_detail(session, run_uid)
    if found is None:
        return None
    file = tempfile.TemporaryFile()  # noqa: SIM115  closed when it has been sent
    try:
        _write_table(DatabaseReader(database, "the database"), found, form, file)
    except UsageError as error:
        file.close()
        raise queries.QueryError(str(error)) from None
    except BaseException:
        file.close()
        raise
    file.seek(0)

    def parts() -> Iterator[bytes]:
        with file:
            while part := file.read(_BYTES_AT_ONCE):
                yield part

    headers = {"Content-Disposition": f'attachment; filename="run-{found.run_uid}.{form}"'}
    return StreamingResponse(parts(), media_type=MEDIA_TYPES[form], headers=headers)


def _write_table(reader: DatabaseReader, run: RunDetail, form: TableForm, file: IO[bytes]) -> None:
    if form == "parquet":
        write_parquet(reader, [run], file)
        return
    text = io.TextIOWrapper(file, encoding="utf-8", newline="")
    write_csv(reader, [run], text)
    text.detach()


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
