"""The routes of the web page."""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Final, Literal

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from sqlalchemy import select

from dbnd_tracker._pages.compare import ComparePage
from dbnd_tracker._pages.reference import operations
from dbnd_tracker._pages.run import RunPage
from dbnd_tracker._pages.table import TablePage
from dbnd_tracker._pages.task import TaskPage
from dbnd_tracker._pages.templates import make_templates
from dbnd_tracker._queries.details import read_task_runs, run_detail, task_run_log
from dbnd_tracker._queries.metrics import find_series
from dbnd_tracker._queries.runs import runs_by_uid
from dbnd_tracker._queries.series import chart_sample
from dbnd_tracker._storage.models import Run, TaskRun

if TYPE_CHECKING:
    from dbnd_tracker._queries.arrays import SeriesCache
    from dbnd_tracker._storage.database import Database

HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-cache",
}
"""Headers of every page: it uses nothing but what this server has, and none of it is written into the page."""

_MAX_VALUES: Final = 5_000


def pages_router(database: Database, cache: SeriesCache) -> APIRouter:
    """Routes of the web page."""
    router = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)
    pages = _Pages(database, cache)
    router.get("/")(pages.runs)
    router.get("/docs")(pages.reference)
    router.get("/app/jobs/{job_name:path}/{run_uid}/{task_run_uid}")(pages.task_run)
    router.get("/app/jobs/{job_name:path}/{run_uid}")(pages.run)
    router.get("/app/jobs/{job_name}")(pages.job)
    router.get("/app/compare")(pages.compare)
    router.get("/app/logs/{task_run_uid}")(pages.log)
    router.get("/app/series/{task_run_uid}")(pages.series)
    return router


class _Pages:
    """What the routes answer."""

    def __init__(self, database: Database, cache: SeriesCache) -> None:
        self._database = database
        self._cache = cache
        self._templates = make_templates()

    def _render(self, request: Request, template: str, status: int = 200, **values: object) -> Response:
        text = self._templates.get_template(template).render(**values)
        return answer(request, HTMLResponse(text.encode("utf-8", "replace"), status))

    def _message(self, request: Request, text: str, status: int = 404) -> Response:
        return self._render(request, "message.html", status, text=text)

    def _table(self, request: Request, job: str | None = None) -> Response:
        with self._database.read() as session:
            page = TablePage(session, request.query_params, job)
        status = 400 if page.problem else 200
        return self._render(request, "runs.html", status, page=page)

    def reference(self, request: Request) -> Response:
        """What the HTTP interface takes and answers."""
        document = request.app.openapi()
        version = document["info"]["version"]
        return self._render(request, "reference.html", groups=operations(document), version=version)

    def runs(self, request: Request) -> Response:
        """All runs."""
        return self._table(request)

    def job(self, request: Request, job_name: str) -> Response:
        """The runs of a job whose name has no slash."""
        return self._table(request, job_name)

    def run(self, request: Request, job_name: str, run_uid: str) -> Response:
        """A run, or the runs of a job whose name has a slash."""
        with self._database.read() as session:
            found = run_detail(session, run_uid.lower(), logged=False)
            if found is not None:
                page = RunPage(session, found, request.query_params)
                return self._render(request, "run.html", page=page)
            name = f"{job_name}/{run_uid}"
            is_job = session.scalar(select(Run.id).where(Run.job_name == name).limit(1)) is not None
        return self._table(request, name) if is_job else self._message(request, f"There is no run {run_uid}.")

    def task_run(self, request: Request, job_name: str, run_uid: str, task_run_uid: str) -> Response:
        """A task run."""
        with self._database.read() as session:
            for run in runs_by_uid(session, [run_uid.lower()]):
                wanted = (TaskRun.uid == task_run_uid.lower()) & (TaskRun.run_uid == run.run_uid)
                found = read_task_runs(session, wanted, logged=False)
                if not found:
                    return self._message(request, f"The run {run.name or run_uid} has no task run {task_run_uid}.")
                page = TaskPage(session, run, found[0], request.query_params)
                return self._render(request, "task.html", page=page)
        # A job name may hold slashes, so that a link to a run can look like one to a task run: the uid decides.
        return self.run(request, f"{job_name}/{run_uid}", task_run_uid)

    def compare(self, request: Request) -> Response:
        """Runs beside each other."""
        with self._database.read() as session:
            page = ComparePage(session, request.query_params)
            if len(page.runs) < 2:
                text = "A comparison needs two runs: select them in the table of runs."
                return self._message(request, text, 400)
            return self._render(request, "compare.html", page=page)

    def log(self, request: Request, task_run_uid: str) -> Response:
        """The whole log of a task run, as text."""
        with self._database.read() as session:
            found = task_run_log(session, task_run_uid.lower())
        if found is None or found.log_body is None:
            return self._message(request, f"There is no log of the task run {task_run_uid}.")
        return answer(request, PlainTextResponse(found.log_body))

    def series(
        self,
        *,
        request: Request,
        task_run_uid: str,
        key: str,
        axis: Literal["step", "time"] = "step",
        first: Annotated[float | None, Query(alias="from", allow_inf_nan=False)] = None,
        last: Annotated[float | None, Query(alias="to", allow_inf_nan=False)] = None,
        values: Annotated[int, Query(ge=1, le=_MAX_VALUES)] = 1_000,
    ) -> Response:
        """A part of a metric's history, as charts draw it."""
        with self._database.read() as session:
            found = find_series(session, task_run_uid.lower(), key)
            if found is None:
                detail = f"The task run {task_run_uid} has no metric {key!r}."
                return JSONResponse({"detail": detail}, 404, HEADERS)
            sample = chart_sample(session, self._cache, found, axis=axis, first=first, last=last, values=values)
        return answer(request, JSONResponse(asdict(sample)))


def answer(request: Request, response: Response) -> Response:
    """``response`` with the headers of a page, or 304 if the client has it already."""
    tag = f'"{hashlib.blake2b(bytes(response.body), digest_size=12).hexdigest()}"'
    headers = {**HEADERS, "ETag": tag}
    if request.headers.get("if-none-match") == tag and response.status_code == 200:
        return Response(status_code=304, headers=headers)
    response.headers.update(headers)
    return response
