"""What the original clients ask: questions and shapes of the protocol's section 14."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session

from dbnd.tracking import time_of
from dbnd_tracker._queries.datasets import dataset_operations
from dbnd_tracker._queries.details import read_task_runs, run_detail
from dbnd_tracker._queries.language.expressions import Expression, QueryError
from dbnd_tracker._queries.logged import BY_ATTEMPT, select_logged
from dbnd_tracker._queries.table.conditions import Conditions
from dbnd_tracker._queries.table.finder import Finder
from dbnd_tracker._storage.encoding import decode
from dbnd_tracker._storage.models import (
    CHILD,
    UPSTREAM,
    Attempt,
    MetricKey,
    MetricSeries,
    Run,
    ScheduledJob,
    Target,
    TaskRelation,
    TaskRun,
)
from dbnd_tracker._storage.points.reading import read_points
from dbnd_tracker._storage.states import shown_state
from dbnd_tracker._views import DatasetOperationView

_STATUS: Final = {"OK": "SUCCESS", "NOK": "FAILED"}
_MAX_OPERATIONS: Final = 10_000
_MAX_INFOS: Final = 1_000
# Metrics of one answer, and their points.
_MAX_SERIES: Final = 10_000
_MAX_POINTS: Final = 100_000
_OF_TASK_RUN: Final = (
    "id uid name task_id task_af_id version task_signature command_line functional_call is_reused is_system is_dynamic "
    "is_skipped is_root run_uid"
)
_OF_FACTS: Final = "target_date env output_signature has_upstreams has_downstreams"
_OF_TARGET: Final = "uid path param_name operation_type value_preview data_schema data_dimensions data_hash"
JOB_ORDERS: Final[dict[str, ColumnElement[Any]]] = {
    "latest_run_start_time": func.max(Run.start_time),
    "name": func.max(Run.job_name),
}
"""What jobs can be sorted by."""


def jobs(
    session: Session, wanted: Expression | None, *, sort: str, limit: int, offset: int = 0
) -> tuple[list[dict[str, Any]], int]:
    """Jobs that have runs which are wanted, with their latest runs, and how many; QueryError for an unknown order."""
    order = JOB_ORDERS.get(sort.removeprefix("-"))
    if order is None:
        raise QueryError(f"Jobs cannot be sorted by {sort[:80]!r}; they can by {', '.join(JOB_ORDERS)}.")
    clauses: list[ColumnElement[bool]] = [Run.job_name.is_not(None)]
    if wanted is not None:
        clauses.append(Conditions(Finder(session), whole=True).clause(wanted))
    total = session.scalar(select(func.count(Run.job_name.distinct())).where(*clauses)) or 0
    latest = (
        select(Run.job_name, func.max(Run.start_time).label("time"))
        .where(*clauses)
        .group_by(Run.job_name)
        .order_by(order.desc() if sort.startswith("-") else order, Run.job_name)
        .limit(limit)
        .offset(offset)
    )
    return [_job(session, name, time) for name, time in session.execute(latest).all()], total


def _job(session: Session, name: str | None, time: datetime) -> dict[str, Any]:
    newest = select(Run).where(Run.job_name == name, Run.start_time == time).order_by(Run.id.desc()).limit(1)
    run = session.scalars(newest).one()
    states = session.execute(select(Run.state, func.count()).where(Run.job_name == name).group_by(Run.state)).all()
    facts = run.facts or {}
    return {
        **_pick(run, "id user is_archived project_name"),
        "name": name,
        "reported_by_user": run.user,
        "ui_hidden": False,
        "is_airflow_synced": False,
        "project_id": None,
        "run_states": {state or "unknown": count for state, count in states},
        "source_link": None,
        "latest_run_start_time": run.start_time,
        "latest_run_state": shown_state(session, run),
        "latest_run_uid": run.uid,
        "latest_run_root_task_run_uid": run.driver_task_run_uid,
        "latest_run_trigger": facts.get("trigger"),
        "latest_run_env": facts.get("env_name"),
        "source_instance_name": None,
        "source_type": run.source,
    }


def _pick(row: object, names: str) -> dict[str, Any]:
    return {name: getattr(row, name) for name in names.split()}


def operations(session: Session, run_uid: str) -> list[dict[str, Any]]:
    """The dataset operations of a run, those of one task on one dataset together."""
    grouped: dict[tuple[Any, ...], list[DatasetOperationView]] = defaultdict(list)
    for found in reversed(dataset_operations(session, run_uid=run_uid, limit=_MAX_OPERATIONS).data):
        grouped[found.path, found.operation_type, found.task_run_uid].append(found)
    return [
        {
            **_pick(members[-1], "operation_type task_run_uid task_run_name operation_source"),
            "dataset_path": members[-1].path,
            "latest_operation_status": _STATUS[members[-1].operation_status],
            "records": members[-1].data_dimensions[0] if members[-1].data_dimensions else None,
            "operations": len(members),
            "issues": [
                {"type": "OperationError", "data": {"operation_error": member.error}}
                for member in members
                if member.error is not None
            ],
            "columns_stats": members[-1].columns_stats or [],
        }
        for members in grouped.values()
    ]


def full_graph(session: Session, run_uid: str) -> dict[str, Any] | None:
    """The task runs of a run and the arrows between them, or None when there is no such run."""
    run = session.scalar(select(Run).where(Run.uid == run_uid))
    if run is None:
        return None
    query = select(TaskRun.id, TaskRun.uid, TaskRun.task_id, TaskRun.is_root, Attempt.state)
    query = query.outerjoin(Attempt, Attempt.task_run_uid == TaskRun.uid).where(TaskRun.run_uid == run_uid)
    nodes = {row.uid: row for row in session.execute(query.order_by(TaskRun.id, *BY_ATTEMPT))}
    root = nodes.get(run.driver_task_run_uid or "") or next((node for node in nodes.values() if node.is_root), None)
    arrows: dict[str, list[dict[str, int]]] = {CHILD: [], UPSTREAM: []}
    relations = select(TaskRelation).join(TaskRun, TaskRun.uid == TaskRelation.to_uid).where(TaskRun.run_uid == run_uid)
    for number, relation in enumerate(session.scalars(relations.order_by(TaskRelation.from_uid, TaskRelation.to_uid))):
        if relation.from_uid in nodes:
            # Children stand as upstreams of their parents, as the clients send them.
            first, second = nodes[relation.from_uid].id, nodes[relation.to_uid].id
            upstream, downstream = (second, first) if relation.kind == CHILD else (first, second)
            arrows[relation.kind].append({"id": number, "downstream_tr_id": downstream, "upstream_tr_id": upstream})
    return {
        "root_task_run_uid": root.uid if root else None,
        "root": root.id if root else None,
        "nodes_info": {str(node.id): _pick(node, "id uid task_id state") for node in nodes.values()},
        "children": arrows[CHILD],
        "upstreams": arrows[UPSTREAM],
    }


def tasks(session: Session, uids: Sequence[str]) -> dict[str, Any]:
    """Task runs by uid, with their params, targets and attempts."""
    wanted = TaskRun.uid.in_(uids)
    found = session.execute(select(TaskRun, Run.root_run_uid).join(Run, Run.uid == TaskRun.run_uid).where(wanted))
    rows = {row.uid: (row, root_run_uid) for row, root_run_uid in found}
    views = {view.task_run_uid: view for view in read_task_runs(session, wanted) if view.task_run_uid in rows}
    attempts: dict[str, list[Attempt]] = {uid: [] for uid in views}
    by_task_run = select(Attempt).where(Attempt.task_run_uid.in_(views)).order_by(*BY_ATTEMPT)
    for attempt in session.scalars(by_task_run):
        attempts[attempt.task_run_uid or ""].append(attempt)
    targets = session.execute(
        select(Target, Attempt.task_run_uid)
        .join(Attempt, Attempt.id == Target.attempt_id)
        .where(Attempt.task_run_uid.in_(views))
        .order_by(Target.id)
    ).all()
    of_params: dict[tuple[str | None, str | None], list[str]] = defaultdict(list)
    for target, task_run_uid in targets:
        of_params[task_run_uid, target.param_name].append(target.uid)
    instances = {}
    for uid, view in views.items():
        row, root_run_uid = rows[uid]
        instances[uid] = {
            **_pick(row, _OF_TASK_RUN),
            **{name: view.facts.get(name) for name in _OF_FACTS.split()},
            "state": view.state,
            "start_date": view.start_time,
            "end_date": view.end_time,
            "root_run_uid": root_run_uid,
            "latest_task_run_attempt_id": attempts[uid][-1].id if attempts[uid] else None,
            "type": view.type,
            "task_run_params": [
                {
                    "name": param.name,
                    "value": param.value,
                    "value_origin": param.origin,
                    "targets_uids": of_params[uid, param.name],
                }
                for param in view.params
            ],
            "external_links": view.links,
        }
    return {
        "task_instances": instances,
        "targets_operations": [
            {**_pick(target, _OF_TARGET), "target_uid": target.uid, "task_run_uid": task_run_uid}
            for target, task_run_uid in targets
        ],
        "attempts": {uid: [_pick(attempt, "id error") for attempt in attempts[uid]] for uid in views},
    }


def tasks_metrics(session: Session, uids: Sequence[str], limit: int) -> dict[str, dict[str, list[list[Any]]]]:
    """Points of task runs by task id and metric: time, value and source; of each metric the first ``limit``.

    Of many metrics fewer points are read, and of too many the first metrics alone.
    """
    found: dict[str, dict[str, list[list[Any]]]] = defaultdict(dict)
    task_id = func.coalesce(TaskRun.task_id, TaskRun.uid)
    columns = (MetricSeries.id, MetricSeries.points, MetricSeries.source, MetricKey.name, task_id)
    query = select_logged("metrics", *columns).join(TaskRun, TaskRun.uid == Attempt.task_run_uid)
    query = query.where(TaskRun.uid.in_(uids)).order_by(*BY_ATTEMPT, MetricKey.name)
    series = session.execute(query.limit(_MAX_SERIES)).all()
    if series:
        limit = min(limit, _MAX_POINTS // len(series))
    for series_id, count, source, key, task_id in series:
        points = read_points(session.connection(), series_id, 0, min(limit, count))
        found[task_id][key] = [
            [time_of(time_us), decode(kind, number, text), source]
            for _, time_us, kind, number, text in zip(*points.columns(), strict=True)
        ]
    return found


def attempt_logs(session: Session, attempt_id: int) -> list[dict[str, Any]]:
    """The log of one attempt; none when there is no such attempt."""
    query = (
        select(
            Attempt.uid.label("task_run_attempt_uid"),
            Attempt.task_run_uid.label("task_uid"),
            Attempt.log_body,
            TaskRun.task_id,
        )
        .outerjoin(TaskRun, TaskRun.uid == Attempt.task_run_uid)
        .where(Attempt.id == attempt_id)
    )
    return [dict(row) for row in session.execute(query).mappings()]


def metric_names(session: Session, run_uid: str) -> list[dict[str, Any]]:
    """Which task of a run has which metric."""
    query = select_logged("metrics", TaskRun.name.label("task_name"), MetricKey.name.label("metric_name"))
    query = query.join(TaskRun, TaskRun.uid == Attempt.task_run_uid).where(TaskRun.run_uid == run_uid).distinct()
    return [dict(row) for row in session.execute(query).mappings()]


def scheduled_jobs(session: Session, name: str | None = None) -> list[dict[str, Any]]:
    query = select(ScheduledJob).order_by(ScheduledJob.id)
    if name is not None:
        query = query.where(ScheduledJob.name == name)
    return [job.facts for job in session.scalars(query)]


def attempt_metrics(session: Session, attempt_uid: str, source: str | None) -> list[dict[str, Any]]:
    """The last values of an attempt's metrics."""
    query = select_logged("metrics", MetricSeries, MetricKey.name).where(Attempt.uid == attempt_uid)
    if source is not None:
        query = query.where(MetricSeries.source == source)
    return [
        {
            "key": key,
            "value": decode(series.last_kind, series.last_value, series.last_text),
            "timestamp": time_of(series.last_timestamp_us),
            "source": series.source,
        }
        for series, key in session.execute(query.order_by(MetricKey.name))
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
            **_pick(run, "uid root_run_uid name job_name project_name user start_time end_time execution_date"),
            "run_uid": run.uid,
            "dag_id": (run.facts or {}).get("dag_id") or run.job_name,
            "state": shown_state(session, run),
        }
        for run in session.scalars(query)
    ]


def client_run(session: Session, run_uid: str) -> dict[str, Any] | None:
    """A run with the latest attempts of its task runs, or None when there is none."""
    run = run_detail(session, run_uid, logged=False)
    if run is None:
        return None
    task_runs = [
        {
            "task_run_uid": task.task_run_uid,
            "latest_error": task.error,
            "latest_task_run_attempt": {
                "timestamp": task.end_time or task.start_time,
                "start_date": task.start_time,
                "end_date": task.end_time,
                "state": task.state,
                "latest_error": task.error,
            },
        }
        for task in run.task_runs
    ]
    return {"run_uid": run.run_uid, "state": run.state, "task_runs": task_runs}


def task_run_infos(session: Session, wanted: dict[str, str]) -> list[dict[str, Any]]:
    """Task runs by their readable ids, newest first."""
    query = select(TaskRun).order_by(TaskRun.id.desc()).limit(_MAX_INFOS)
    if "task_af_id" in wanted:
        query = query.where(TaskRun.task_af_id == wanted["task_af_id"])
    if "run_uid" in wanted:
        query = query.where(TaskRun.run_uid == wanted["run_uid"].lower())
    names = "uid run_uid name task_id task_af_id execution_date"
    return [{**_pick(task_run, names), "task_run_uid": task_run.uid} for task_run in session.scalars(query)]
