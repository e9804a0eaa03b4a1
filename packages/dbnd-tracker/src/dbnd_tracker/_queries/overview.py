"""What there is: jobs and experiments, with their numbers of runs and how the latest have ended."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy import case, func, select, union

from dbnd_tracker._queries.logged import EXPERIMENT_TAG
from dbnd_tracker._queries.runs import SUMMARY, summary
from dbnd_tracker._storage.models import Attempt, Run, Tag

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from dbnd_tracker._views import RunSummary

_MAX_GROUPS: Final = 200
_LATEST: Final = 12
_DAY: Final = timedelta(days=1)


class Group(NamedTuple):
    """A job or an experiment."""

    name: str
    runs: int
    failed: int
    of_last_day: int
    """How many runs have started within 24 hours."""
    latest: list[RunSummary]
    """The latest runs, newest first."""


def jobs(session: Session) -> list[Group]:
    """All jobs, those of which a run has started last first."""
    return _groups(session, select(Run.job_name.label("name"), Run.id.label("run_id")).where(Run.job_name.is_not(None)))


def experiments(session: Session) -> list[Group]:
    """All experiments and projects: those of runs, and those that only MLflow runs of a task are in."""
    projects = select(Run.project_name.label("name"), Run.id.label("run_id")).where(Run.project_name.is_not(None))
    tagged = select(Tag.value, Attempt.run_id).join(Attempt, Attempt.id == Tag.attempt_id)
    return _groups(session, union(projects, tagged.where(Tag.name == EXPERIMENT_TAG, Attempt.run_id.is_not(None))))


def _groups(session: Session, named: Any) -> list[Group]:
    """The groups of runs that ``named`` says, as names and ids of runs."""
    of = named.subquery()
    newest = func.max(Run.start_time)
    is_new = case((Run.start_time >= datetime.now(timezone.utc) - _DAY, 1), else_=0)
    counts = (func.count(), func.sum(case((Run.state == "failed", 1), else_=0)), func.sum(is_new))
    query = select(of.c.name, *counts).join(Run, Run.id == of.c.run_id).group_by(of.c.name)
    found = session.execute(query.order_by(newest.desc(), of.c.name).limit(_MAX_GROUPS)).all()
    place = func.row_number().over(partition_by=of.c.name, order_by=(Run.start_time.desc(), Run.id.desc()))
    numbered = select(of.c.name, of.c.run_id, place.label("place")).join(Run, Run.id == of.c.run_id).subquery()
    runs = select(numbered.c.name.label("of"), *SUMMARY).join(Run, Run.id == numbered.c.run_id)
    latest: dict[str, list[RunSummary]] = {}
    for row in session.execute(runs.where(numbered.c.place <= _LATEST).order_by(numbered.c.place)):
        latest.setdefault(row.of, []).append(summary(session, row))
    return [Group(name, runs, failed, of_last_day, latest[name]) for name, runs, failed, of_last_day in found]
