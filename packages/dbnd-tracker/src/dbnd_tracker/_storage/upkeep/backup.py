"""A copy of an SQLite database that is in use."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from pathlib import Path

from dbnd_tracker._errors import StorageError


def back_up(source: Path, target: Path) -> None:
    """Copy an SQLite database, which may be in use, as it is at one moment.

    The ``target`` must not exist yet; it is there only when it is whole, and its owner alone may read it.

    Raises:
        StorageError: The copy cannot be made.
    """
    partial = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        partial.touch(mode=0o600)
        with (
            contextlib.closing(sqlite3.connect(f"{source.absolute().as_uri()}?mode=ro", uri=True)) as original,
            contextlib.closing(sqlite3.connect(partial)) as copy,
        ):
            original.backup(copy)
            copy.execute("PRAGMA application_id = 0")  # a database of its own, for those that have the original open
            copy.commit()
            copy.execute("PRAGMA journal_mode = DELETE")  # one file, whole by itself
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        os.link(partial, target)  # unlike a rename, it never replaces a file
    except (OSError, sqlite3.Error) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise StorageError(f"The database {source} cannot be copied to {target}: {reason}.") from None
    finally:
        partial.unlink(missing_ok=True)
