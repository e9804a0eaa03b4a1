"""Runs as files: JSON with everything, CSV and Parquet with the points of the metrics."""

from __future__ import annotations

import csv
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

from dbnd._errors import UsageError
from dbnd_tracker._errors import TrackerError

if TYPE_CHECKING:
    from dbnd_tracker._reader import Reader
    from dbnd_tracker._views import RunDetail, TaskRunView

COLUMNS: Final = ("run_uid", "run_name", "job_name", "task", "metric", "step", "timestamp", "value", "text")
"""Columns of CSV and Parquet: the time in UTC; a value that is no number stands in ``text``."""
_CHUNK: Final = 50_000


def export_runs(reader: Reader, runs: Sequence[RunDetail], form: str, file: Path | None) -> int:
    """Write runs and return how many points that were.

    A file appears only when it is complete.

    Args:
        reader: Where the points are read.
        runs: What is written.
        form: "json", "csv" or "parquet".
        file: The file, or None for standard output.

    Raises:
        UsageError: Parquet for standard output, or without pyarrow.
        TrackerError: The file cannot be written.
    """
    write = _WRITERS[form]
    if file is None:
        if form == "parquet":
            msg = "Parquet needs a file: add -o FILE.parquet."
            raise UsageError(msg)
        return write(reader, runs, sys.stdout)
    try:
        with _complete(file, binary=form == "parquet") as stream:
            return write(reader, runs, stream)
    except OSError as error:
        msg = f"The file {file} cannot be written: {error.strerror or error}."
        raise TrackerError(msg) from None


@contextmanager
def _complete(file: Path, *, binary: bool) -> Iterator[IO[Any]]:
    part = file.with_name(f"{file.name}.part")
    try:
        with part.open("wb") if binary else part.open("w", encoding="utf-8", newline="") as stream:
            yield stream
        os.replace(part, file)  # noqa: PTH105  replaces what is there
    finally:
        part.unlink(missing_ok=True)


def _write_json(reader: Reader, runs: Sequence[RunDetail], stream: IO[str]) -> int:
    """An array of runs as ``dbnd runs show --json`` has them, each metric with its ``history``."""
    count = 0
    stream.write("[")
    for place, run in enumerate(runs):
        found = run.model_dump(mode="json")
        for task in found["task_runs"]:
            for metric in task["metrics"]:
                metric["history"] = list(reader.points(task["task_run_uid"], metric["key"]))
                count += len(metric["history"])
        stream.write(",\n" if place else "\n")
        json.dump(found, stream, indent=1)
    stream.write("\n]\n")
    return count


def _write_csv(reader: Reader, runs: Sequence[RunDetail], stream: IO[str]) -> int:
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(COLUMNS)
    count = 0
    for row in _rows(reader, runs):
        count += 1
        writer.writerow([value.isoformat() if isinstance(value, datetime) else value for value in row])
    return count


def _write_parquet(reader: Reader, runs: Sequence[RunDetail], stream: IO[bytes]) -> int:
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError:
        msg = "Parquet needs the Python package pyarrow: install it, or export to CSV."
        raise UsageError(msg) from None
    kinds = {"step": pa.int64(), "timestamp": pa.timestamp("ms", tz="UTC"), "value": pa.float64()}
    schema = pa.schema([(name, kinds.get(name, pa.string())) for name in COLUMNS])
    count = 0
    with parquet.ParquetWriter(stream, schema) as writer:
        chunk: list[tuple[Any, ...]] = []
        for row in _rows(reader, runs):
            chunk.append(row)
            if len(chunk) == _CHUNK:
                count += _write_chunk(pa, writer, schema, chunk)
        count += _write_chunk(pa, writer, schema, chunk)
    return count


def _write_chunk(pa: Any, writer: Any, schema: Any, chunk: list[tuple[Any, ...]]) -> int:  # noqa: ANN401  pyarrow
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
    time = datetime.fromtimestamp(point["timestamp"] / 1000, timezone.utc)
    return (run.run_uid, run.name, run.job_name, name, key, point["step"], time, number, text)


_WRITERS: Final[dict[str, Callable[[Reader, Sequence[RunDetail], IO[Any]], int]]] = {
    "json": _write_json,
    "csv": _write_csv,
    "parquet": _write_parquet,
}
