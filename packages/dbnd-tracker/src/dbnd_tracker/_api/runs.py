"""The read API."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Body, HTTPException, Query, Response

from dbnd_tracker import _queries as queries
from dbnd_tracker import _views as views
from dbnd_tracker._deletion import delete_runs
from dbnd_tracker._ingest import stop_runs
from dbnd_tracker._queries.sampling import LEAST
from dbnd_tracker._schemas.fields import Uid

if TYPE_CHECKING:
    from pydantic import BaseModel

    from dbnd_tracker._database import Database

MAX_RUNS = 1_000
MAX_POINTS = 100_000
MAX_SAMPLES = 10_000


def runs_router(database: Database) -> APIRouter:
    """Routes that read runs, metrics and logs."""
    router = APIRouter(prefix="/api/v1", tags=["runs"])

    @router.get("/runs", response_model=views.RunPage)
    def runs(
        *,
        job: str | None = None,
        project: str | None = None,
        state: str | None = None,
        user: str | None = None,
        name: str | None = None,
        filters: Annotated[
            str | None,
            Query(alias="filter", description='JSON: [{"name": "uid", "op": "eq" or "like", "val": "..."}, ...]'),
        ] = None,
        limit: Annotated[int, Query(ge=1, le=MAX_RUNS)] = 50,
        after: Annotated[str | None, Query(description="meta.after of the previous page")] = None,
    ) -> Response:
        """Runs that meet all conditions, newest first."""
        given = {"job": job, "project": project, "state": state, "user": user, "name": name}
        conditions = [queries.Condition(field, "eq", value) for field, value in given.items() if value is not None]
        conditions += _conditions(filters) if filters else []
        with database.read() as session:
            return _answer(queries.list_runs(session, conditions, limit=limit, after=after))

    @router.post("/runs/stop")
    def stop(run_uids: Annotated[list[Uid], Body(min_length=1)]) -> dict[str, str]:
        """Ask runs to stop, and answer the state of each: they learn it from the answer to their next heartbeat."""
        return database.write(lambda writer: stop_runs(writer, run_uids))

    @router.get("/runs/{run_uid}", response_model=views.RunDetail)
    def run(run_uid: str) -> Response:
        """One run with its task runs and everything that they logged."""
        with database.read() as session:
            return _answer(queries.run_detail(session, run_uid.lower()), f"There is no run {run_uid}.")

    @router.delete("/runs/{run_uid}", status_code=HTTPStatus.NO_CONTENT)
    def delete_run(run_uid: str) -> Response:
        """Delete a run with everything in it, for good."""
        if database.write(lambda writer: delete_runs(writer.session, [run_uid.lower()])) == 0:
            raise HTTPException(HTTPStatus.NOT_FOUND, f"There is no run {run_uid}.")
        return Response(status_code=HTTPStatus.NO_CONTENT)

    @router.get("/task-runs/{task_run_uid}", response_model=views.TaskRunView)
    def task_run(task_run_uid: str) -> Response:
        """One task run with everything that it logged."""
        with database.read() as session:
            found = queries.task_run_detail(session, task_run_uid.lower())
            return _answer(found, f"There is no task run {task_run_uid}.")

    @router.get("/task-runs/{task_run_uid}/metrics", response_model=views.MetricList)
    def metrics(task_run_uid: str) -> Response:
        """The metrics of a task run, each summed up."""
        with database.read() as session:
            return _answer(queries.metric_list(session, task_run_uid.lower()))

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
            found = queries.metric_history(
                session, task_run_uid.lower(), key, limit=limit, after=after, samples=samples
            )
            return _answer(found)

    @router.get("/task-runs/{task_run_uid}/log", response_model=views.TaskRunLog)
    def log(task_run_uid: str) -> Response:
        """The log of a task run."""
        with database.read() as session:
            found = queries.task_run_log(session, task_run_uid.lower())
            return _answer(found, f"There is no task run {task_run_uid}.")

    return router


def _answer(found: BaseModel | None, missing: str = "") -> Response:
    """``found`` as JSON, written by its own model: it has been validated when it was made."""
    if found is None:
        raise HTTPException(HTTPStatus.NOT_FOUND, missing)
    return Response(found.model_dump_json(), media_type="application/json")


def _conditions(text: str) -> list[queries.Condition]:
    try:
        parsed: Any = json.loads(text)
        return [queries.Condition(str(c["name"]), str(c.get("op", "eq")), str(c["val"])) for c in parsed]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        msg = f'filter={text[:80]!r} is not of the form [{{"name": "uid", "op": "eq", "val": "..."}}].'
        raise queries.QueryError(msg) from None
