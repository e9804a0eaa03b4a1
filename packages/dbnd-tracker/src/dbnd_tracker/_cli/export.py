"""Runs as files: JSON with everything, CSV and Parquet with the points of the metrics."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

from dbnd import UsageError
from dbnd.plugins import console
from dbnd_tracker._errors import TrackerError
from dbnd_tracker._tables import write_csv, write_parquet

if TYPE_CHECKING:
    from dbnd_tracker._reader import Reader
    from dbnd_tracker._views import RunDetail


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
        return write(reader, runs, console.output())
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


_WRITERS: Final[dict[str, Callable[[Reader, Sequence[RunDetail], IO[Any]], int]]] = {
    "json": _write_json,
    "csv": write_csv,
    "parquet": write_parquet,
}
