"""The archive: a folder with a Parquet file for each run, from which the points of old runs are read.

The segments of such a run stay in the database with all that is asked of them most, but without their data.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Final, NamedTuple
from uuid import uuid4

import numpy as np
from sqlalchemy import Connection, select

from dbnd import UsageError
from dbnd_tracker._errors import StorageError
from dbnd_tracker._storage.encoding import KIND_NAMES, Kind
from dbnd_tracker._storage.models import Attempt, MetricSeries, Run
from dbnd_tracker._storage.points.models import ARCHIVE, ARCHIVED, Segment
from dbnd_tracker._storage.points.segments import KIND, NO_STEP, NO_VALUE, Points

ABOUT: Final = b"databand.run"
"""Key of a file's metadata under which what the read API says of the run stands, as JSON."""
_NAMES: Final = ("run_uid", "run_name", "job_name", "task_run_uid", "task", "metric")
_READ: Final = ("step", "timestamp", "value", "type", "text")
# Differences take half of the room; of the encodings of values, plain is the one that every reader knows.
_PACKING: Final[dict[str, Any]] = {
    "compression": "zstd",
    "use_dictionary": [*_NAMES, "type", "text"],
    "column_encoding": dict.fromkeys(("series_id", "number", "step", "timestamp"), "DELTA_BINARY_PACKED"),
}
# Points of a part of a file that is compressed, and passed over, as a whole.
_GROUP: Final = 200_000


class ArchivedSeries(NamedTuple):
    names: Sequence[str | None]
    """Uid, name and job of the run, uid and name of the task run, name of the metric."""
    id: int
    points: Points


def write_archive(folder: Path, uid: str, started: datetime, series: Iterable[ArchivedSeries], about: str) -> Path:
    """Write the file of a run beside its place, until it is complete and on the disk; ``place_file`` moves it there.

    Raises:
        UsageError: There is no pyarrow.
        StorageError: The file cannot be written.
    """
    pa, parquet = _pyarrow()
    kinds = {"series_id": pa.int64(), "number": pa.int64(), "step": pa.int64(), "timestamp": pa.timestamp("us", "UTC")}
    kinds |= {"value": pa.float64(), "type": pa.string(), "text": pa.string()}
    fields = [*((name, pa.string()) for name in _NAMES), *kinds.items()]
    schema = pa.schema(fields, metadata={ABOUT: about.encode()})
    with _sentence("written", folder):
        path = _find_file(folder, uid) or folder / f"month={started:%Y-%m}" / f"{uid}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{uid}.{uuid4().hex}.part")
        try:
            with part.open("wb") as file:
                with parquet.ParquetWriter(file, schema, **_PACKING) as writer:
                    for tables in _groups(_table(pa, schema, each) for each in series):
                        writer.write_table(pa.concat_tables(tables), row_group_size=_GROUP)
                file.flush()
                os.fsync(file.fileno())
        except BaseException:
            part.unlink(missing_ok=True)
            raise
    return part


def place_file(part: Path, uid: str) -> None:
    """Let a file that was written be the one of its run, and delete what killed processes left beside it.

    Raises:
        StorageError: It cannot be moved.
    """
    with _sentence("written", part):
        part.replace(part.with_name(f"{uid}.parquet"))
        for left in part.parent.glob(f".{uid}.*.part"):  # of one that still writes: it will find that it came late
            left.unlink(missing_ok=True)
        entry = os.open(part.parent, os.O_RDONLY)
        os.fsync(entry)
        os.close(entry)


def _groups(tables: Iterable[Any]) -> Iterator[list[Any]]:
    """Tables of as many points together as make a part of a file."""
    group: list[Any] = []
    points = 0
    for table in tables:
        group.append(table)
        points += table.num_rows
        if points >= _GROUP:
            yield group
            group, points = [], 0
    if group:
        yield group


def _table(pa: Any, schema: Any, series: ArchivedSeries) -> Any:
    points, size = series.points, series.points.size
    kind = points.flags & KIND
    names = [pa.repeat(pa.scalar(name, pa.string()), size) for name in series.names]
    numbers = [pa.array(np.full(size, series.id)), pa.array(np.arange(1, size + 1))]
    no_value = ((points.flags & NO_VALUE) != 0) & (kind >= Kind.STR)  # otherwise it is NaN
    columns = [
        pa.array(points.step, mask=(points.flags & NO_STEP) != 0),
        pa.array(points.timestamp_us).cast(schema.field("timestamp").type),
        pa.array(points.value, mask=no_value),
        pa.array(KIND_NAMES.values()).take(pa.array(kind)),
        pa.array(map(points.texts.get, range(size)), pa.string()) if points.texts else pa.nulls(size, pa.string()),
    ]
    return pa.Table.from_arrays([*names, *numbers, *columns], schema=schema)


def read_archive(connection: Connection, series_id: int, after: int, last: int) -> Points:
    """The points of a series with the numbers above ``after`` up to ``last``, from the file of its run.

    Raises:
        StorageError: No folder is configured, or the file is not there or not whole.
    """
    of_series = select(Run.uid, Attempt.task_run_uid).join(Attempt, Attempt.run_id == Run.id).join(MetricSeries)
    uid, task_run_uid = connection.execute(of_series.where(MetricSeries.id == series_id)).one()
    paths = _files(connection, uid, task_run_uid)
    pa, parquet = _pyarrow()
    wanted = [("series_id", "=", series_id), ("number", ">", after), ("number", "<=", last)]
    table = None
    for path in paths:
        if table is None or table.num_rows != last - after:
            with _sentence("read", path):
                table = parquet.read_table(path, columns=list(_READ), filters=wanted, partitioning=None)
    if table is None or table.num_rows != last - after:
        raise StorageError(f"The file {paths[-1]} of the archive lacks points of the run.")
    step, timestamp, value, kind, text = (table[name].combine_chunks() for name in _READ)
    import pyarrow.compute as pc

    values = pc.fill_null(value, np.nan).to_numpy(zero_copy_only=False).copy()
    flags = pc.index_in(kind, pa.array(list(KIND_NAMES.values()))).to_numpy(zero_copy_only=False).astype("u1")
    flags += NO_STEP * step.is_null().to_numpy(zero_copy_only=False).astype("u1")
    flags += NO_VALUE * np.isnan(values).astype("u1")
    steps, times = pc.fill_null(step, 0).to_numpy(), timestamp.cast(pa.int64()).to_numpy()
    places = np.flatnonzero(text.is_valid().to_numpy(zero_copy_only=False)).tolist()
    texts = {place: text[place].as_py() for place in places}
    return Points(steps, times, values, flags, texts)


def check_archive(connection: Connection, run_uid: str) -> None:
    """Find out whether the files that have points of a run are there, and complete, before an answer with these begins.

    Raises:
        UsageError: There is no pyarrow.
        StorageError: No folder is configured, or a file is not there or was cut off.
    """
    archived = select(Attempt.task_run_uid).join(Run, Attempt.run_id == Run.id).join(MetricSeries)
    archived = archived.join(Segment, Segment.series_id == MetricSeries.id).where(Segment.version == ARCHIVED)
    tasks = connection.scalars(archived.where(Run.uid == run_uid).distinct()).all()
    for path in {path for task_run_uid in tasks for path in _files(connection, run_uid, task_run_uid)}:
        with _sentence("read", path):
            _pyarrow()[1].read_metadata(path)  # a file ends with it


def _files(connection: Connection, uid: str, task_run_uid: str | None) -> list[Path]:
    """The files that may have points of a task run: one or two."""
    folder: Path | None = connection.get_execution_options().get(ARCHIVE)
    if folder is None:
        raise StorageError(f"The points of the run {uid} are in the archive: set tracker.archive to its folder.")
    # What was a run of its own, of the same uid, may have become a task run of another one since.
    of_runs = dict.fromkeys((uid, str(task_run_uid)))
    paths = [path for of_run in of_runs if (path := _find_file(folder, of_run))]
    if not paths:
        raise StorageError(f"The points of the run {uid} are not in {folder} (tracker.archive), where they should be.")
    return paths


def remove_files(folder: Path, uids: Iterable[str]) -> None:
    """Delete the files of runs, unfinished ones included; StorageError when one cannot be deleted."""
    for uid in uids:
        for path in (*folder.glob(f"month=*/{uid}.parquet"), *folder.glob(f"month=*/.{uid}.*.part")):
            with _sentence("deleted", path):
                path.unlink(missing_ok=True)


def _find_file(folder: Path, uid: str) -> Path | None:
    """The file of a run, in whichever month it is."""
    return next((path for month in folder.glob("month=*") if (path := month / f"{uid}.parquet").exists()), None)


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError:
        text = "The archive needs the Python package pyarrow: `pip install 'dbnd-tracker[parquet]'`."
        raise UsageError(text) from None
    return pa, parquet


@contextmanager
def _sentence(what: str, path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:  # pyarrow's own errors are of both kinds
        raise StorageError(f"{path} of the archive cannot be {what}: {error}.") from error
