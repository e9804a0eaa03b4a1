"""The routes of the web page."""

from __future__ import annotations

import hashlib
from typing import Final

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from sqlalchemy import select

from dbnd_tracker._access.callers import identity_of
from dbnd_tracker._access.places import Places
from dbnd_tracker._access.roles import Role
from dbnd_tracker._api.state import TheDatabase
from dbnd_tracker._pages.reference import operations
from dbnd_tracker._pages.run.page import RunPage
from dbnd_tracker._pages.runs.columns import KEPT
from dbnd_tracker._pages.runs.compare import ComparePage
from dbnd_tracker._pages.runs.table import TablePage
from dbnd_tracker._pages.templates import TEMPLATES, run_url
from dbnd_tracker._queries.details import (
    children_of,
    is_only_task,
    read_task_runs,
    run_detail,
    runs_by_uid,
    task_run_log,
)
from dbnd_tracker._queries.overview import experiments, jobs
from dbnd_tracker._storage.database import Database
from dbnd_tracker._storage.models import Run, TaskRun
from dbnd_tracker._storage.saved_views import saved_views

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

router = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)
"""Routes of the web page; of those that fit an address, the first answers."""


def render(request: Request, template: str, status: int = 200, **values: object) -> Response:
    """A page made of a template."""
    text = TEMPLATES.get_template(template).render(**values)
    return answer(request, HTMLResponse(text.encode("utf-8", "replace"), status))


def message(request: Request, text: str, status: int = 404) -> Response:
    """A page that says one thing, with a way back."""
    return render(request, "message.html", status, text=text)


def _may_change(request: Request) -> bool:
    return identity_of(request.scope).role.allows(Role.ADMIN)


def _render_run(request: Request, page: RunPage, *, may_change: bool) -> Response:
    places: Places = request.app.state.places
    return render(request, "run.html", page=page, may_change=may_change, opens=lambda: places.opens_for(request.scope))


def _table(database: Database, request: Request, job: str | None = None) -> Response:
    with database.read() as session:
        page = TablePage(session, request.query_params, job, request.cookies.get(KEPT, ""))
        views = saved_views(session)
    status = 400 if page.problem else 200
    own = {"server_url": str(request.base_url).rstrip("/"), "views": views, "may_change": _may_change(request)}
    return render(request, "runs.html", status, page=page, **own)


@router.get("/")
def runs(database: TheDatabase, request: Request) -> Response:
    """All runs."""
    return _table(database, request)


@router.get("/app/jobs")
def overview(database: TheDatabase, request: Request) -> Response:
    """All jobs and experiments."""
    with database.read() as session:
        return render(request, "overview.html", jobs=jobs(session), experiments=experiments(session))


@router.get("/docs")
def reference(request: Request) -> Response:
    """What the HTTP interface takes and answers."""
    document = request.app.openapi()
    version = document["info"]["version"]
    return render(request, "reference.html", groups=operations(document), version=version)


@router.get("/app/jobs/{job_name:path}/{run_uid}/{task_run_uid}")
def task_run(database: TheDatabase, request: Request, job_name: str, run_uid: str, task_run_uid: str) -> Response:
    """A task run."""
    with database.read() as session:
        for parent in runs_by_uid(session, [run_uid.lower()]):
            wanted = (TaskRun.uid == task_run_uid.lower()) & (TaskRun.run_uid == parent.run_uid)
            found = read_task_runs(session, wanted, logged=False)
            if not found:
                return message(request, f"The run {parent.name or run_uid} has no task run {task_run_uid}.")
            task = found[0]
            if is_only_task(session, task.task_run_uid):
                query = f"?{request.url.query}" if request.url.query else ""
                return RedirectResponse(f"{run_url(parent.job_name, parent.run_uid)}{query}")
            tasks = [task, *children_of(session, task.task_run_uid)]
            page = RunPage(session, parent, tasks, request.query_params, task)
            return _render_run(request, page, may_change=False)
    # A job name may hold slashes, so that a link to a run can look like one to a task run: the uid decides.
    return run(database, request, f"{job_name}/{run_uid}", task_run_uid)


@router.get("/app/jobs/{job_name:path}/{run_uid}")
def run(database: TheDatabase, request: Request, job_name: str, run_uid: str) -> Response:
    """A run, or the runs of a job whose name has a slash."""
    with database.read() as session:
        found = run_detail(session, run_uid.lower(), logged=False)
        if found is not None:
            tasks = [task for task in found.task_runs if not task.is_system] or found.task_runs
            page = RunPage(session, found, tasks, request.query_params, tasks[0] if len(tasks) == 1 else None)
            return _render_run(request, page, may_change=_may_change(request))
        name = f"{job_name}/{run_uid}"
        is_job = session.scalar(select(Run.id).where(Run.job_name == name).limit(1)) is not None
    return _table(database, request, name) if is_job else message(request, f"There is no run {run_uid}.")


@router.get("/app/jobs/{job_name}")
def job(database: TheDatabase, request: Request, job_name: str) -> Response:
    """The runs of a job whose name has no slash."""
    return _table(database, request, job_name)


@router.get("/app/compare")
def compare(database: TheDatabase, request: Request) -> Response:
    """Runs beside each other."""
    with database.read() as session:
        page = ComparePage(session, request.query_params)
        if len(page.runs) < 2:
            text = "A comparison needs two runs: select them in the table of runs."
            return message(request, text, 400)
        return render(request, "compare.html", page=page)


@router.get("/app/logs/{task_run_uid}")
def log(database: TheDatabase, request: Request, task_run_uid: str) -> Response:
    """The whole log of a task run, as text."""
    with database.read() as session:
        found = task_run_log(session, task_run_uid.lower())
    if found is None or found.log_body is None:
        return message(request, f"There is no log of the task run {task_run_uid}.")
    return answer(request, PlainTextResponse(found.log_body))


def answer(request: Request, response: Response) -> Response:
    """``response`` with the headers of a page, or 304 if the client has it already."""
    tag = f'"{hashlib.blake2b(bytes(response.body), digest_size=12).hexdigest()}"'
    headers = {**HEADERS, "ETag": tag}
    if request.headers.get("if-none-match") == tag and response.status_code == 200:
        return Response(status_code=304, headers=headers)
    response.headers.update(headers)
    return response
