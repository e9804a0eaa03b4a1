"""Conditions on runs, and what lists show of them."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import ColumnElement, SQLColumnExpression, and_, case, literal, not_

from dbnd_tracker._errors import TrackerError
from dbnd_tracker._liveness import lost, shown_state
from dbnd_tracker._models import Run
from dbnd_tracker._queries.expressions import KINDS, Comparison, Field
from dbnd_tracker._states import LOST

if TYPE_CHECKING:
    from sqlalchemy.orm import InstrumentedAttribute, Session

_FIELDS: Final[dict[str, InstrumentedAttribute[Any]]] = {
    "uid": Run.uid,
    "run_uid": Run.uid,
    "root_run_uid": Run.root_run_uid,
    "job": Run.job_name,
    "job_name": Run.job_name,
    "project": Run.project_name,
    "project_name": Run.project_name,
    "state": Run.state,
    "user": Run.user,
    "name": Run.name,
}
_OPERATORS: Final[dict[str, Callable[[SQLColumnExpression[Any], str], ColumnElement[bool]]]] = {
    "eq": lambda column, value: column == value,
    "ne": lambda column, value: column != value,
    "like": lambda column, value: column.like(value),
    "startswith": lambda column, value: column.startswith(value, autoescape=True),
}
_ORDERINGS: Final[dict[str, Callable[[Any, Any], ColumnElement[bool]]]] = {
    "lt": operator.lt,
    "le": operator.le,
    "gt": operator.gt,
    "ge": operator.ge,
}
# Of what was logged: as expressions write them.
_SIGNS: Final = {"eq": "=", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">=", "like": "like"}
_STARTED: Final = "start_time"


class QueryError(TrackerError):
    """A question that cannot be answered: an unknown filter, operator or cursor."""


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition on runs.

    Args:
        name: One of uid, root_run_uid, job_name (job), project_name (project), state, user, name; or start_time; or
            metrics.NAME (its last value), params.NAME, tags.NAME.
        op: One of eq, ne, like (with % for any text), startswith; lt, le, gt, ge of times and of what was logged.
        val: What the field is compared with; a time in ISO 8601, UTC unless it says otherwise.
    """

    name: str
    op: str
    val: str

    def comparison(self) -> Comparison | None:
        """The condition on what a run logged, or None where it is one on the run itself.

        Raises:
            QueryError: There is no such operator.
        """
        field = Field.parse(self.name)
        if field is None:
            return None
        if self.op not in _SIGNS:
            msg = f"The operator {self.op!r} does not exist for {field.kind}; there are {', '.join(_SIGNS)}."
            raise QueryError(msg)
        return Comparison(field, _SIGNS[self.op], self.val)

    def clause(self, session: Session) -> ColumnElement[bool]:
        """The condition on the run itself as SQL.

        Args:
            session: Where it will be asked.

        Raises:
            QueryError: There is no such field or operator.
        """
        if self.name == _STARTED:
            return self._time_clause()
        if self.name not in _FIELDS:
            names = ", ".join([*_FIELDS, _STARTED, *(f"{kind}.NAME" for kind in KINDS)])
            msg = f"Runs cannot be filtered by {self.name!r}; they can by {names}."
            raise QueryError(msg)
        if self.op not in _OPERATORS:
            msg = f"The operator {self.op!r} does not exist; there are {', '.join(_OPERATORS)}."
            raise QueryError(msg)
        if self.name == "state":
            return self._state_clause(session)
        # Uids are stored in lower case.
        value = self.val.lower() if self.name in {"uid", "run_uid", "root_run_uid"} else self.val
        return _OPERATORS[self.op](_FIELDS[self.name], value)

    def _time_clause(self) -> ColumnElement[bool]:
        compare = _ORDERINGS.get(self.op)
        if compare is None:
            msg = f"The operator {self.op!r} does not exist for times; there are {', '.join(_ORDERINGS)}."
            raise QueryError(msg)
        try:
            time = datetime.fromisoformat(self.val.replace("Z", "+00:00"))  # Python 3.10 does not know the Z
        except ValueError:
            msg = f"{self.val[:80]!r} is no time in ISO 8601, such as 2026-03-04T05:06:07+00:00."
            raise QueryError(msg) from None
        return compare(Run.start_time, time if time.tzinfo else time.replace(tzinfo=timezone.utc))

    def _state_clause(self, session: Session) -> ColumnElement[bool]:
        """The condition on the state that is shown: a lost run is in no other state."""
        value = self.val.lower()
        if self.op == "eq" and value == LOST:
            return lost(session)
        if self.op == "eq":
            return and_(Run.state == value, not_(lost(session)))
        return _OPERATORS[self.op](case((lost(session), literal(LOST)), else_=Run.state), value)


SUMMARY: Final = (
    Run.uid,
    Run.root_run_uid,
    Run.job_name,
    Run.name,
    Run.project_name,
    Run.user,
    Run.description,
    Run.state,
    Run.sends_heartbeat,
    Run.last_heartbeat,
    Run.start_time,
    Run.end_time,
)
"""What ``summary`` needs of a run, for lists, which are spared the rest."""


def summary(session: Session, run: Any) -> dict[str, Any]:  # noqa: ANN401  SQLAlchemy 2.1 types rows otherwise
    """The fields of a ``RunSummary``, of a ``Run`` or a row with the columns of ``SUMMARY``."""
    return {
        "run_uid": run.uid,
        "root_run_uid": run.root_run_uid,
        "job_name": run.job_name,
        "name": run.name,
        "project_name": run.project_name,
        "user": run.user,
        "description": run.description,
        "state": shown_state(session, run),
        "start_time": run.start_time,
        "end_time": run.end_time,
    }
