"""The read API of task runs, their metrics and logs, and of datasets."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import APIRouter, Query, Response

from dbnd_tracker import _views as views
from dbnd_tracker._api.runs import ask
from dbnd_tracker._api.state import TheCache, TheDatabase
from dbnd_tracker._queries.datasets import dataset_operations, lineage
from dbnd_tracker._queries.details import task_run_detail, task_run_documents, task_run_log
from dbnd_tracker._queries.listing import metric_list
from dbnd_tracker._queries.points.metrics import metric_history
from dbnd_tracker._queries.points.series import LEAST, sampled_history

_MAX_METRICS: Final = 10_000
_MAX_POINTS: Final = 100_000
_MAX_SAMPLES: Final = 10_000
_MAX_ID: Final = 2**63 - 1
_AFTER: Final = "after of the previous answer"

_After = Annotated[int, Query(ge=0, le=_MAX_ID, description=_AFTER)]
_Path = Annotated[str, Query(description="The whole path, such as s3://bucket/file.csv")]
_Samples = Annotated[
    int | None,
    Query(ge=LEAST, le=_MAX_SAMPLES, description="So many points that show the shape of all, instead of a page"),
]


task_runs = APIRouter(prefix="/api/v1", tags=["task runs"])


@task_runs.get("/task-runs/{task_run_uid}", response_model=views.TaskRunView)
def task_run(database: TheDatabase, task_run_uid: str) -> Response:
    """One task run with everything that it logged."""
    return ask(database, task_run_detail, task_run_uid.lower())


@task_runs.get("/task-runs/{task_run_uid}/metrics", response_model=views.MetricList)
def metrics(
    *,
    database: TheDatabase,
    task_run_uid: str,
    limit: Annotated[int, Query(ge=1, le=_MAX_METRICS)] = _MAX_METRICS,
    after: _After = 0,
) -> Response:
    """The metrics of a task run, each summed up, in the order of their keys."""
    return ask(database, metric_list, task_run_uid.lower(), limit=limit, after=after)


@task_runs.get("/task-runs/{task_run_uid}/metrics/history", response_model=views.MetricHistory)
def history(
    *,
    database: TheDatabase,
    cache: TheCache,
    task_run_uid: str,
    key: str,
    limit: Annotated[int, Query(ge=1, le=_MAX_POINTS)] = 10_000,
    after: _After = 0,
    samples: _Samples = None,
) -> Response:
    """The points of one metric in the order in which they came."""
    uid = task_run_uid.lower()
    if samples is not None:
        return ask(database, sampled_history, uid, key, samples, cache)
    return ask(database, metric_history, uid, key, limit=limit, after=after)


@task_runs.get("/task-runs/{task_run_uid}/documents", response_model=views.Documents)
def documents(database: TheDatabase, task_run_uid: str) -> Response:
    """What dbt and Airflow have said about a task run."""
    return ask(database, task_run_documents, task_run_uid.lower())


@task_runs.get("/task-runs/{task_run_uid}/log", response_model=views.TaskRunLog)
def log(database: TheDatabase, task_run_uid: str) -> Response:
    """The log of a task run."""
    return ask(database, task_run_log, task_run_uid.lower())


datasets = APIRouter(prefix="/api/v1/datasets", tags=["datasets"])


@datasets.get("/operations", response_model=views.DatasetOperationList)
def operations(
    *,
    database: TheDatabase,
    path: _Path | None = None,
    run_uid: str | None = None,
    limit: Annotated[int, Query(ge=1, le=1_000)] = 100,
    after: Annotated[int | None, Query(ge=1, le=_MAX_ID, description=_AFTER)] = None,
) -> Response:
    """Operations on datasets, newest first."""
    uid = run_uid.lower() if run_uid else run_uid
    return ask(database, dataset_operations, path=path, run_uid=uid, limit=limit, after=after)


@datasets.get("/lineage", response_model=views.Lineage)
def read_lineage(database: TheDatabase, path: _Path) -> Response:
    """Which datasets one was made of, and which were made of it."""
    return ask(database, lineage, path)
