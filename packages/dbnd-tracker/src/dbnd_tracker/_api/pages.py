"""The web page: plain HTML without scripts or files of its own."""

from __future__ import annotations

from datetime import datetime, timezone
from http import HTTPStatus
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from fastapi import APIRouter
from fastapi.responses import HTMLResponse
from jinja2 import Environment, PackageLoader, StrictUndefined

from dbnd_tracker import _queries as queries
from dbnd_tracker._format import duration_text, value_text, web_url

if TYPE_CHECKING:
    from dbnd_tracker._database import Database
    from dbnd_tracker._views import RunDetail

_HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
_RUNS_PER_PAGE: Final = 100


def pages_router(database: Database) -> APIRouter:
    """Routes of the web page."""
    router = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)
    templates = _templates()

    def render(template: str, status: HTTPStatus = HTTPStatus.OK, **values: object) -> HTMLResponse:
        return HTMLResponse(templates.get_template(template).render(**values), status, _HEADERS)

    @router.get("/")
    def runs(after: str | None = None) -> HTMLResponse:
        with database.read() as session:
            page = queries.list_runs(session, limit=_RUNS_PER_PAGE, after=after)
        return render("runs.html", page=page)

    @router.get("/app/jobs/{job_name:path}/{run_uid}/{task_run_uid}")
    def task_run(job_name: str, run_uid: str, task_run_uid: str) -> HTMLResponse:
        # A job name may hold slashes, so that a link to a run can look like one to a task run: the uid decides.
        found = run_page(run_uid, task_run_uid)
        return found or run(job_name, task_run_uid)

    @router.get("/app/jobs/{job_name:path}/{run_uid}")
    def run(job_name: str, run_uid: str) -> HTMLResponse:
        del job_name
        text = f"There is no run {run_uid}."
        return run_page(run_uid) or render("message.html", HTTPStatus.NOT_FOUND, text=text)

    def run_page(run_uid: str, task_run_uid: str | None = None) -> HTMLResponse | None:
        with database.read() as session:
            found = queries.run_detail(session, run_uid.lower())
        if found is None:
            return None
        tasks = [task for task in found.task_runs if task_run_uid in {None, task.task_run_uid}]
        return render("run.html", run=found, tasks=tasks, facts=_facts(found))

    return router


def _templates() -> Environment:
    environment = Environment(
        loader=PackageLoader("dbnd_tracker", "_templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "time": _time_text,
        "duration": duration_text,
        "value": value_text,
        "web_url": web_url,
        "segment": lambda text: quote(text or "-", safe=""),
    }
    environment.globals["rows"] = lambda items, *names: [[getattr(item, name) for name in names] for item in items]
    return environment


def _facts(run: RunDetail) -> list[tuple[str, str | None]]:
    """What stands at the top of a run's page."""
    return [
        ("Run", run.run_uid),
        ("Job", run.job_name),
        ("Project", run.project_name),
        ("User", run.user),
        ("Description", run.description),
        ("Started", _time_text(run.start_time)),
        ("Ended", _time_text(run.end_time)),
        ("Took", duration_text(run.duration)),
        ("Command", run.environment.get("cmd_line")),
        ("Code version", run.environment.get("user_code_version")),
    ]


def _time_text(time: datetime | None) -> str:
    return "" if time is None else time.astimezone(timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")
