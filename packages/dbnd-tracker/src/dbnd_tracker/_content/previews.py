"""The first rows of tables."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from dbnd_tracker._content.opened import ArtifactError, Content
from dbnd_tracker._format import value_text

_ROWS: Final = 200
_COLUMNS: Final = 100
_CELL: Final = 500
_DELIMITERS: Final = ",;\t|"
# What is read of a Parquet file at once, and what of it may be in memory: a row group is the least that can be read.
_PARQUET_BYTES: Final = 1 << 25
_GROUP_BYTES: Final = 1 << 27


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
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError:
        raise ArtifactError(501, "The tracker shows tables of Parquet if pyarrow is installed beside it.") from None
    body, is_whole = content.read(_PARQUET_BYTES)
    if not is_whole:
        raise ArtifactError(413, f"It is larger than {_PARQUET_BYTES >> 20} MiB, too large to be shown.")
    try:
        file = parquet.ParquetFile(io.BytesIO(body))
        about = file.metadata
        if about.num_row_groups and about.row_group(0).total_byte_size > _GROUP_BYTES:
            raise ArtifactError(413, "Its first rows are too large to be shown.")
        names = file.schema_arrow.names
        # By their places, since of two columns of one name only one could be named.
        batch = next(file.iter_batches(batch_size=_ROWS, row_groups=[0]), None) if about.num_row_groups else None
        columns = [] if batch is None else [column.to_pylist() for column in batch.columns[:_COLUMNS]]
    except (pa.ArrowException, OSError, ValueError, TypeError, OverflowError) as error:
        raise ArtifactError(422, f"It is no table that can be read: {str(error)[:200]}") from None
    rows = [[_cell(value) for value in row] for row in zip(*columns, strict=True)]
    return Rows(names[:_COLUMNS], rows, _note(rows, about.num_rows, len(names)))


def _note(rows: Sequence[Sequence[str]], number: int, columns: int) -> str:
    if len(rows) == number and columns <= _COLUMNS:
        return ""
    return f"The first {len(rows):,} of {number:,} rows, {min(columns, _COLUMNS):,} of {columns:,} columns."


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return value_text(value if isinstance(value, str) else str(value), _CELL)
