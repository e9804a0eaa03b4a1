"""Runs as files that are sent while they are written, so that a run of any length takes little memory."""

from __future__ import annotations

import io
from typing import IO, TYPE_CHECKING, Any, Final, Literal

from fastapi.responses import StreamingResponse

from dbnd import UsageError
from dbnd_tracker._exports import write_csv, write_parquet, write_run
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
_BYTES_AT_ONCE: Final = 1 << 18


def export(database: Database, run_uid: str, form: Form) -> Response | None:
    """A run as a file, or None when there is no such run: whole as JSON, else a table of its metrics' points.

    Raises:
        QueryError: Parquet is asked for, and there is no pyarrow.
    """
    reader = DatabaseReader(database, "the database")
    run = reader.run(run_uid)
    if run is None:
        return None
    sink = _Sink()
    text: IO[Any] = io.TextIOWrapper(sink, encoding="utf-8", newline="", write_through=True)
    if form == "json":
        written = write_run(reader, run, text)
    elif form == "csv":
        written = write_csv(reader, [run], text)
    else:
        written = write_parquet(reader, [run], sink)
    try:
        next(written)
    except UsageError as error:
        raise QueryError(str(error)) from None

    def parts() -> Iterator[bytes]:
        yield sink.take()
        for _ in written:
            if sink.size >= _BYTES_AT_ONCE:
                yield sink.take()
        yield sink.take()

    headers = {"Content-Disposition": f'attachment; filename="run-{run.run_uid}.{form}"'}
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
