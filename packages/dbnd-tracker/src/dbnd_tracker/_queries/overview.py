"""What there is: jobs and experiments, with their numbers of runs and how the latest have ended."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta, timezone
from operator import attrgetter
from typing import Any, Final, NamedTuple

from sqlalchemy import bindparam, case, func, literal_column, select
from sqlalchemy.orm import Session

from dbnd_tracker._queries.logged import EXPERIMENT_TAG
from dbnd_tracker._queries.table.columns import select_nested
from dbnd_tracker._storage.base import NAME_LENGTH
from dbnd_tracker._storage.bulk import chunks
from dbnd_tracker._storage.models import Attempt, Run, Tag, TaskRun
from dbnd_tracker._storage.states import shown_state

_MAX_GROUPS: Final = 200
_LATEST: Final = 12
_DAY: Final = timedelta(days=1)
_NEWEST: Final = (Run.start_time.desc(), Run.id.desc())
_SHOWN: Final = (Run.uid, Run.state, Run.start_time, Run.end_time, Run.sends_heartbeat, Run.last_heartbeat)


class Latest(NamedTuple):
    """One of the latest runs of a group, as it is shown."""

    uid: str
    state: str | None
    start_time: datetime
    end_time: datetime | None


class Group(NamedTuple):
    """A job or an experiment."""

    name: str
    runs: int
    failed: int
    of_last_day: int
    """How many runs have started within 24 hours."""
    latest: list[Latest]
    """The latest runs, newest first."""
    nested: int
    """How many runs are nested in these: to count those in all runs would take too long."""


def jobs(session: Session) -> list[Group]:
    """All jobs, those of which a run has started last first."""
    return _groups_by(session, Run.job_name)


def experiments(session: Session) -> list[Group]:
    """All experiments and projects: those of runs, and those that only MLflow runs of a task are in."""
    found = {group.name: group for group in _groups_by(session, Run.project_name)}
    for group in _elsewhere(session):
        of = found.get(group.name, Group(group.name, 0, 0, 0, [], 0))
        latest = sorted([*of.latest, *group.latest], key=attrgetter("start_time"), reverse=True)[:_LATEST]
        runs, failed = of.runs + group.runs, of.failed + group.failed
        found[group.name] = Group(group.name, runs, failed, of.of_last_day + group.of_last_day, latest, of.nested)
    return sorted(found.values(), key=lambda group: group.latest[0].start_time, reverse=True)[:_MAX_GROUPS]


def _groups_by(session: Session, column: Any) -> list[Group]:
    """The groups of runs that have the same value of a column; of each the index knows the newest runs."""
    execute = session.connection().execute
    newest = func.max(Run.start_time)
    of_all = select(column, func.count()).where(column.is_not(None)).group_by(column)
    found = execute(of_all.order_by(newest.desc(), column).limit(_MAX_GROUPS)).all()
    # Few runs have failed or are new: they are found by other indexes than that of the column.
    name = func.coalesce(column, literal_column("''"))
    some = select(name, func.count()).group_by(name)
    failed: dict[str, int] = dict(execute(some.where(Run.state == "failed")).all())
    new: dict[str, int] = dict(execute(some.where(Run.start_time >= _yesterday())).all())
    latest = select(*_SHOWN).where(column == bindparam("name")).order_by(*_NEWEST).limit(_LATEST)
    shown = {name: _shown(session, execute(latest, {"name": name})) for name, _ in found}
    nested = _nested(session, [run.uid for of in shown.values() for run in of])
    return [
        Group(name, runs, failed.get(name, 0), new.get(name, 0), of, sum(nested.get(run.uid, 0) for run in of))
        for (name, runs), of in zip(found, shown.values(), strict=True)
    ]


def _nested(session: Session, run_uids: Sequence[str]) -> dict[str, int]:
    """How many runs are nested in each of these; none where there is no number."""
    of_run = select_nested(Run.uid, func.count()).group_by(Run.uid)
    found: dict[str, int] = {}
    for some in chunks(run_uids):
        found.update(session.execute(of_run.where(TaskRun.run_uid.in_(some))).all())
    return found


def _elsewhere(session: Session) -> list[Group]:
    """The experiments of MLflow runs whose runs are of another project, or of none."""
    of = select(func.substr(Tag.value, 1, NAME_LENGTH).label("name"), Attempt.run_id).distinct()
    of = of.join(Attempt, Attempt.id == Tag.attempt_id).join(Run, Run.id == Attempt.run_id)
    named = of.where(Tag.name == EXPERIMENT_TAG, Run.project_name.is_distinct_from(Tag.value)).subquery()
    is_new = case((Run.start_time >= _yesterday(), 1), else_=0)
    counts = (func.count(), func.sum(case((Run.state == "failed", 1), else_=0)), func.sum(is_new))
    query = select(named.c.name, *counts).join(Run, Run.id == named.c.run_id).group_by(named.c.name)
    execute = session.connection().execute
    found = execute(query.order_by(func.max(Run.start_time).desc(), named.c.name).limit(_MAX_GROUPS)).all()
    if not found:
        return []
    place = func.row_number().over(partition_by=named.c.name, order_by=_NEWEST)
    numbered = select(named.c.name, place.label("place"), *_SHOWN).join(Run, Run.id == named.c.run_id).subquery()
    latest: dict[str, list[Any]] = {}
    for run in execute(select(numbered).where(numbered.c.place <= _LATEST).order_by(numbered.c.place)):
        latest.setdefault(run.name, []).append(run)
    return [Group(name, runs, failed, new, _shown(session, latest[name]), 0) for name, runs, failed, new in found]


def _shown(session: Session, runs: Iterable[Any]) -> list[Latest]:
    return [Latest(run.uid, shown_state(session, run), run.start_time, run.end_time) for run in runs]


def _yesterday() -> datetime:
    return datetime.now(timezone.utc) - _DAY
