"""The program that reads Parquet: a kilobyte of it can hold what takes any memory, so that it has one of its own."""

from __future__ import annotations

import contextlib
import json
import resource
import sys
from typing import Final

ROWS: Final = 200
COLUMNS: Final = 100
TOO_LARGE: Final = 3
"""What it exits with when its memory does not suffice; where there is no table to be read, it is 1."""
_LONGEST: Final = 2_000
_MEMORY: Final = 1 << 31


def main() -> None:
    """Read a file from standard input, and write the first rows of it as JSON, by columns."""
    with contextlib.suppress(ValueError, OSError):  # less is allowed already, or the system knows no such limit
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    import pyarrow as pa
    from pyarrow import parquet

    try:
        file = parquet.ParquetFile(pa.BufferReader(sys.stdin.buffer.read()))
        groups = [0] if file.metadata.num_row_groups else []
        # By their places, since of two columns of one name only one could be named.
        batch = next(file.iter_batches(batch_size=ROWS, row_groups=groups, use_threads=False), None)
        columns = [] if batch is None else batch.columns[:COLUMNS]
        cells = [[None if each is None else str(each)[:_LONGEST] for each in column.to_pylist()] for column in columns]
    except MemoryError:
        sys.exit(TOO_LARGE)
    except (pa.ArrowException, OSError, ValueError, TypeError, OverflowError) as error:
        sys.exit(str(error))
    json.dump({"names": file.schema_arrow.names, "columns": cells, "rows": file.metadata.num_rows}, sys.stdout)
