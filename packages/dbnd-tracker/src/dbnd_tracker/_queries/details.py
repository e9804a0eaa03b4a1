"""Runs and task runs with everything in them: a fixed number of queries, however many task runs are asked for."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from datetime import datetime, timezone
from typing import Any, Final

from sqlalchemy import ColumnElement, case, func, select
from sqlalchemy.orm import Session, aliased, undefer, undefer_group

from dbnd_tracker import _views as views
from dbnd_tracker._queries.logged import BY_ATTEMPT, LATEST_FIRST, TABLES, ListKind, select_logged
from dbnd_tracker._storage.models import (
    CHILD,
    UPSTREAM,
    Attempt,
    AttemptDocument,
    ClientError,
    Run,
    TaskDefinition,
    TaskRelation,
    TaskRun,
)
from dbnd_tracker._storage.states import shown_state
from dbnd_tracker._view import View, view_of

_MAX_TIME: Final = datetime.max.replace(tzinfo=timezone.utc)
# A query for each level of task runs above those that are read; where there are more, all of a run are read in one.
_LEVELS: Final = 20

SUMMARY: Final = (
    Run.uid.label("run_uid"),
    *(getattr(Run, name).label(name) for name in views.RunSummary.model_fields if name != "run_uid"),
    Run.sends_heartbeat,
    Run.last_heartbeat,
)
"""What ``summary`` needs of a run, for lists, which are spared the rest."""
TASK_LABEL: Final = func.coalesce(TaskRun.task_af_id, TaskRun.name, TaskRun.uid)
"""What ``TaskRunView.label`` is, of task runs that are not read."""


def summary(session: Session, row: Any) -> views.RunSummary:
    """What lists show of a run, from a row with the columns of ``SUMMARY``."""
    return views.RunSummary(**{**row._asdict(), "state": shown_state(session, row)})


def runs_by_uid(session: Session, uids: Sequence[str]) -> list[views.RunSummary]:
    """The runs with these uids, in their order; what does not exist is left out."""
    found = {row.run_uid: row for row in session.execute(select(*SUMMARY).where(Run.uid.in_(uids)))}
    return [summary(session, found[uid]) for uid in dict.fromkeys(uids) if uid in found]


def run_detail(session: Session, run_uid: str, *, logged: bool = True) -> views.RunDetail | None:
    """The run with this uid, or None; its task runs have empty lists if what they ``logged`` is not read."""
    found = session.execute(select(Run, *SUMMARY).options(undefer_group("details")).where(Run.uid == run_uid)).first()
    if found is None:
        return None
    others = {"environment": found.Run.environment or {}, "facts": found.Run.facts or {}}
    task_runs = read_task_runs(session, TaskRun.run_uid == run_uid, logged=logged)
    return view_of(views.RunDetail, found.Run, **dict(summary(session, found)), **others, task_runs=task_runs)


def task_run_detail(session: Session, task_run_uid: str) -> views.TaskRunView | None:
    """The task run with this uid and everything it logged, or None when there is none."""
    found = read_task_runs(session, (TaskRun.uid == task_run_uid) & TaskRun.run_uid.is_not(None))
    return found[0] if found else None


def children_of(session: Session, task_run_uid: str) -> list[views.TaskRunView]:
    """The task runs that a task run has started, without what they logged."""
    below = select(TaskRelation.to_uid).where(TaskRelation.kind == CHILD, TaskRelation.from_uid == task_run_uid)
    found = read_task_runs(session, TaskRun.uid.in_(below), logged=False)
    return [view for view in found if view.parent_task_run_uid == task_run_uid]


def is_only_task(session: Session, task_run_uid: str) -> bool:
    """Whether its run has no other task run, but for those of the system."""
    run = select(TaskRun.run_uid).where(TaskRun.uid == task_run_uid).scalar_subquery()
    of_user = select(TaskRun.uid).where(TaskRun.run_uid == run, TaskRun.is_system.is_(False)).limit(2)
    return session.scalars(of_user).all() == [task_run_uid]


def read_task_runs(session: Session, wanted: ColumnElement[bool], *, logged: bool = True) -> list[views.TaskRunView]:
    """The ``wanted`` task runs, each followed by those below it, in the order of their start (see ``run_detail``)."""
    task_runs = {each.uid: each for each in session.scalars(_of(wanted, TaskRun).options(undefer(TaskRun.facts)))}
    by_definition = TaskDefinition.uid == TaskRun.task_definition_uid
    types = _pairs(session, _of(wanted, TaskRun.uid, TaskDefinition.type).join(TaskDefinition, by_definition))
    attempts: dict[str, list[Attempt]] = defaultdict(list)
    of_task_run = Attempt.task_run_uid == TaskRun.uid
    for attempt in session.scalars(_of(wanted, Attempt).join(Attempt, of_task_run).order_by(*BY_ATTEMPT)):
        attempts[attempt.task_run_uid or ""].append(attempt)
    lists = {kind: _logged(session, wanted, kind) for kind in TABLES} if logged else {}
    nothing: dict[str, Any] = {kind: [] for kind in TABLES}
    upstreams: dict[str, list[str]] = defaultdict(list)
    arrows = _of(wanted, TaskRelation).join(TaskRelation, TaskRelation.to_uid == TaskRun.uid)
    for arrow in session.scalars(arrows.where(TaskRelation.kind == UPSTREAM).order_by(TaskRelation.from_uid)):
        upstreams[arrow.to_uid].append(arrow.from_uid)

    def start(uid: str) -> tuple[datetime, str]:
        starts = [attempt.start_time for attempt in attempts[uid] if attempt.start_time]
        return min(starts, default=_MAX_TIME), (task_runs[uid].task_id if uid in task_runs else None) or uid

    parents = _parents(session, wanted, task_runs)
    children: dict[str | None, list[str]] = defaultdict(list)
    for uid in sorted({*task_runs, *parents, *parents.values()}, key=start, reverse=True):
        children[parents.get(uid)].append(uid)
    found = []
    pending = [(uid, 0) for uid in children[None]]
    while pending:
        uid, depth = pending.pop()
        pending += [(child, depth + 1) for child in children[uid]]
        if uid in task_runs:
            place = {"parent_task_run_uid": parents.get(uid), "depth": depth, "upstreams": upstreams[uid]}
            of_kinds = nothing | {kind: [*of_kind.get(uid, {}).values()] for kind, of_kind in lists.items()}
            found.append(_view(task_runs[uid], attempts[uid], type=types.get(uid), **place, **of_kinds))
    return found


def _of(wanted: ColumnElement[bool], *columns: Any) -> Any:
    return select(*columns).select_from(TaskRun).where(wanted)


def _logged(session: Session, wanted: ColumnElement[bool], kind: ListKind) -> dict[str, dict[Any, View]]:
    """What task runs logged, by their uids; of what several attempts logged under one name, the latest attempt's."""
    table = TABLES[kind]
    query = select_logged(kind, Attempt.task_run_uid, table.name, table.beside, table.model)
    query = query.join(TaskRun, TaskRun.uid == Attempt.task_run_uid).where(wanted)
    found: dict[str, dict[Any, View]] = defaultdict(dict)
    for uid, name, beside, row in session.execute(query.order_by(*BY_ATTEMPT, table.order)):
        found[uid][name, beside] = table.view(row, name)
    return found


def _parents(session: Session, wanted: ColumnElement[bool], known: Collection[str]) -> dict[str, str]:
    """The parents of ``known`` task runs and of all that are above them, as far as these are in the same run."""
    parent = aliased(TaskRun)
    arrows = (
        select(TaskRelation.to_uid, TaskRelation.from_uid)
        .join(TaskRun, TaskRun.uid == TaskRelation.to_uid)
        .join(parent, (parent.uid == TaskRelation.from_uid) & (parent.run_uid == TaskRun.run_uid))
        .where(TaskRelation.kind == CHILD, TaskRelation.from_uid != TaskRelation.to_uid)
        .order_by(TaskRelation.from_uid.desc())  # of several parents the first one counts
    )
    parents = _pairs(session, arrows.where(wanted))
    asked = set(known)
    for _ in range(_LEVELS):
        above = {*parents.values()} - asked
        if not above:
            break
        parents |= _pairs(session, arrows.where(TaskRun.uid.in_(above)))
        asked |= above
    else:
        parents |= _pairs(
            session, arrows.where(TaskRun.run_uid.in_(select(TaskRun.run_uid).where(wanted).correlate(None)))
        )
    passed: set[str] = set()
    for start in sorted(parents):
        uid, way = start, []
        while uid in parents and uid not in passed:
            passed.add(uid)
            way.append(uid)
            uid = parents[uid]
        if uid in way:  # a circle: nothing of a run may be hidden by it
            del parents[min(way[way.index(uid) :])]
    return parents


def _pairs(session: Session, query: Any) -> dict[str, str]:
    return dict(session.execute(query).all())


def _view(task_run: TaskRun, attempts: Sequence[Attempt], **others: Any) -> views.TaskRunView:
    latest = attempts[-1] if attempts else None
    starts = [attempt.start_time for attempt in attempts if attempt.start_time]
    return view_of(
        views.TaskRunView,
        task_run,
        task_run_uid=task_run.uid,
        state=latest.state if latest else None,
        start_time=min(starts, default=None),
        end_time=latest.end_time if latest else None,
        error=latest.error if latest else None,
        attempts=[view_of(views.AttemptView, attempt, attempt_uid=attempt.uid) for attempt in attempts],
        links={name: url for attempt in attempts for name, url in (attempt.external_links or {}).items()},
        facts=task_run.facts or {},
        **others,
    )


def task_run_log(session: Session, task_run_uid: str) -> views.TaskRunLog | None:
    """The log of the latest attempt at a task run that has one, or None when the task run is not known."""
    query = select(Attempt.log_body).where(Attempt.task_run_uid == task_run_uid)
    found = session.execute(query.order_by(Attempt.log_body.is_(None), *LATEST_FIRST).limit(1)).first()
    return None if found is None else views.TaskRunLog(task_run_uid=task_run_uid, log_body=found.log_body)


def log_tails(session: Session, task_run_uids: Collection[str], characters: int) -> dict[str, str]:
    """The ends of the logs of task runs, by uid, of the latest attempts that have one.

    One that is longer than ``characters`` is cut to one character more.
    """
    if not task_run_uids:
        return {}
    body = Attempt.log_body
    length = func.length(body)
    end = func.substr(body, case((length > characters, length - characters), else_=1))
    query = select(Attempt.task_run_uid, end)
    query = query.where(Attempt.task_run_uid.in_(task_run_uids), func.coalesce(body, "") != "")
    return _pairs(session, query.order_by(*BY_ATTEMPT))


def logging_task_runs(session: Session, run_uid: str) -> set[str]:
    """Uids of the task runs of a run that have a log."""
    query = select(TaskRun.uid).join(Attempt, Attempt.task_run_uid == TaskRun.uid)
    return set(session.scalars(query.where(TaskRun.run_uid == run_uid, func.coalesce(Attempt.log_body, "") != "")))


def task_run_documents(session: Session, task_run_uid: str) -> views.Documents | None:
    """What dbt and Airflow have said about a task run, or None when it is not known; the latest attempt's."""
    query = select(AttemptDocument.kind, AttemptDocument.content).select_from(Attempt)
    query = query.outerjoin(AttemptDocument, AttemptDocument.attempt_id == Attempt.id)
    found = _pairs(session, query.where(Attempt.task_run_uid == task_run_uid).order_by(*BY_ATTEMPT))
    if not found:  # not even an attempt without any
        return None
    return views.Documents(task_run_uid=task_run_uid, dbt=found.get("dbt"), airflow=found.get("airflow"))


def client_errors(session: Session, limit: int) -> views.ClientErrorList:
    """The latest errors inside clients, newest first."""
    rows = session.scalars(select(ClientError).order_by(ClientError.id.desc()).limit(limit))
    return views.ClientErrorList(data=[view_of(views.ClientErrorView, row) for row in rows])
