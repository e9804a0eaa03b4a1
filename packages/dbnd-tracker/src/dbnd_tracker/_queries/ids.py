"""Many ids as one parameter of a query."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from sqlalchemy import ARRAY, BigInteger, BindParameter, ColumnElement, any_, bindparam, false, text

if TYPE_CHECKING:
    from collections.abc import Collection

    from sqlalchemy.orm import Session


def is_one_of(session: Session, column: Any, ids: Collection[int]) -> ColumnElement[bool]:
    """That a column has one of any number of ids."""
    if not ids:
        return false()
    dialect = session.get_bind().dialect.name
    return is_given(dialect, column, bindparam("ids", given(dialect, ids), _type(dialect), unique=True))


def is_given(dialect: str, column: Any, parameter: BindParameter[Any] | None = None) -> ColumnElement[bool]:
    """That a column has one of the ids of a parameter, ``ids``, for queries that are made once."""
    ids: BindParameter[Any] = bindparam("ids", type_=_type(dialect)) if parameter is None else parameter
    if dialect == "postgresql":
        return column == any_(ids)  # type: ignore[no-any-return]
    # Written out: to make the table-valued function of SQLAlchemy takes longer than to read what it is asked for.
    found: ColumnElement[bool] = column.in_(text("SELECT value FROM json_each(:ids)").bindparams(ids))
    return found


def given(dialect: str, ids: Collection[int]) -> list[int] | str:
    """The value of the parameter of ``is_given``."""
    return list(ids) if dialect == "postgresql" else json.dumps(list(ids))


def _type(dialect: str) -> Any:
    return ARRAY(BigInteger) if dialect == "postgresql" else None
