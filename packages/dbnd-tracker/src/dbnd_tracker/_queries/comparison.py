"""What several runs logged, for a comparison: one query for each kind, however many runs there are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import func, literal, select

from dbnd_tracker._queries.expressions import Field, Kind
from dbnd_tracker._queries.runs import summary
from dbnd_tracker._storage.encoding import decode
from dbnd_tracker._storage.models import Attempt, MetricKey, MetricSeries, Param, Run, Tag, TaskRun
from dbnd_tracker._views import ComparedValue, Comparison, RunSummary

if TYPE_CHECKING:
    from sqlalchemy.orm import Session


@dataclass(frozen=True, slots=True)
class Logged:
    """One thing that a task of a run logged.

    Args:
        run_uid: The run.
        task_run_uid: The task run.
        task: Its name.
        start: When it started.
        field: What was logged.
        value: Its value; of a metric the last one.
        points: How many points a metric has; 0 for anything else.
    """

    run_uid: str
    task_run_uid: str
    task: str
    start: datetime | None
    field: Field
    value: Any
    points: int = 0


def runs_by_uid(session: Session, uids: Sequence[str]) -> list[RunSummary]:
    """The runs with these uids, in their order; what does not exist is left out."""
    found = {run.uid: run for run in session.scalars(select(Run).where(Run.uid.in_(uids)))}
    return [RunSummary(**summary(session, found[uid])) for uid in dict.fromkeys(uids) if uid in found]


def compare_runs(session: Session, uids: Sequence[str]) -> Comparison:
    """What the tasks of several runs have logged, side by side.

    Args:
        session: Where to read.
        uids: The runs, in the order in which they stand; what does not exist is left out.
    """
    runs = runs_by_uid(session, uids)
    rows: dict[tuple[str, str, str], dict[str, Any]] = {}
    for logged in everything_logged(session, [run.run_uid for run in runs]):
        place = (logged.field.kind, logged.task or "", logged.field.name)
        rows.setdefault(place, {})[logged.run_uid] = logged.value
    data = [
        ComparedValue(kind=kind, task=task, name=name, values=values, differs=_differ(values, len(runs)))
        for (kind, task, name), values in sorted(rows.items())
    ]
    return Comparison(runs=runs, data=data)


def _differ(values: dict[str, Any], runs: int) -> bool:
    found = list(values.values())
    return len(found) != runs or any(value != found[0] for value in found)


def everything_logged(session: Session, runs: Sequence[str]) -> list[Logged]:
    """Params, metrics and tags of the runs with these uids; what several attempts logged stands there once."""
    found: dict[tuple[str, Field], Logged] = {}
    # What an argument of a task and a logged param have in common is their name: the one logged later counts.
    kinds: tuple[tuple[Kind, Any], ...] = (("params", _texts(Param)), ("tags", _texts(Tag)), ("metrics", _metrics()))
    for kind, query in kinds:
        for run_uid, task_run_uid, task, start, name, points, *value in session.execute(
            query.join(TaskRun, TaskRun.uid == Attempt.task_run_uid).where(TaskRun.run_uid.in_(runs))
        ):
            field = Field(kind, name)
            shown = decode(*value) if kind == "metrics" else value[0]
            found[task_run_uid, field] = Logged(run_uid, task_run_uid, task, start, field, shown, points)
    return list(found.values())


_OWNER: Final = (TaskRun.run_uid, TaskRun.uid, func.coalesce(TaskRun.name, TaskRun.uid), Attempt.start_time)


def _texts(table: type[Param | Tag]) -> Any:
    return (
        select(*_OWNER, table.name, literal(0), table.value)
        .select_from(table)
        .join(Attempt, Attempt.id == table.attempt_id)
        .order_by(func.coalesce(Attempt.number, 0), Attempt.id, table.id)
    )


def _metrics() -> Any:
    values = (MetricSeries.points, MetricSeries.last_kind, MetricSeries.last_value, MetricSeries.last_text)
    return (
        select(*_OWNER, MetricKey.name, *values)
        .select_from(MetricSeries)
        .join(MetricKey, MetricKey.id == MetricSeries.key_id)
        .join(Attempt, Attempt.id == MetricSeries.attempt_id)
        .where(MetricSeries.points > 0)
        .order_by(func.coalesce(Attempt.number, 0), Attempt.id)
    )
