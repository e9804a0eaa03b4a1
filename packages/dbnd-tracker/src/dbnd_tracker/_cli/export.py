"""``dbnd runs export``: runs as files."""

from __future__ import annotations

from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from dbnd import UsageError
from dbnd.plugins import console
from dbnd_tracker._errors import TrackerError
from dbnd_tracker._exports import FORMS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from dbnd_tracker._reader import RunReader
    from dbnd_tracker._views import RunDetail


def export_runs(reader: RunReader, runs: Sequence[RunDetail], form: str | None, file: Path | None) -> int:
    """Write runs to a file, which appears only when it is complete, or to standard output; returns how many points.

    The ``form`` is one of ``FORMS``; None is what the name of the file says, or else JSON.

    Raises:
        UsageError: Parquet for standard output, or without pyarrow.
        TrackerError: The file cannot be written.
    """
    if form is None:
        suffix = file.suffix.lower().removeprefix(".") if file else ""
        form = suffix if suffix in FORMS else "json"
    parts = FORMS[form](reader, runs)
    if file is None:
        if form == "parquet":
            raise UsageError("Parquet needs a file: add -o FILE.parquet.")
        return _write(parts, console.output())
    part = file.with_name(f"{file.name}.part")
    try:
        with part.open("wb") if form == "parquet" else part.open("w", encoding="utf-8", newline="") as stream:
            count = _write(parts, stream)
        part.replace(file)
    except OSError as error:
        raise TrackerError(f"The file {file} cannot be written: {error.strerror or error}.") from None
    finally:
        part.unlink(missing_ok=True)
    return count


def _write(parts: Iterator[tuple[Any, int]], stream: IO[Any]) -> int:
    points = 0
    for part, count in parts:
        stream.write(part)
        points += count
    return points
