"""The first rows of tables."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any, Final, NamedTuple

from dbnd_tracker._content import parquet
from dbnd_tracker._content.opened import ArtifactError, Content
from dbnd_tracker._format import value_text

_ROWS: Final = parquet.ROWS
_COLUMNS: Final = parquet.COLUMNS
_CELL: Final = 500
_DELIMITERS: Final = ",;\t|"
# What is read of a Parquet file at once, and the seconds that it may take.
_PARQUET_BYTES: Final = 1 << 25
_PARQUET_S: Final = 20


class Rows(NamedTuple):
    """A part of a table: texts, and what of it is not there."""

    names: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str
    """Which part it is; empty if it is all."""


def text_rows(text: str, delimiter: str | None, *, is_whole: bool) -> Rows | None:
    """The first rows of a text, or of its beginning, whose lines are rows; None if it has none.

    Without a ``delimiter`` it is what the first line has most of.
    """
    head = text.partition("\n")[0]
    delimiter = delimiter or max(_DELIMITERS, key=head.count)
    found: list[list[str]] = []
    try:
        for row in csv.reader(io.StringIO(text), delimiter=delimiter):
            found.append([_cell(value) for value in row[:_COLUMNS]])
            if len(found) > _ROWS + 1:
                break
    except csv.Error:  # such as a field of more than 128 KiB: what came before it is shown
        is_whole = False
    if not is_whole and len(found) <= _ROWS + 1:
        found = found[:-1]  # which ends in the middle
    if not found:
        return None
    is_all = is_whole and len(found) <= _ROWS + 1
    return Rows(found[0], found[1 : _ROWS + 1], "" if is_all else f"The first {min(len(found) - 1, _ROWS)} rows.")


def table_of_json(found: Any) -> Rows | None:
    """The table that JSON such as that of MLflow's ``log_table`` holds; None for all other."""
    if not isinstance(found, dict) or set(found) != {"columns", "data"}:
        return None
    names, data = found["columns"], found["data"]
    if not isinstance(names, list) or not isinstance(data, list) or not all(isinstance(row, list) for row in data):
        return None
    rows = [[_cell(value) for value in row[:_COLUMNS]] for row in data[:_ROWS]]
    return Rows([_cell(name) for name in names[:_COLUMNS]], rows, _note(rows, len(data), len(names)))


def parquet_rows(content: Content) -> Rows:
    """The first rows of a Parquet file; ArtifactError where it is none, is too large, or pyarrow is not installed."""
    if find_spec("pyarrow") is None:
        raise ArtifactError(501, "The tracker shows tables of Parquet if pyarrow is installed beside it.")
    body, is_whole = content.read(_PARQUET_BYTES)
    if not is_whole:
        raise ArtifactError(413, f"It is larger than {_PARQUET_BYTES >> 20} MiB, too large to be shown.")
    # Other pools of memory, and a thread for each core, would take more of the addresses than the program may have.
    changed = {"ARROW_DEFAULT_MEMORY_POOL": "system", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    changed["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    command = [sys.executable, "-c", f"from {parquet.__name__} import main; main()"]
    where: dict[str, Any] = {"cwd": "/", "env": {**os.environ, **changed}}
    try:
        done = subprocess.run(  # noqa: S603  our own program
            command, input=body, capture_output=True, timeout=_PARQUET_S, check=False, **where
        )
    except subprocess.TimeoutExpired:
        raise ArtifactError(504, "It takes too long to be read.") from None
    if done.returncode == 1:
        reason = done.stderr.decode("utf-8", "replace").strip().rpartition("\n")[2]
        raise ArtifactError(422, f"It is no table that can be read: {reason[:200]}")
    if done.returncode:
        raise ArtifactError(413, "Its first rows are too large to be shown.")
    found = json.loads(done.stdout)
    names, number = found["names"], found["rows"]
    rows = [[_cell(value) for value in row] for row in zip(*found["columns"], strict=True)]
    return Rows(names[:_COLUMNS], rows, _note(rows, number, len(names)))


def _note(rows: Sequence[Sequence[str]], number: int, columns: int) -> str:
    if len(rows) == number and columns <= _COLUMNS:
        return ""
    return f"The first {len(rows):,} of {number:,} rows, {min(columns, _COLUMNS):,} of {columns:,} columns."


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return value_text(value if isinstance(value, str) else str(value), _CELL)
