"""Runs as files that are sent while they are written: neither memory nor the time until they begin grows with a run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal

from fastapi.responses import StreamingResponse

from dbnd import UsageError
from dbnd_tracker._exports import FORMS, run_json
from dbnd_tracker._queries.expressions import QueryError
from dbnd_tracker._reader import DatabaseReader

if TYPE_CHECKING:
    from collections.abc import Iterator

    from starlette.responses import Response

    from dbnd_tracker._storage.database import Database

Form = Literal["json", "csv", "parquet"]

MEDIA_TYPES: Final[dict[Form, str]] = {
    "json": "application/json",
    "csv": "text/csv",
    "parquet": "application/vnd.apache.parquet",
}
_SIZE_AT_ONCE: Final = 1 << 18


def export(database: Database, run_uid: str, form: Form) -> Response | None:
    """A run as a file, or None when there is no such run: whole as JSON, else a table of its metrics' points.

    Raises:
        QueryError: Parquet is asked for, and there is no pyarrow.
    """
    reader = DatabaseReader(database, "the database")
    run = reader.run(run_uid)
    if run is None:
        return None
    parts: Iterator[tuple[Any, int]] = run_json(reader, run) if form == "json" else FORMS[form](reader, [run])
    try:
        first, _ = next(parts)
    except UsageError as error:
        raise QueryError(str(error)) from None

    def chunks() -> Iterator[str | bytes]:
        yield first
        pending, size = [], 0
        for part, _ in parts:
            pending.append(part)
            size += len(part)
            if size >= _SIZE_AT_ONCE:
                yield first[:0].join(pending)
                pending, size = [], 0
        yield first[:0].join(pending)

    headers = {"Content-Disposition": f'attachment; filename="run-{run.run_uid}.{form}"'}
    return StreamingResponse(chunks(), media_type=MEDIA_TYPES[form], headers=headers)
