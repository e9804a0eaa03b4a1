"""Runs as files, for the terminal and the read API: as JSON with everything, as CSV and Parquet with their points."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timezone
from itertools import islice
from typing import IO, TYPE_CHECKING, Any, Final

from dbnd import UsageError

if TYPE_CHECKING:
    from dbnd_tracker._reader import RunReader
    from dbnd_tracker._views import RunDetail, TaskRunView

COLUMNS: Final = ("run_uid", "run_name", "job_name", "task", "metric", "step", "timestamp", "value", "text")
"""Columns of CSV and Parquet: the time in UTC; a value that is no number stands in ``text``."""
_CHUNK: Final = 50_000
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""Starts of what spreadsheets compute, those in full width included, as OWASP lists them."""


def write_run(reader: RunReader, run: RunDetail, stream: IO[str]) -> Iterator[int]:
    """Write a run as JSON, a part at a time, and yield how many points each part has.

    It is the run as the read API has it, each task run with its ``log_body`` and, by metric, all ``points``.
    """
    tasks = [task.model_dump(mode="json") for task in run.task_runs]
    stream.write(f'{run.model_dump_json(exclude={"task_runs"})[:-1]}, "task_runs": [')
    for number, task in enumerate(tasks):
        task["log_body"] = reader.log(task["task_run_uid"])
        stream.write(f'{", " if number else ""}{json.dumps(task)[:-1]}, "points": {{')
        for place, metric in enumerate(task["metrics"]):
            stream.write(f"{', ' if place else ''}{json.dumps(metric['key'])}: [")
            yield 0
            for count, point in enumerate(reader.points(task["task_run_uid"], metric["key"])):
                stream.write(f"{', ' if count else ''}{json.dumps(point)}")
                yield 1
            stream.write("]")
        stream.write("}}")
    stream.write("]}")
    yield 0


def write_json(reader: RunReader, runs: Sequence[RunDetail], stream: IO[str]) -> Iterator[int]:
    """Write an array of runs (see ``write_run``)."""
    stream.write("[")
    for number, run in enumerate(runs):
        stream.write(",\n" if number else "\n")
        yield from write_run(reader, run, stream)
    stream.write("\n]\n")


class _Lines:
    """Ends the lines of CSV as Unix does; the writer itself ends them otherwise, so that it quotes both characters."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def write(self, line: str) -> int:
        """Write one line."""
        return self._stream.write(line.removesuffix("\r\n") + "\n")


def write_csv(reader: RunReader, runs: Sequence[RunDetail], stream: IO[str]) -> Iterator[int]:
    """Write all points of ``runs`` as CSV, and yield how many were written since the last time, at first none.

    Text that a spreadsheet would take for a formula gets an apostrophe in front; numbers stay numbers.
    """
    writer = csv.writer(_Lines(stream))
    writer.writerow(COLUMNS)
    yield 0
    for row in _rows(reader, runs):
        writer.writerow([_cell(value) for value in row])
        yield 1


def _cell(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def write_parquet(reader: RunReader, runs: Sequence[RunDetail], stream: IO[bytes]) -> Iterator[int]:
    """Write all points of ``runs`` as Parquet, and yield how many were written since the last time, at first none.

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
        rows = _rows(reader, runs)
        while chunk := list(islice(rows, _CHUNK)):
            columns = zip(zip(*chunk, strict=True), schema, strict=True)
            writer.write_table(pa.Table.from_arrays([pa.array(values, f.type) for values, f in columns], schema=schema))
            yield len(chunk)


WRITERS: Final[dict[str, Callable[[RunReader, Sequence[RunDetail], IO[Any]], Iterator[int]]]] = {
    "json": write_json,
    "csv": write_csv,
    "parquet": write_parquet,
}


def _rows(reader: RunReader, runs: Sequence[RunDetail]) -> Iterator[tuple[Any, ...]]:
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
    time = datetime.fromtimestamp(point["timestamp"] / 1000, timezone.utc)
    return (run.run_uid, run.name, run.job_name, name, key, point["step"], time, number, text)
