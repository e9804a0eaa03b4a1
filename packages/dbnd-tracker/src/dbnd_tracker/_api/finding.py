"""Addresses that lead to pages: those made of MLflow's ids, values to be suggested, and those that are wrong."""

from __future__ import annotations

from typing import Annotated, Final
from urllib.parse import quote

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse, RedirectResponse, Response
from starlette.exceptions import HTTPException

from dbnd_tracker._api.pages import answer, message
from dbnd_tracker._api.state import TheDatabase
from dbnd_tracker._pages.templates import row_url
from dbnd_tracker._queries.language.expressions import Field
from dbnd_tracker._queries.language.grammar import condition, parse_expression
from dbnd_tracker._queries.table.run_table import run_table
from dbnd_tracker._queries.table.suggestions import known_values

_MAX_SUGGESTED: Final = 30

router = APIRouter(include_in_schema=False)


@router.get("/app/mlflow/{mlflow_run_id}")
def mlflow_run(database: TheDatabase, request: Request, mlflow_run_id: str) -> Response:
    """The page of an MLflow run, by its id or the first digits of it."""
    wanted = condition("mlflow_run_id", "=", mlflow_run_id)
    with database.read() as session:
        found = run_table(session, parse_expression(wanted), limit=2)
        if not found.rows:
            wanted = condition("mlflow_run_id", "like", f"{mlflow_run_id.replace('%', '')}%")
            found = run_table(session, parse_expression(wanted), limit=2)
    if not found.rows:
        return message(request, f"No MLflow run is known whose id is, or begins with, {mlflow_run_id[:64]}.")
    if found.total > 1:
        return RedirectResponse(f"/?where={quote(wanted)}", 303)
    return RedirectResponse(row_url(found.rows[0]), 303)


@router.get("/app/values")
def values(
    database: TheDatabase, request: Request, name: str, start: Annotated[str, Query(max_length=200)] = ""
) -> Response:
    """Values of a param, tag or attribute that begin with ``start``, for a condition to be completed."""
    with database.read() as session:
        found = known_values(session, Field.parse(name) or name.removeprefix("run."), start, _MAX_SUGGESTED)
    return answer(request, JSONResponse(found))


def answer_missing(request: Request, error: Exception) -> Response:
    """Answer for an address where there is nothing: with a page for people, and JSON for programs."""
    assert isinstance(error, HTTPException)
    path = request.url.path
    if path.startswith("/api/") or "text/html" not in request.headers.get("accept", ""):
        return JSONResponse({"detail": error.detail}, 404, error.headers)
    return message(request, f"There is no page {path[:200]}.")
