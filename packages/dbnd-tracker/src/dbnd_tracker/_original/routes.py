"""The questions of the original clients, in the shapes that they know (``protocol`` says which).

Alerts, Airflow syncers and the collection of logs belong to the product that these clients were made for; there is
nothing like them here, and their routes do not exist.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any, Final, TypeVar

from fastapi import APIRouter, HTTPException, Query
from pydantic import BaseModel, Field

from dbnd_tracker._api.state import TheDatabase
from dbnd_tracker._original import queries as queries
from dbnd_tracker._queries.language.expressions import QueryError
from dbnd_tracker._queries.language.grammar import filter_conditions, parse_filter
from dbnd_tracker._schemas.fields import Many, Uid
from dbnd_tracker._storage.database import Database
from dbnd_tracker._view import iso

T = TypeVar("T")

_MAX_UIDS: Final = 1_000
_MAX_POINTS: Final = 10_000
_MAX_ID: Final = 2**63 - 1
# A job is found by its runs; their own names say nothing of it.
_JOB_NAMES: Final = {"name": "job_name"}

_Filter = Annotated[
    str | None, Query(alias="filter", description='JSON: [{"name": "run_uid", "op": "eq", "val": "..."}, ...]')
]


class Uids(BaseModel):
    """Which task runs are meant."""

    uids: Annotated[Many[Uid], Field(max_length=_MAX_UIDS)]


class Rows(BaseModel):
    """A list of objects, and how many there are in all where that is known."""

    data: list[dict[str, Any]]
    meta: dict[str, int] | None = None


router = APIRouter(tags=["original clients"])


def _ask(database: Database, question: Callable[..., T], *args: Any, **options: Any) -> T:
    with database.read() as session:
        found: T = _with_times(question(session, *args, **options))
        return found


def _with_times(value: Any) -> Any:
    """``value`` with times as text, as the clients read them: with microseconds and offset."""
    if isinstance(value, datetime):
        return iso(value)
    if isinstance(value, dict):
        return {key: _with_times(member) for key, member in value.items()}
    return [_with_times(member) for member in value] if isinstance(value, (list, tuple)) else value


@router.get("/api/v1/jobs")
def jobs(
    database: TheDatabase,
    filters: _Filter = None,
    sort: Annotated[str, Query(description="latest_run_start_time or name, with a - for the largest first")] = (
        "-latest_run_start_time"
    ),
    limit: Annotated[int, Query(alias="page[size]", ge=1, le=1_000)] = 100,
    page: Annotated[int, Query(alias="page[number]", ge=1, le=1_000_000)] = 1,
) -> Rows:
    """Jobs with their latest runs, those that ran last first unless they are sorted otherwise."""
    asked = parse_filter(filters, _JOB_NAMES)
    data, total = _ask(database, queries.jobs, asked, sort=sort, limit=limit, offset=(page - 1) * limit)
    return Rows(data=data, meta={"total": total})


@router.get("/api/v1/runs/{run_uid}/operations")
def operations(database: TheDatabase, run_uid: str) -> list[dict[str, Any]]:
    """The dataset operations of a run."""
    return _ask(database, queries.operations, run_uid.lower())


@router.get("/api/v1/metrics/for_alerts")
def metric_names(database: TheDatabase, filters: _Filter = None) -> Rows:
    """Which task of a run has which metric."""
    found = list(_filter(filters, "run_uid", "uid").values())
    if len(found) != 1:
        raise QueryError("The filter must name one run_uid.")
    return Rows(data=_ask(database, queries.metric_names, found[0].lower()))


@router.get("/api/v1/scheduled_jobs")
def scheduled_jobs(database: TheDatabase, name: str | None = None) -> Rows:
    """Jobs that a scheduler has told of."""
    return Rows(data=_ask(database, queries.scheduled_jobs, name))


@router.get("/api/v1/task/full-graph")
def full_graph(database: TheDatabase, run_uid: str, job_name: str | None = None) -> dict[str, Any]:
    """The task runs of a run and the arrows between them."""
    del job_name
    return _found(_ask(database, queries.full_graph, run_uid.lower()), run_uid)


@router.post("/api/v1/task/tasks")
def tasks(database: TheDatabase, asked: Uids) -> dict[str, Any]:
    """Task runs by uid; those that do not exist are left out."""
    return _ask(database, queries.tasks, asked.uids)


@router.post("/api/v1/task/tasks-metrics")
def tasks_metrics(database: TheDatabase, asked: Uids) -> dict[str, Any]:
    """Points of task runs, by task id and metric."""
    return {"metrics": _ask(database, queries.tasks_metrics, asked.uids, _MAX_POINTS)}


@router.get("/api/v1/task/tasks-logs")
def tasks_logs(database: TheDatabase, attempt_id: Annotated[int, Query(ge=0, le=_MAX_ID)]) -> list[dict[str, Any]]:
    """The log of one attempt."""
    return _ask(database, queries.attempt_logs, attempt_id)


@router.get("/api/client/v1/run/{run_uid}")
def client_run(database: TheDatabase, run_uid: str) -> dict[str, Any]:
    """A run with the latest attempts of its task runs."""
    return _found(_ask(database, queries.client_run, run_uid.lower()), run_uid)


@router.get("/api/client/v1/run_info")
def run_info(database: TheDatabase, filters: _Filter = None) -> Rows:
    """Runs by uid, or by DAG."""
    return Rows(data=_ask(database, queries.run_infos, _filter(filters, "uid", "run_uid", "dag_id")))


@router.get("/api/client/v1/task_run_info")
def task_run_info(database: TheDatabase, filters: _Filter = None) -> Rows:
    """Task runs by their readable ids."""
    return Rows(data=_ask(database, queries.task_run_infos, _filter(filters, "task_af_id", "run_uid")))


@router.get("/api/client/v1/scheduled_job_info")
def scheduled_job_info(database: TheDatabase, filters: _Filter = None) -> Rows:
    """Jobs that a scheduler has told of."""
    return Rows(data=_ask(database, queries.scheduled_jobs, _filter(filters, "name").get("name")))


@router.get("/api/client/v1/metrics")
def client_metrics(database: TheDatabase, task_run_attempt_uid: str, source: str | None = None) -> Rows:
    """The last values of an attempt's metrics."""
    return Rows(data=_ask(database, queries.attempt_metrics, task_run_attempt_uid.lower(), source))


def _found(answer: dict[str, Any] | None, run_uid: str) -> dict[str, Any]:
    if answer is None:
        raise HTTPException(404, f"There is no run {run_uid}.")
    return answer


def _filter(text: str | None, *names: str) -> dict[str, str]:
    """The values that a filter asks for by equality, by name; QueryError where it asks for anything else."""
    conditions = filter_conditions(text)
    for name, operator, _ in conditions:
        if name not in names or operator != "eq":
            raise QueryError(f"This is filtered by {', '.join(sorted(names))} with eq alone, not by {name[:80]!r}.")
    return {name: value for name, _, value in conditions}
