"""Whole runs as files."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Final, Literal

from fastapi.responses import StreamingResponse

from dbnd import UsageError
from dbnd_tracker import _queries as queries
from dbnd_tracker._reader import DatabaseReader
from dbnd_tracker._tables import csv_parts, parquet_parts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from starlette.responses import Response

    from dbnd_tracker._storage.database import Database

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
    reader = DatabaseReader(database, "the database")
    sink = _Sink()
    if form == "parquet":
        written = parquet_parts(reader, [found], sink)
    else:
        written = csv_parts(reader, [found], io.TextIOWrapper(sink, encoding="utf-8", newline="", write_through=True))
    try:
        next(written)
    except UsageError as error:
        raise queries.QueryError(str(error)) from None

    def parts() -> Iterator[bytes]:
        yield sink.take()
        for _ in written:
            if sink.size >= _BYTES_AT_ONCE:
                yield sink.take()
        yield sink.take()

    headers = {"Content-Disposition": f'attachment; filename="run-{found.run_uid}.{form}"'}
    return StreamingResponse(parts(), media_type=MEDIA_TYPES[form], headers=headers)


class _Sink(io.BytesIO):
    """A file that is taken away as it is written: neither memory nor the time until an answer begins grow with it."""

    def __init__(self) -> None:
        super().__init__()
        self._taken = 0

    @property
    def size(self) -> int:
        """How much there is to take."""
        return super().tell()

    def tell(self) -> int:
        """Where the file ends; formats note where their parts begin."""
        return self._taken + super().tell()

    def seekable(self) -> bool:
        """What was taken cannot be written again."""
        return False

    def close(self) -> None:
        """Stay open: what was written last is taken when the writer has ended."""

    def take(self) -> bytes:
        """What was written since the last time."""
        part = self.getvalue()
        self._taken += len(part)
        self.seek(0)
        self.truncate()
        return part


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
