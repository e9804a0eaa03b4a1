"""What several runs logged, side by side: one query for each kind, however many runs there are."""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any, NamedTuple

from sqlalchemy import func, literal, null, or_
from sqlalchemy.orm import Session

from dbnd_tracker._queries.ids import is_given, read_given
from dbnd_tracker._queries.language.expressions import KINDS, Field, LoggedKind
from dbnd_tracker._queries.logged import BY_ATTEMPT, TABLES, select_logged, value_of
from dbnd_tracker._queries.table.rows import rows_by_uid
from dbnd_tracker._storage.models import Attempt, MetricSeries, TaskRun
from dbnd_tracker._storage.writer import in_time
from dbnd_tracker._views import ComparedValue, RunComparison


class Logged(NamedTuple):
    """One thing that a task of a run logged; of a metric with the ``start`` of the attempt."""

    key: str
    row: str
    """Uid of the row that it belongs to: of the run, or of the task run itself."""
    task_run_uid: str
    task: str
    start: datetime | None
    points: int
    """How many points a metric has; 0 for anything else."""
    value: Any
    """Of a metric the last one."""


@dataclass(frozen=True)
class ComparedRow:
    """Something that was logged, as each run has it; None where a run has none."""

    field: Field
    logged: list[Logged | None]

    @cached_property
    def values(self) -> list[Any]:
        return [None if one is None else one.value for one in self.logged]

    @cached_property
    def differs(self) -> bool:
        """Whether the runs do not all have the same value."""
        return any(value != self.values[0] for value in self.values)


def compared_rows(session: Session, runs: Sequence[str]) -> list[ComparedRow]:
    """What the tasks of the rows with these uids logged, by kind and name: of a run all, of a task run what is its own.

    Where the tasks of a run differ in what they logged under one name, the name gets the task's.
    """
    by_field: dict[Field, dict[str, list[Logged]]] = defaultdict(lambda: defaultdict(list))
    for field, one in in_time(_everything_logged(session, runs)):
        by_field[field][one.row].append(one)
    found: dict[Field, dict[str, Logged]] = defaultdict(dict)
    for field, of_runs in in_time(by_field.items()):
        is_ambiguous = any(one.value != ones[0].value for ones in of_runs.values() for one in ones)
        for run_uid, ones in of_runs.items():
            for one in ones:
                named = Field(field.kind, f"{field.name} ({one.task})") if is_ambiguous else field
                found[named][run_uid] = one
    return [
        ComparedRow(field, [logged.get(run) for run in runs])
        for field, logged in sorted(found.items(), key=lambda item: (item[0].kind, item[0].name))
    ]


def compare_runs(session: Session, uids: Sequence[str]) -> RunComparison:
    """What the tasks of several runs, or single task runs, have logged, side by side; what is not there is left out."""
    runs = rows_by_uid(session, uids)
    data = [
        ComparedValue(
            kind=row.field.kind,
            name=row.field.name,
            values={one.row: one.value for one in row.logged if one},
            differs=row.differs,
        )
        for row in in_time(compared_rows(session, [run.uid for run in runs]))
    ]
    return RunComparison(runs=runs, data=data)


def _everything_logged(session: Session, runs: Sequence[str]) -> list[tuple[Field, Logged]]:
    """Params, metrics and tags of runs; what several attempts logged stands there once."""
    everything: list[tuple[Field, Logged]] = []
    asked = set(runs)
    for kind in KINDS:
        found: dict[tuple[str, str, str], Logged] = {}
        # What an argument of a task and a logged param have in common is their name: the one logged later counts.
        rows = read_given(session, _select_all, kind, ids=runs)
        for name, run, task_run, task, start, count, *value in in_time(rows):
            last = value_of(kind, value)
            # The root of an MLflow run outside of tasks has the uid of its run.
            for uid in (run, task_run) if run != task_run else (run,):
                if uid in asked:
                    found[uid, task_run, name] = Logged(name, uid, task_run, task, start, count, last)
        fields = {name: Field(kind, name) for _, _, name in found}
        everything += [(fields[logged.key], logged) for logged in in_time(found.values())]
    return everything


@functools.cache  # to make a query takes about as long as to execute it
def _select_all(dialect: str, kind: LoggedKind) -> Any:
    table = TABLES[kind]
    owner = (TaskRun.run_uid, TaskRun.uid, func.coalesce(TaskRun.name, TaskRun.uid))
    of_metrics = (Attempt.start_time, MetricSeries.points) if kind == "metrics" else (null(), literal(0))
    query = select_logged(kind, table.name, *owner, *of_metrics, *table.values)
    query = query.join(TaskRun, TaskRun.uid == Attempt.task_run_uid)
    query = query.where(or_(is_given(dialect, TaskRun.run_uid), is_given(dialect, TaskRun.uid)))
    return query.order_by(*BY_ATTEMPT, table.model.id)
