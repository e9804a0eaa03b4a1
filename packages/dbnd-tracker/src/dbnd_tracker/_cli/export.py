"""Runs as files: JSON with everything, CSV and Parquet with the points of the metrics."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from dbnd import UsageError
from dbnd.plugins import console
from dbnd_tracker._errors import TrackerError
from dbnd_tracker._exports import WRITERS

if TYPE_CHECKING:
    from dbnd_tracker._reader import RunReader
    from dbnd_tracker._views import RunDetail


def export_runs(reader: RunReader, runs: Sequence[RunDetail], form: str, file: Path | None) -> int:
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
    write = WRITERS[form]
    if file is None:
        if form == "parquet":
            msg = "Parquet needs a file: add -o FILE.parquet."
            raise UsageError(msg)
        return sum(write(reader, runs, console.output()))
    try:
        with _complete(file, binary=form == "parquet") as stream:
            return sum(write(reader, runs, stream))
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
