"""What SQLAlchemy compiles, shared by the databases of all tests."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any


def compile_once() -> None:
    """Let all engines of this process that are made from now on compile a statement once, and not each for itself.

    A test opens a database of its own, and would spend an eighth of its time with that.
    """
    import sqlalchemy
    from sqlalchemy.dialects.postgresql.base import PGDialect
    from sqlalchemy.dialects.sqlite.base import SQLiteDialect

    for dialect in (PGDialect, SQLiteDialect):  # which is a part of each statement's key
        dialect.__eq__ = lambda one, other: type(one) is type(other)
        dialect.__hash__ = lambda one: hash(type(one))
    compiled: dict[Any, Any] = {}
    create_engine = sqlalchemy.create_engine

    @functools.wraps(create_engine)
    def create(*args: Any, execution_options: Mapping[str, Any] | None = None, **options: Any) -> sqlalchemy.Engine:
        return create_engine(
            *args, execution_options={"compiled_cache": compiled, **(execution_options or {})}, **options
        )

    sqlalchemy.create_engine = create
