"""Many ids as one parameter of a query."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from sqlalchemy import ARRAY, BigInteger, ColumnElement, any_, func, literal, select

if TYPE_CHECKING:
    from collections.abc import Collection

    from sqlalchemy.orm import Session


def is_one_of(session: Session, column: Any, ids: Collection[int]) -> ColumnElement[bool]:
    """That a column has one of any number of ids."""
    if session.get_bind().dialect.name == "postgresql":
        return column == any_(literal(list(ids), ARRAY(BigInteger)))  # type: ignore[no-any-return]
    found: ColumnElement[bool] = column.in_(select(func.json_each(json.dumps(list(ids))).table_valued("value").c.value))
    return found
