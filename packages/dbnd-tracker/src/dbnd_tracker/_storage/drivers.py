"""Errors of a database driver that is used without SQLAlchemy between, where that is the quickest way."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from sqlalchemy.exc import DBAPIError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection


@contextmanager
def driver_errors(connection: Connection, statement: str) -> Iterator[None]:
    """Report errors of the block as SQLAlchemy reports those of what it executes itself.

    Args:
        connection: Whose driver the block uses.
        statement: What it executes.

    Raises:
        DBAPIError: The driver says that the statement failed.
    """
    errors = connection.dialect.loaded_dbapi.Error
    try:
        yield
    except errors as error:
        raise DBAPIError.instance(statement, None, error, errors, dialect=connection.dialect) from error
