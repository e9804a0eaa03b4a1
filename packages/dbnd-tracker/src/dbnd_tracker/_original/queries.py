"""What the original clients ask: questions and shapes of the protocol's section 14."""

from __future__ import annotations

from collections import Counter, defaultdict
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import undefer

from dbnd_tracker import _views as views
from dbnd_tracker._queries.datasets import dataset_operations
from dbnd_tracker._queries.details import run_detail
from dbnd_tracker._queries.expressions import Comparison, QueryError
from dbnd_tracker._queries.metrics import series_query
from dbnd_tracker._queries.runs import clause
from dbnd_tracker._storage.encoding import decode
from dbnd_tracker._storage.models import (
    CHILD,
    UPSTREAM,
    Attempt,
    Metric,
    MetricKey,
    MetricSeries,
    Run,
    ScheduledJob,
    Target,
    TaskRelation,
    TaskRun,
)
from dbnd_tracker._storage.states import shown_state

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlalchemy.orm import Session

_STATUS: Final = {"OK": "SUCCESS", "NOK": "FAILED"}
_MAX_OPERATIONS: Final = 10_000
_MAX_INFOS: Final = 1_000
# Metrics of one answer, and their points.
_MAX_SERIES: Final = 10_000
_MAX_POINTS: Final = 100_000
# Numbers in one IN list.
_CHUNK: Final = 1_000
_LATEST: Final = "-latest_run_start_time"
JOB_ORDERS: Final[dict[str, ColumnElement[Any]]] = {
    "latest_run_start_time": func.max(Run.start_time),
    "name": func.max(Run.job_name),
}
"""What jobs can be sorted by."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=timezone.utc)


def jobs(
    session: Session, conditions: Iterable[Comparison] = (), *, sort: str = _LATEST, limit: int, offset: int = 0
) -> tuple[list[dict[str, Any]], int]:
    """Jobs with their latest runs, and how many there are.

    Args:
        session: Where to read.
        conditions: Only jobs with runs that meet all of them.
        sort: One of ``JOB_ORDERS``, with a - in front for the largest first.
        limit: How many at most.
        offset: How many to leave out before them.

    Raises:
        QueryError: The order is not known, or a condition is one on what runs logged.
    """
    order = JOB_ORDERS.get(sort.removeprefix("-"))
    if order is None:
        msg = f"Jobs cannot be sorted by {sort[:80]!r}; they can by {', '.join(JOB_ORDERS)}."
        raise QueryError(msg)
    wanted = [clause(session, condition) for condition in conditions]
    clauses = [Run.job_name.is_not(None), *(each for each in wanted if each is not None)]
    if len(clauses) <= len(wanted):
        msg = "Jobs are not filtered by what their runs logged; runs are (GET /api/v1/runs)."
        raise QueryError(msg)
    total = session.scalar(select(func.count(Run.job_name.distinct())).where(*clauses)) or 0
    latest = (
        select(Run.job_name, func.max(Run.start_time).label("time"))
        .where(*clauses)
        .group_by(Run.job_name)
        .order_by(order.desc() if sort.startswith("-") else order, Run.job_name)
        .limit(limit)
        .offset(offset)
    )
    found = []
    for name, time in session.execute(latest).all():
        run = session.scalars(
            select(Run).where(Run.job_name == name, Run.start_time == time).order_by(Run.id.desc()).limit(1)
        ).one()
        states = session.execute(select(Run.state, func.count()).where(Run.job_name == name).group_by(Run.state)).all()
        found.append(
            {
                "id": run.id,
                "name": name,
                "user": run.user,
                "reported_by_user": run.user,
                "is_archived": run.is_archived,
                "ui_hidden": False,
                "is_airflow_synced": False,
                "project_id": None,
                "project_name": run.project_name,
                "run_states": {state or "unknown": count for state, count in states},
                "source_link": None,
                "latest_run_start_time": run.start_time,
                "latest_run_state": shown_state(session, run),
                "latest_run_uid": run.uid,
                "latest_run_root_task_run_uid": run.driver_task_run_uid,
                "latest_run_trigger": (run.facts or {}).get("trigger"),
                "latest_run_env": (run.facts or {}).get("env_name"),
                "source_instance_name": None,
                "source_type": run.source,
            }
        )
    return found, total


def operations(session: Session, run_uid: str) -> list[dict[str, Any]]:
    """The dataset operations of a run, those of one task on one dataset together."""
    grouped: dict[tuple[Any, ...], list[views.DatasetOperationView]] = defaultdict(list)
    for found in reversed(dataset_operations(session, run_uid=run_uid, limit=_MAX_OPERATIONS).data):
        grouped[found.path, found.operation_type, found.task_run_uid].append(found)
    return [
        {
            "dataset_path": path,
            "operation_type": kind,
            "latest_operation_status": _STATUS[members[-1].operation_status],
            "records": _records(members[-1]),
            "operations": len(members),
            "task_run_uid": task_run_uid,
            "task_run_name": members[-1].task_run_name,
            "operation_source": members[-1].operation_source,
            "issues": [
                {"type": "OperationError", "data": {"operation_error": member.error}}
                for member in members
                if member.error is not None
            ],
            "columns_stats": members[-1].columns_stats or [],
        }
        for (path, kind, task_run_uid), members in grouped.items()
    ]


def _records(operation: views.DatasetOperationView) -> int | None:
    return operation.data_dimensions[0] if operation.data_dimensions else None


def full_graph(session: Session, run_uid: str) -> dict[str, Any] | None:
    """The task runs of a run and the arrows between them, or None when there is no such run."""
    run = session.scalar(select(Run).where(Run.uid == run_uid))
    if run is None:
        return None
    rows = session.execute(
        select(TaskRun, Attempt.state)
        .outerjoin(Attempt, Attempt.task_run_uid == TaskRun.uid)
        .where(TaskRun.run_uid == run_uid)
        .order_by(TaskRun.id, func.coalesce(Attempt.number, 0), Attempt.id)
    )
    states = {task_run: state for task_run, state in rows}  # noqa: C416  rows are no tuples to mypy
    ids = {task_run.uid: task_run.id for task_run in states}
    roots = [task_run.uid for task_run in states if task_run.is_root]
    root = run.driver_task_run_uid if run.driver_task_run_uid in ids else next(iter(roots), None)
    arrows: dict[str, list[dict[str, int]]] = {CHILD: [], UPSTREAM: []}
    relations = select(TaskRelation).where(
        TaskRelation.to_uid.in_(select(TaskRun.uid).where(TaskRun.run_uid == run_uid))
    )
    for number, relation in enumerate(session.scalars(relations.order_by(TaskRelation.from_uid, TaskRelation.to_uid))):
        if relation.from_uid in ids:
            # Children stand as upstreams of their parents, as the clients send them.
            first, second = ids[relation.from_uid], ids[relation.to_uid]
            upstream, downstream = (second, first) if relation.kind == CHILD else (first, second)
            arrows[relation.kind].append({"id": number, "downstream_tr_id": downstream, "upstream_tr_id": upstream})
    return {
        "root_task_run_uid": root,
        "root": ids.get(root or ""),
        "nodes_info": {
            str(task_run.id): {
                "id": task_run.id,
                "uid": task_run.uid,
                "state": state,
                "task_id": task_run.task_id,
            }
            for task_run, state in states.items()
        },
        "children": arrows[CHILD],
        "upstreams": arrows[UPSTREAM],
    }


def tasks(session: Session, uids: Sequence[str]) -> dict[str, Any]:
    """Task runs by uid, with their params, targets and attempts."""
    rows = {row.uid: row for row in session.scalars(select(TaskRun).where(TaskRun.uid.in_(uids)))}
    attempts: dict[str, list[Attempt]] = defaultdict(list)
    wanted = select(Attempt).where(Attempt.task_run_uid.in_(uids))
    for attempt in session.scalars(wanted.order_by(func.coalesce(Attempt.number, 0), Attempt.id)):
        attempts[attempt.task_run_uid or ""].append(attempt)
    details = {}
    for run_uid in sorted({row.run_uid for row in rows.values() if row.run_uid}):
        detail = run_detail(session, run_uid)
        if detail is not None:
            details.update({task.task_run_uid: (detail, task) for task in detail.task_runs})
    known = {uid: row for uid, row in rows.items() if uid in details}
    targets = _targets(session, [attempt.id for uid in known for attempt in attempts[uid]])
    of_params: dict[tuple[str, str | None], list[str]] = defaultdict(list)
    for target in targets:
        of_params[target["task_run_uid"], target["param_name"]].append(target["target_uid"])
    instances = {uid: _instance(row, *details[uid], attempts[uid]) for uid, row in known.items()}
    for uid, instance in instances.items():
        for param in instance["task_run_params"]:
            param["targets_uids"] = of_params[uid, param["name"]]
    return {
        "task_instances": instances,
        "targets_operations": targets,
        "attempts": {uid: [{"id": attempt.id, "error": attempt.error} for attempt in attempts[uid]] for uid in known},
    }


def _instance(row: TaskRun, run: views.RunDetail, task: views.TaskRunView, attempts: list[Attempt]) -> dict[str, Any]:
    facts = task.facts
    return {
        "id": row.id,
        "uid": row.uid,
        "name": row.name,
        "task_id": row.task_id,
        "task_af_id": row.task_af_id,
        "state": task.state,
        "start_date": task.start_time,
        "end_date": task.end_time,
        "target_date": facts.get("target_date"),
        "env": facts.get("env"),
        "version": row.version,
        "task_signature": row.task_signature,
        "output_signature": facts.get("output_signature"),
        "command_line": row.command_line,
        "functional_call": row.functional_call,
        "is_reused": row.is_reused,
        "is_system": row.is_system,
        "is_dynamic": row.is_dynamic,
        "is_skipped": row.is_skipped,
        "is_root": row.is_root,
        "has_upstreams": facts.get("has_upstreams"),
        "has_downstreams": facts.get("has_downstreams"),
        "run_uid": row.run_uid,
        "root_run_uid": run.root_run_uid,
        "latest_task_run_attempt_id": attempts[-1].id if attempts else None,
        "type": task.type,
        "task_run_params": [
            {"name": param.name, "value": param.value, "value_origin": param.origin} for param in task.params
        ],
        "external_links": task.links,
    }


def _targets(session: Session, attempts: Sequence[int]) -> list[dict[str, Any]]:
    rows = session.execute(
        select(Target, Attempt.task_run_uid)
        .join(Attempt, Attempt.id == Target.attempt_id)
        .where(Target.attempt_id.in_(attempts))
        .order_by(Target.id)
    )
    return [
        {
            "uid": target.uid,
            "target_uid": target.uid,
            "task_run_uid": task_run_uid,
            "path": target.path,
            "param_name": target.param_name,
            "operation_type": target.operation_type,
            "value_preview": target.value_preview,
            "data_schema": target.data_schema,
            "data_dimensions": target.data_dimensions,
            "data_hash": target.data_hash,
        }
        for target, task_run_uid in rows
    ]


def tasks_metrics(session: Session, uids: Sequence[str], limit: int) -> dict[str, dict[str, list[list[Any]]]]:
    """Points of task runs by task id and metric: time, value and source; of each metric the first ``limit``.

    Of many metrics fewer points are read, and of too many the first metrics alone.
    """
    found: dict[str, dict[str, list[list[Any]]]] = defaultdict(dict)
    names = {
        row.uid: row.task_id
        for row in session.execute(select(TaskRun.uid, TaskRun.task_id).where(TaskRun.uid.in_(uids)))
    }
    query = series_query().with_only_columns(MetricSeries.id, MetricSeries.source, MetricKey.name, Attempt.task_run_uid)
    series = session.execute(query.where(Attempt.task_run_uid.in_(uids)).limit(_MAX_SERIES)).all()
    if series:
        limit = min(limit, _MAX_POINTS // len(series))
    for start in range(0, len(series), _CHUNK):
        points: dict[int, list[Any]] = defaultdict(list)
        part = series[start : start + _CHUNK]
        wanted = select(Metric.series_id, Metric.timestamp_us, Metric.kind, Metric.value, Metric.text).where(
            Metric.series_id.in_([each.id for each in part]), Metric.number <= limit
        )
        for row in session.execute(wanted.order_by(Metric.series_id, Metric.number)):
            points[row.series_id].append(row)
        for series_id, source, key, task_run_uid in part:
            found[names.get(task_run_uid) or task_run_uid][key] = [
                [_EPOCH + timedelta(microseconds=row.timestamp_us), decode(row.kind, row.value, row.text), source]
                for row in points[series_id]
            ]
    return found


def attempt_logs(session: Session, attempt_id: int) -> list[dict[str, Any]]:
    """The log of one attempt; none when there is no such attempt."""
    query = (
        select(Attempt, TaskRun.task_id)
        .options(undefer(Attempt.log_body))
        .outerjoin(TaskRun, TaskRun.uid == Attempt.task_run_uid)
        .where(Attempt.id == attempt_id)
    )
    return [
        {
            "task_run_attempt_uid": attempt.uid,
            "task_id": task_id,
            "task_uid": attempt.task_run_uid,
            "log_body": attempt.log_body,
        }
        for attempt, task_id in session.execute(query)
    ]


def metric_names(session: Session, run_uid: str) -> list[dict[str, Any]]:
    """Which task of a run has which metric."""
    query = series_query().add_columns(TaskRun.name).join(TaskRun, TaskRun.uid == Attempt.task_run_uid)
    rows = session.execute(query.where(TaskRun.run_uid == run_uid))
    counted = Counter((name, key) for _, key, name in rows)
    return [{"task_name": name, "metric_name": key} for name, key in counted]


def scheduled_jobs(session: Session, name: str | None = None) -> list[dict[str, Any]]:
    """Jobs that a scheduler has told of."""
    query = select(ScheduledJob).order_by(ScheduledJob.id)
    if name is not None:
        query = query.where(ScheduledJob.name == name)
    return [job.facts for job in session.scalars(query)]


def attempt_metrics(session: Session, attempt_uid: str, source: str | None) -> list[dict[str, Any]]:
    """The last values of an attempt's metrics."""
    query = series_query().where(Attempt.uid == attempt_uid)
    return [
        {
            "key": key,
            "value": decode(series.last_kind, series.last_value, series.last_text),
            "timestamp": _EPOCH + timedelta(microseconds=series.last_timestamp_us),
            "source": series.source,
        }
        for series, key in session.execute(query)
        if source is None or series.source == source
    ]


def run_infos(session: Session, wanted: dict[str, str]) -> list[dict[str, Any]]:
    """Runs by uid or by DAG, newest first."""
    query = select(Run).order_by(Run.start_time.desc(), Run.id.desc()).limit(_MAX_INFOS)
    uid = wanted.get("uid", wanted.get("run_uid"))
    if uid is not None:
        query = query.where(Run.uid == uid.lower())
    if "dag_id" in wanted:
        query = query.where(Run.job_name == wanted["dag_id"])
    return [
        {
            "uid": run.uid,
            "run_uid": run.uid,
            "root_run_uid": run.root_run_uid,
            "name": run.name,
            "job_name": run.job_name,
            "dag_id": (run.facts or {}).get("dag_id") or run.job_name,
            "project_name": run.project_name,
            "user": run.user,
            "state": shown_state(session, run),
            "start_time": run.start_time,
            "end_time": run.end_time,
            "execution_date": run.execution_date,
        }
        for run in session.scalars(query)
    ]


def task_run_infos(session: Session, wanted: dict[str, str]) -> list[dict[str, Any]]:
    """Task runs by their readable ids, newest first."""
    query = select(TaskRun).order_by(TaskRun.id.desc()).limit(_MAX_INFOS)
    if "task_af_id" in wanted:
        query = query.where(TaskRun.task_af_id == wanted["task_af_id"])
    if "run_uid" in wanted:
        query = query.where(TaskRun.run_uid == wanted["run_uid"].lower())
    return [
        {
            "uid": task_run.uid,
            "task_run_uid": task_run.uid,
            "run_uid": task_run.run_uid,
            "name": task_run.name,
            "task_id": task_run.task_id,
            "task_af_id": task_run.task_af_id,
            "execution_date": task_run.execution_date,
        }
        for task_run in session.scalars(query)
    ]
