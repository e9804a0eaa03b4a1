"""The points of runs as tables: CSV and Parquet, the same from the terminal and from the read API."""

from __future__ import annotations

import csv
import json
from datetime import datetime, timedelta, timezone
from typing import IO, TYPE_CHECKING, Any, Final

from dbnd import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from dbnd_tracker._reader import Reader
    from dbnd_tracker._views import RunDetail, TaskRunView

COLUMNS: Final = ("run_uid", "run_name", "job_name", "task", "metric", "step", "timestamp", "value", "text")
"""Columns of CSV and Parquet: the time in UTC; a value that is no number stands in ``text``."""
_CHUNK: Final = 50_000
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=timezone.utc)
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""Starts of what spreadsheets compute, those in full width included, as OWASP lists them."""


class _Lines:
    """Ends the lines of CSV as Unix does; the writer itself ends them otherwise, so that it quotes both characters."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def write(self, line: str) -> int:
        """Write one line."""
        return self._stream.write(line.removesuffix("\r\n") + "\n")


def write_csv(reader: Reader, runs: Sequence[RunDetail], stream: IO[str]) -> int:
    """Write all points of ``runs`` as CSV, and return how many that were.

    Text that a spreadsheet would take for a formula gets an apostrophe in front; numbers stay numbers.
    """
    return sum(csv_parts(reader, runs, stream))


def csv_parts(reader: Reader, runs: Sequence[RunDetail], stream: IO[str]) -> Iterator[int]:
    """Do what ``write_csv`` does a part at a time: how many points were written since the last time, at first none."""
    writer = csv.writer(_Lines(stream))
    writer.writerow(COLUMNS)
    yield 0
    for row in _rows(reader, runs):
        writer.writerow([_cell(value) for value in row])
        yield 1


def _cell(value: Any) -> Any:
    """``value`` as a cell of CSV: text that a spreadsheet would take for a formula gets an apostrophe in front."""
    if isinstance(value, datetime):
        return value.isoformat()
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def write_parquet(reader: Reader, runs: Sequence[RunDetail], stream: IO[bytes]) -> int:
    """Write all points of ``runs`` as Parquet, and return how many that were.

    Raises:
        UsageError: There is no pyarrow.
    """
    return sum(parquet_parts(reader, runs, stream))


def parquet_parts(reader: Reader, runs: Sequence[RunDetail], stream: IO[bytes]) -> Iterator[int]:
    """Do what ``write_parquet`` does a part at a time: how many points were written, at first none.

    Raises:
        UsageError: There is no pyarrow.
    """
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError:
        msg = "Parquet needs the Python package pyarrow: `pip install 'dbnd-tracker[parquet]'`, or export to CSV."
        raise UsageError(msg) from None
    kinds = {"step": pa.int64(), "timestamp": pa.timestamp("ms", tz="UTC"), "value": pa.float64()}
    schema = pa.schema([(name, kinds.get(name, pa.string())) for name in COLUMNS])
    with parquet.ParquetWriter(stream, schema) as writer:
        yield 0
        chunk: list[tuple[Any, ...]] = []
        for row in _rows(reader, runs):
            chunk.append(row)
            if len(chunk) == _CHUNK:
                yield _write_chunk(pa, writer, schema, chunk)
        yield _write_chunk(pa, writer, schema, chunk)


def _write_chunk(pa: Any, writer: Any, schema: Any, chunk: list[tuple[Any, ...]]) -> int:
    written = len(chunk)
    columns = list(zip(*chunk, strict=True)) or [()] * len(COLUMNS)
    arrays = [pa.array(values, field.type) for values, field in zip(columns, schema, strict=True)]
    writer.write_table(pa.Table.from_arrays(arrays, schema=schema))
    chunk.clear()
    return written


def _rows(reader: Reader, runs: Sequence[RunDetail]) -> Iterator[tuple[Any, ...]]:
    for run in runs:
        for task in run.task_runs:
            for metric in task.metrics:
                for point in reader.points(task.task_run_uid, metric.key):
                    yield _row(run, task, metric.key, point)


def _row(run: RunDetail, task: TaskRunView, key: str, point: dict[str, Any]) -> tuple[Any, ...]:
    value, kind = point["value"], point["type"]
    number, text = None, None
    if kind in {"float", "int"}:  # NaN and infinities are read as their names
        number = value if isinstance(value, int) else float(value)
    else:
        text = value if kind == "str" else json.dumps(value, ensure_ascii=False)
    name = task.task_af_id or task.name or task.task_run_uid
    time = _EPOCH + timedelta(milliseconds=point["timestamp"])
    return (run.run_uid, run.name, run.job_name, name, key, point["step"], time, number, text)
