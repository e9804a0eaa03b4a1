"""One run with everything in it: a fixed number of queries, however many task runs it has."""

from __future__ import annotations

from collections import defaultdict
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy import func, select
from sqlalchemy.orm import undefer

from dbnd_tracker import _views as views
from dbnd_tracker._queries.metrics import metric_view, series_query
from dbnd_tracker._queries.runs import summary
from dbnd_tracker._storage.models import (
    CHILD,
    UPSTREAM,
    Artifact,
    Attempt,
    AttemptDocument,
    ClientError,
    DatasetOperation,
    Param,
    Run,
    Tag,
    Target,
    TaskDefinition,
    TaskRelation,
    TaskRun,
)

if TYPE_CHECKING:
    from collections.abc import Collection

    from sqlalchemy.orm import Session

    Logged = TypeVar("Logged", Param, Tag, Artifact, Target, DatasetOperation)
    V = TypeVar("V", bound=views.View)

_MAX_TIME = datetime.max.replace(tzinfo=timezone.utc)


def run_detail(session: Session, run_uid: str, *, logged: bool = True) -> views.RunDetail | None:
    """The run with this uid and everything in it, or None when there is none.

    Args:
        session: Where to read.
        run_uid: The run.
        logged: Whether to read what its task runs logged; else these lists are empty.
    """
    run = session.scalar(select(Run).where(Run.uid == run_uid))
    if run is None:
        return None
    return views.RunDetail(
        **summary(session, run),
        source=run.source,
        execution_date=run.execution_date,
        last_heartbeat=run.last_heartbeat,
        parent_task_run_uid=run.parent_task_run_uid,
        driver_task_run_uid=run.driver_task_run_uid,
        environment=run.environment or {},
        facts=run.facts or {},
        task_runs=_Tasks(session, run_uid, logged_by=None if logged else ()).tree(),
    )


def task_run_detail(session: Session, task_run_uid: str) -> views.TaskRunView | None:
    """The task run with this uid and everything it logged, or None when there is none."""
    run_uid = session.scalar(select(TaskRun.run_uid).where(TaskRun.uid == task_run_uid))
    if run_uid is None:
        return None
    tasks = _Tasks(session, run_uid, logged_by=(task_run_uid,))
    return next(view for view in tasks.tree() if view.task_run_uid == task_run_uid)


def task_run_log(session: Session, task_run_uid: str) -> views.TaskRunLog | None:
    """The log of the latest attempt at a task run that has one, or None when the task run is not known."""
    wanted = select(Attempt).options(undefer(Attempt.log_body)).where(Attempt.task_run_uid == task_run_uid)
    attempts = sorted(session.scalars(wanted), key=_attempt_order)
    if not attempts:
        return None
    bodies = [attempt.log_body for attempt in attempts if attempt.log_body is not None]
    return views.TaskRunLog(task_run_uid=task_run_uid, log_body=bodies[-1] if bodies else None)


def logging_task_runs(session: Session, run_uid: str) -> set[str]:
    """Uids of the task runs of a run that have a log."""
    query = select(TaskRun.uid).join(Attempt, Attempt.task_run_uid == TaskRun.uid)
    return set(session.scalars(query.where(TaskRun.run_uid == run_uid, func.coalesce(Attempt.log_body, "") != "")))


def task_run_documents(session: Session, task_run_uid: str) -> views.Documents | None:
    """What dbt and Airflow have said about a task run, or None when it is not known; the latest attempt's."""
    attempts = session.scalars(select(Attempt).where(Attempt.task_run_uid == task_run_uid)).all()
    if not attempts:
        return None
    order = {attempt.id: place for place, attempt in enumerate(sorted(attempts, key=_attempt_order))}
    rows = session.scalars(select(AttemptDocument).where(AttemptDocument.attempt_id.in_(order)))
    found = {row.kind: row.content for row in sorted(rows, key=lambda row: order[row.attempt_id])}
    return views.Documents(task_run_uid=task_run_uid, dbt=found.get("dbt"), airflow=found.get("airflow"))


def client_errors(session: Session, limit: int) -> views.ClientErrorList:
    """The latest errors inside clients, newest first."""
    rows = session.scalars(select(ClientError).order_by(ClientError.id.desc()).limit(limit))
    return views.ClientErrorList(data=_views(views.ClientErrorView, rows))


def _attempt_order(attempt: Attempt) -> tuple[int, int]:
    return attempt.number or 0, attempt.id


class _Tasks:
    """The task runs of a run, and everything that belongs to them.

    Args:
        session: Where to read.
        run_uid: The run.
        logged_by: The task runs of which to read what they logged; None for all.
    """

    def __init__(self, session: Session, run_uid: str, logged_by: Collection[str] | None = None) -> None:
        self._session = session
        self._run_uid = run_uid
        self._logged_by = logged_by
        of_run = select(TaskRun).options(undefer(TaskRun.facts)).where(TaskRun.run_uid == run_uid)
        self._task_runs = session.scalars(of_run).all()
        definitions = select(TaskDefinition.uid, TaskDefinition.type).where(
            TaskDefinition.uid.in_(select(TaskRun.task_definition_uid).where(TaskRun.run_uid == run_uid))
        )
        self._types = {uid: kind for uid, kind in session.execute(definitions)}  # noqa: C416  rows are no tuples to mypy
        self._attempts = self._load_attempts()
        self._params = self._load(Param)
        self._tags = self._load(Tag)
        self._artifacts = self._load(Artifact)
        self._targets = self._load(Target)
        self._datasets = self._load(DatasetOperation)
        self._metrics: dict[int, list[views.MetricView]] = defaultdict(list)
        series_of_run = series_query().join(TaskRun, TaskRun.uid == Attempt.task_run_uid).where(self._logging())
        for series, key in session.execute(series_of_run) if self._logs else ():
            self._metrics[series.attempt_id].append(metric_view(series, key))
        self._parents = self._load_relations(CHILD)
        self._upstreams = self._load_relations(UPSTREAM)

    def _mine(self) -> Any:
        return TaskRun.run_uid == self._run_uid

    @property
    def _logs(self) -> bool:
        return self._logged_by is None or len(self._logged_by) > 0

    def _logging(self) -> Any:
        return self._mine() if self._logged_by is None else TaskRun.uid.in_(self._logged_by)

    def _load_attempts(self) -> dict[str, list[Attempt]]:
        wanted = select(Attempt).join(TaskRun, TaskRun.uid == Attempt.task_run_uid).where(self._mine())
        found: dict[str, list[Attempt]] = defaultdict(list)
        for attempt in sorted(self._session.scalars(wanted), key=_attempt_order):
            found[attempt.task_run_uid or ""].append(attempt)
        return found

    def _load(self, model: type[Logged]) -> dict[int, list[Logged]]:
        wanted = (
            select(model)
            .join(Attempt, Attempt.id == model.attempt_id)
            .join(TaskRun, TaskRun.uid == Attempt.task_run_uid)
            .where(self._logging())
            .order_by(model.id)
        )
        found: dict[int, list[Logged]] = defaultdict(list)
        for row in self._session.scalars(wanted) if self._logs else ():
            found[row.attempt_id].append(row)
        return found

    def _load_relations(self, kind: str) -> dict[str, list[str]]:
        """Starts of the arrows of one kind by their ends."""
        wanted = (
            select(TaskRelation)
            .join(TaskRun, TaskRun.uid == TaskRelation.to_uid)
            .where(self._mine(), TaskRelation.kind == kind)
            .order_by(TaskRelation.from_uid)
        )
        found: dict[str, list[str]] = defaultdict(list)
        for relation in self._session.scalars(wanted):
            found[relation.to_uid].append(relation.from_uid)
        return found

    def tree(self) -> list[views.TaskRunView]:
        """All task runs, each followed by those below it, in the order of their start."""
        known = {task_run.uid for task_run in self._task_runs}
        children: dict[str | None, list[TaskRun]] = defaultdict(list)
        for task_run in sorted(self._task_runs, key=self._start, reverse=True):
            parents = [uid for uid in self._parents[task_run.uid] if uid in known and uid != task_run.uid]
            children[parents[0] if parents else None].append(task_run)
        found: dict[str, views.TaskRunView] = {}
        # Below the roots stands whatever names its parents in a circle: nothing of a run may be hidden by that.
        pending: list[tuple[TaskRun, str | None, int]] = [(task_run, None, 0) for task_run in self._task_runs]
        pending += [(task_run, None, 0) for task_run in children[None]]
        while pending:
            task_run, parent, depth = pending.pop()
            if task_run.uid not in found:
                found[task_run.uid] = self._view(task_run, parent, depth)
                pending += [(child, task_run.uid, depth + 1) for child in children[task_run.uid]]
        return list(found.values())

    def _start(self, task_run: TaskRun) -> tuple[datetime, str]:
        starts = [attempt.start_time for attempt in self._attempts[task_run.uid] if attempt.start_time]
        return min(starts, default=_MAX_TIME), task_run.task_id or task_run.uid

    def _view(self, task_run: TaskRun, parent: str | None, depth: int) -> views.TaskRunView:
        attempts = self._attempts[task_run.uid]
        ids = [attempt.id for attempt in attempts]
        latest = attempts[-1] if attempts else None
        starts = [attempt.start_time for attempt in attempts if attempt.start_time]
        # What several attempts logged under one name is shown as the latest one logged it.
        params = {(p.source, p.name): p for i in ids for p in self._params[i]}
        tags = {tag.name: tag for i in ids for tag in self._tags[i]}
        metrics = {metric.key: metric for i in ids for metric in self._metrics[i]}
        artifacts = {artifact.name: artifact for i in ids for artifact in self._artifacts[i]}
        return views.TaskRunView(
            task_run_uid=task_run.uid,
            name=task_run.name,
            task_id=task_run.task_id,
            task_af_id=task_run.task_af_id,
            type=self._types.get(task_run.task_definition_uid or ""),
            is_root=task_run.is_root,
            is_system=task_run.is_system,
            is_reused=task_run.is_reused,
            state=latest.state if latest else None,
            start_time=min(starts, default=None),
            end_time=latest.end_time if latest else None,
            error=latest.error if latest else None,
            attempts=[
                views.AttemptView(attempt_uid=attempt.uid, **_columns(attempt, views.AttemptView, "attempt_uid"))
                for attempt in attempts
            ],
            params=_views(views.ParamView, params.values()),
            tags=_views(views.TagView, tags.values()),
            metrics=list(metrics.values()),
            artifacts=_views(views.ArtifactView, artifacts.values()),
            targets=_views(views.TargetView, [target for i in ids for target in self._targets[i]]),
            datasets=_views(views.DatasetView, [dataset for i in ids for dataset in self._datasets[i]]),
            links={name: url for attempt in attempts for name, url in (attempt.external_links or {}).items()},
            upstreams=self._upstreams[task_run.uid],
            parent_task_run_uid=parent,
            depth=depth,
            version=task_run.version,
            command_line=task_run.command_line,
            execution_date=task_run.execution_date,
            facts=task_run.facts or {},
        )


def _columns(row: object, view: type[views.View], *others: str) -> dict[str, Any]:
    return {name: getattr(row, name) for name in view.model_fields if name not in others}


def _views(view: type[V], rows: Any) -> list[V]:
    return [view(**_columns(row, view)) for row in rows]
