"""The read API."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from fastapi import APIRouter, Body, HTTPException, Query, Response

from dbnd_tracker import _queries as queries
from dbnd_tracker import _views as views
from dbnd_tracker._api.answers import answer
from dbnd_tracker._api.exports import MEDIA_TYPES, points_table, whole_run
from dbnd_tracker._ingest import stop_runs
from dbnd_tracker._queries.expressions import Field
from dbnd_tracker._queries.grammar import MAX_COMPARISONS, parse_expression
from dbnd_tracker._queries.run_table import ORDERS, STARTED, RunFilter
from dbnd_tracker._schemas.fields import Many, Uid
from dbnd_tracker._storage.deletion import delete_runs

if TYPE_CHECKING:
    from dbnd_tracker._storage.database import Database

MAX_RUNS = 1_000
MAX_COMPARED = 100
_ORDER_NAMES: Final = {
    **{name: name for name in ORDERS},
    "start_time": STARTED,
    "job_name": "job",
    "project_name": "project",
    "duration": "took",
}
_FORM: Final = Query(alias="format", description="Parquet needs pyarrow on the side of the tracker")
_SORT: Final = (
    f"One of {', '.join(_ORDER_NAMES)}, or metrics.NAME, params.NAME, tags.NAME; with a - in front of it, "
    "the largest comes first"
)


def runs_router(database: Database) -> APIRouter:
    """Routes about runs."""
    router = APIRouter(prefix="/api/v1", tags=["runs"])

    @router.get("/runs", response_model=views.RunPage)
    def runs(  # noqa: PLR0913  the parameters of a query
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
        sort: Annotated[str, Query(description=_SORT)] = f"-{STARTED}",
        expression: Annotated[
            str,
            Query(
                description="""A condition such as: metrics.loss < 0.5 and not (params.lr = 0.1 or name like 'a%')"""
            ),
        ] = "",
        size: Annotated[
            int | None, Query(alias="page[size]", ge=1, le=MAX_RUNS, description="limit, as the original clients say")
        ] = None,
        number: Annotated[
            int, Query(alias="page[number]", ge=1, le=1_000_000, description="For them; after is quicker")
        ] = 1,
    ) -> Response:
        """Runs that meet all conditions, newest first unless they are sorted otherwise."""
        given = {"job": job, "project": project, "state": state, "user": user, "name": name}
        conditions = [queries.Condition(field, "eq", value) for field, value in given.items() if value is not None]
        conditions += conditions_of(filters)
        wanted = RunFilter(where=parse_expression(expression), conditions=tuple(conditions))
        order, descending = _order(sort)
        limit = limit if size is None else size
        with database.read() as session:
            page = queries.list_runs(
                session,
                wanted,
                order=order,
                descending=descending,
                limit=limit,
                after=after,
                offset=(number - 1) * limit,
            )
            return answer(page)

    @router.get("/runs/compare", response_model=views.Comparison)
    def compare(run_uid: Annotated[list[str], Query(min_length=1, max_length=MAX_COMPARED)]) -> Response:
        """Several runs side by side: what their tasks have logged, by kind, task and name."""
        with database.read() as session:
            return answer(queries.compare_runs(session, [uid.lower() for uid in run_uid]))

    @router.post("/runs/stop")
    def stop(run_uids: Annotated[Many[Uid], Body(min_length=1)]) -> dict[str, str]:
        """Ask runs to stop, and answer the state of each: they learn it from the answer to their next heartbeat."""
        return database.write(lambda writer: stop_runs(writer, run_uids))

    @router.get("/runs/{run_uid}", response_model=views.RunDetail)
    def run(run_uid: str) -> Response:
        """One run with its task runs and everything that they logged."""
        with database.read() as session:
            return answer(queries.run_detail(session, run_uid.lower()), f"There is no run {run_uid}.")

    @router.delete("/runs/{run_uid}", status_code=HTTPStatus.NO_CONTENT)
    def delete_run(run_uid: str) -> Response:
        """Delete a run with everything in it, for good."""
        if database.write(lambda writer: delete_runs(writer.session, [run_uid.lower()])) == 0:
            raise HTTPException(HTTPStatus.NOT_FOUND, f"There is no run {run_uid}.")
        return Response(status_code=HTTPStatus.NO_CONTENT)

    @router.get(
        "/runs/{run_uid}/export",
        response_model=views.RunDetail,
        responses={200: {"content": {kind: {} for kind in MEDIA_TYPES.values()}}},
    )
    def export(run_uid: str, form: Annotated[Literal["json", "csv", "parquet"], _FORM] = "json") -> Response:
        """A run as a file.

        As JSON it is the whole run: as its own page of the API, with the log and every point of each task run. As CSV
        and Parquet it is a table with a row for each point.
        """
        uid = run_uid.lower()
        found = whole_run(database, uid) if form == "json" else points_table(database, uid, form)
        return found or answer(None, f"There is no run {run_uid}.")

    @router.get("/client-errors", response_model=views.ClientErrorList)
    def client_errors(limit: Annotated[int, Query(ge=1, le=MAX_RUNS)] = 100) -> Response:
        """Errors inside clients, which they have told of, newest first."""
        with database.read() as session:
            return answer(queries.client_errors(session, limit))

    return router


def _order(sort: str) -> tuple[str | Field, bool]:
    """What ``sort`` names, and whether the largest comes first."""
    name = sort.removeprefix("-")
    found: str | Field | None = Field.parse(name) or _ORDER_NAMES.get(name)
    if found is None:
        msg = f"Runs cannot be sorted by {name[:80]!r}; they can by {', '.join(_ORDER_NAMES)}, metrics.NAME."
        raise queries.QueryError(msg)
    return found, sort.startswith("-")


def conditions_of(text: str | None) -> list[queries.Condition]:
    """The conditions that the parameter ``filter`` says.

    Raises:
        QueryError: It is not of the form of one, or there are too many.
    """
    try:
        parsed: Any = json.loads(text or "[]")
        found = [queries.Condition(str(c["name"]), str(c.get("op", "eq")), str(c["val"])) for c in parsed]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        msg = f'filter={str(text)[:80]!r} is not of the form [{{"name": "uid", "op": "eq", "val": "..."}}].'
        raise queries.QueryError(msg) from None
    if len(found) > MAX_COMPARISONS:
        msg = f"The filter has {len(found):,} conditions, and {MAX_COMPARISONS} are allowed."
        raise queries.QueryError(msg)
    return found
