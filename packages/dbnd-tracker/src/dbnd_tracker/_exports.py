"""Runs as files, for the terminal and the read API: as JSON with everything, as CSV and Parquet with their points.

Each form is made a part at a time, so that a run of any length takes little memory: text or bytes, and how many points
they hold.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timezone
from itertools import islice
from typing import Any, Final

from dbnd import UsageError
from dbnd_tracker._reader import RunReader
from dbnd_tracker._views import RunDetail

COLUMNS: Final = ("run_uid", "run_name", "job_name", "task", "metric", "step", "timestamp", "value", "text")
"""Columns of CSV and Parquet: the time in UTC; a value that is no number stands in ``text``."""
_CHUNK: Final = 50_000
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""Starts of what spreadsheets compute, those in full width included, as OWASP lists them."""


def run_json(reader: RunReader, run: RunDetail) -> Iterator[tuple[str, int]]:
    """A run as the read API has it, each task run with its ``log_body`` and, by metric, all ``points``."""
    tasks = [task.model_dump(mode="json") for task in run.task_runs]
    head = json.dumps(run.model_dump(mode="json", exclude={"task_runs"}))  # its escapes keep it from the terminal
    yield f'{head[:-1]}, "task_runs": [', 0
    for number, task in enumerate(tasks):
        task["log_body"] = reader.log(task["task_run_uid"])
        yield f'{", " if number else ""}{json.dumps(task)[:-1]}, "points": {{', 0
        for place, metric in enumerate(task["metrics"]):
            yield f"{', ' if place else ''}{json.dumps(metric['key'])}: [", 0
            for count, point in enumerate(reader.points(task["task_run_uid"], metric["key"])):
                yield f"{', ' if count else ''}{json.dumps(point)}", 1
            yield "]", 0
        yield "}}", 0
    yield "]}", 0


def runs_json(reader: RunReader, runs: Sequence[RunDetail]) -> Iterator[tuple[str, int]]:
    yield "[", 0
    for number, run in enumerate(runs):
        yield ",\n" if number else "\n", 0
        yield from run_json(reader, run)
    yield "\n]\n", 0


class _Line:
    """Makes ``writerow`` return its line, which ends as in Unix; only with its own end both characters are quoted."""

    def write(self, line: str) -> str:
        return line.removesuffix("\r\n") + "\n"


def points_csv(reader: RunReader, runs: Sequence[RunDetail]) -> Iterator[tuple[str, int]]:
    line = csv_lines()
    yield line(COLUMNS), 0
    for row in _rows(reader, runs):
        yield line(row), 1


def csv_lines() -> Callable[[Sequence[Any]], str]:
    """What makes lines of CSV; text that a spreadsheet would take for a formula gets an apostrophe in front."""
    writer: Any = csv.writer(_Line())
    return lambda row: writer.writerow([_cell(value) for value in row])


def _cell(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def points_parquet(reader: RunReader, runs: Sequence[RunDetail]) -> Iterator[tuple[bytes, int]]:
    """All points of runs; UsageError where there is no pyarrow."""
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError:
        text = "Parquet needs the Python package pyarrow: `pip install 'dbnd-tracker[parquet]'`, or export to CSV."
        raise UsageError(text) from None
    kinds = {"step": pa.int64(), "timestamp": pa.timestamp("ms", tz="UTC"), "value": pa.float64()}
    schema = pa.schema([(name, kinds.get(name, pa.string())) for name in COLUMNS])
    sink = _Sink()
    with parquet.ParquetWriter(sink, schema) as writer:
        yield sink.take(), 0
        rows = _rows(reader, runs)
        while chunk := list(islice(rows, _CHUNK)):
            columns = zip(zip(*chunk, strict=True), schema, strict=True)
            writer.write_table(pa.Table.from_arrays([pa.array(values, f.type) for values, f in columns], schema=schema))
            yield sink.take(), len(chunk)
    yield sink.take(), 0


class _Sink(io.BytesIO):
    """A file that is taken away as it is written."""

    taken = 0

    def tell(self) -> int:
        """Where the file ends; formats note where their parts begin."""
        return self.taken + super().tell()

    def seekable(self) -> bool:
        """What was taken cannot be written again."""
        return False

    def close(self) -> None:
        """Stay open: what was written last is taken when the writer has ended."""

    def take(self) -> bytes:
        """What was written since the last time."""
        part = self.getvalue()
        self.taken += len(part)
        self.seek(0)
        self.truncate()
        return part


FORMS: Final[dict[str, Callable[[RunReader, Sequence[RunDetail]], Iterator[tuple[Any, int]]]]] = {
    "json": runs_json,
    "csv": points_csv,
    "parquet": points_parquet,
}


def _rows(reader: RunReader, runs: Sequence[RunDetail]) -> Iterator[tuple[Any, ...]]:
    for run in runs:
        for task in run.task_runs:
            for metric in task.metrics:
                for point in reader.points(task.task_run_uid, metric.key):
                    place = (run.run_uid, run.name, run.job_name, task.label, metric.key, point["step"])
                    yield *place, *point_cells(point["timestamp"], point["value"], point["type"])


def point_cells(timestamp: int, value: Any, kind: str) -> tuple[datetime, float | None, str | None]:
    """Time, number and text of a point, of whose number or text there is one."""
    time = datetime.fromtimestamp(timestamp / 1000, timezone.utc)
    if kind in {"float", "int"}:  # NaN and infinities are read as their names
        return time, (value if isinstance(value, int) else float(value)), None
    return time, None, value if kind == "str" else json.dumps(value, ensure_ascii=False)
