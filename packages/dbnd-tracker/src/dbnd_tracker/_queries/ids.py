"""Ids: many as one parameter of a query, and the first digits of one."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable
from typing import Any, Final

from sqlalchemy import ARRAY, BindParameter, ColumnElement, any_, bindparam, false, text
from sqlalchemy.orm import Session

_DASHES: Final = (8, 12, 16, 20)


def is_one_of(session: Session, column: Any, ids: Collection[int]) -> ColumnElement[bool]:
    """That a column has one of any number of ids."""
    if not ids:
        return false()
    dialect = session.get_bind().dialect.name
    return is_given(dialect, column, bindparam("ids", given(dialect, ids), _type(dialect, column), unique=True))


def read_given(session: Session, make: Callable[..., Any], *key: Any, ids: Iterable[int | str], **others: Any) -> Any:
    """The rows of a query that is made once, ``make(dialect, *key)``, and whose parameter ``ids`` are these."""
    dialect = session.get_bind().dialect.name
    return session.connection().execute(make(dialect, *key), {"ids": given(dialect, ids), **others})


def is_given(dialect: str, column: Any, parameter: BindParameter[Any] | None = None) -> ColumnElement[bool]:
    """That a column has one of the ids of a parameter, ``ids``, for queries that are made once."""
    ids: BindParameter[Any] = bindparam("ids", type_=_type(dialect, column)) if parameter is None else parameter
    if dialect == "postgresql":
        return column == any_(ids)  # type: ignore[no-any-return]
    # Written out: to make the table-valued function of SQLAlchemy takes longer than to read what it is asked for.
    found: ColumnElement[bool] = column.in_(text("SELECT value FROM json_each(:ids)").bindparams(ids))
    return found


def given(dialect: str, ids: Iterable[int | str]) -> list[int | str] | str:
    """The value of the parameter of ``is_given``."""
    return list(ids) if dialect == "postgresql" else json.dumps(list(ids))


def dashed(digits: str) -> str:
    """The beginning of a uid that has these hex digits."""
    return "".join(f"-{digit}" if place in _DASHES else digit for place, digit in enumerate(digits))


def _type(dialect: str, column: Any) -> Any:
    return ARRAY(column.type) if dialect == "postgresql" else None
