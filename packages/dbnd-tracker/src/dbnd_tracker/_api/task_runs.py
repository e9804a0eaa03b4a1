"""The read API of task runs, their metrics and logs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Query, Response

from dbnd_tracker import _queries as queries
from dbnd_tracker import _views as views
from dbnd_tracker._api.answers import answer
from dbnd_tracker._queries.sampling import LEAST, sampled_history

if TYPE_CHECKING:
    from dbnd_tracker._queries.arrays import SeriesCache
    from dbnd_tracker._storage.database import Database

MAX_METRICS = 10_000
MAX_POINTS = 100_000
MAX_SAMPLES = 10_000


def task_runs_router(database: Database, cache: SeriesCache) -> APIRouter:
    """Routes that read task runs, metrics and logs."""
    router = APIRouter(prefix="/api/v1", tags=["task runs"])

    @router.get("/task-runs/{task_run_uid}", response_model=views.TaskRunView)
    def task_run(task_run_uid: str) -> Response:
        """One task run with everything that it logged."""
        with database.read() as session:
            found = queries.task_run_detail(session, task_run_uid.lower())
            return answer(found, f"There is no task run {task_run_uid}.")

    @router.get("/task-runs/{task_run_uid}/metrics", response_model=views.MetricList)
    def metrics(
        *,
        task_run_uid: str,
        limit: Annotated[int, Query(ge=1, le=MAX_METRICS)] = MAX_METRICS,
        after: Annotated[int, Query(ge=0, le=2**63 - 1, description="after of the previous answer")] = 0,
    ) -> Response:
        """The metrics of a task run, each summed up, in the order of their keys."""
        with database.read() as session:
            return answer(queries.metric_list(session, task_run_uid.lower(), limit=limit, after=after))

    @router.get("/task-runs/{task_run_uid}/metrics/history", response_model=views.MetricHistory)
    def history(
        *,
        task_run_uid: str,
        key: str,
        limit: Annotated[int, Query(ge=1, le=MAX_POINTS)] = 10_000,
        after: Annotated[int, Query(ge=0, le=2**63 - 1, description="after of the previous answer")] = 0,
        samples: Annotated[
            int | None,
            Query(ge=LEAST, le=MAX_SAMPLES, description="So many points that show the shape of all, instead of a page"),
        ] = None,
    ) -> Response:
        """The points of one metric in the order in which they came."""
        with database.read() as session:
            uid = task_run_uid.lower()
            if samples is not None:
                return answer(sampled_history(session, cache, uid, key, samples))
            return answer(queries.metric_history(session, uid, key, limit=limit, after=after))

    @router.get("/task-runs/{task_run_uid}/documents", response_model=views.Documents)
    def documents(task_run_uid: str) -> Response:
        """What dbt and Airflow have said about a task run."""
        with database.read() as session:
            found = queries.task_run_documents(session, task_run_uid.lower())
            return answer(found, f"There is no task run {task_run_uid}.")

    @router.get("/task-runs/{task_run_uid}/log", response_model=views.TaskRunLog)
    def log(task_run_uid: str) -> Response:
        """The log of a task run."""
        with database.read() as session:
            found = queries.task_run_log(session, task_run_uid.lower())
            return answer(found, f"There is no task run {task_run_uid}.")

    return router
