"""The read API of runs and of what clients say about themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Body, HTTPException, Query, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

from dbnd import UsageError
from dbnd_tracker import _views as views
from dbnd_tracker._api.state import TheDatabase
from dbnd_tracker._exports import FORMS, run_json
from dbnd_tracker._ingest import edit_run, stop_runs
from dbnd_tracker._queries.details import client_errors, run_detail
from dbnd_tracker._queries.language.expressions import QueryError
from dbnd_tracker._queries.language.grammar import condition, joined, parse_expression, parse_filter, parse_query
from dbnd_tracker._queries.table.comparison import compare_runs
from dbnd_tracker._queries.table.run_table import ORDER_NAMES, STARTED, list_runs, parse_column, parse_order
from dbnd_tracker._reader import DatabaseReader
from dbnd_tracker._schemas.fields import Many, Uid
from dbnd_tracker._schemas.runs import RunChange
from dbnd_tracker._storage.database import Database
from dbnd_tracker._storage.points.archive import check_archive
from dbnd_tracker._storage.upkeep.deletion import delete_wholly

Form = Literal["json", "csv", "parquet"]

_MEDIA_TYPES: Final[dict[Form, str]] = {
    "json": "application/json",
    "csv": "text/csv",
    "parquet": "application/vnd.apache.parquet",
}
_SIZE_AT_ONCE: Final = 1 << 18
_MAX_RUNS: Final = 1_000
_MAX_COMPARED: Final = 100
_QUERY: Final = Query(description="Words that stand in a row's names or begin its ids, and conditions")
_FILTER: Final = Query(alias="filter", description='JSON: [{"name": "uid", "op": "eq" or "like", "val": "..."}, ...]')
_EXPRESSION: Final = Query(
    description="A condition such as: metrics.loss < 0.5 and not (params.lr = 0.1 or name like 'a%')"
)
_SORT: Final = Query(
    description=f"One of {', '.join(ORDER_NAMES)}, or metrics.NAME, params.NAME, tags.NAME; with a - in front of it, "
    "the largest comes first"
)
_COLUMNS: Final = Query(max_length=100, description="What each row has values of, as metrics.loss or min:metrics.loss")
_SIZE: Final = Query(alias="page[size]", ge=1, le=_MAX_RUNS, description="limit, as the original clients say")
_NUMBER: Final = Query(alias="page[number]", ge=1, le=1_000_000, description="For them; after is quicker")


def ask(database: Database, question: Callable[..., BaseModel | None], *args: Any, **options: Any) -> Response:
    """What a function of ``_queries`` finds, as JSON written by its own model: it has been validated already.

    Raises:
        HTTPException: It finds nothing.
    """
    with database.read() as session:
        found = question(session, *args, **options)
    if found is None:
        raise HTTPException(404, f"There is no run or task run {args[0]}.")
    return Response(found.model_dump_json(), media_type="application/json")


router = APIRouter(prefix="/api/v1", tags=["runs"])


@router.get("/runs", response_model=views.RunList)
def runs(  # noqa: PLR0913  the parameters of a query
    *,
    database: TheDatabase,
    job: str | None = None,
    project: str | None = None,
    state: str | None = None,
    user: str | None = None,
    name: str | None = None,
    filters: Annotated[str | None, _FILTER] = None,
    limit: Annotated[int, Query(ge=1, le=_MAX_RUNS)] = 50,
    after: Annotated[str | None, Query(description="meta.after of the previous page")] = None,
    sort: Annotated[str, _SORT] = f"-{STARTED}",
    expression: Annotated[str, _EXPRESSION] = "",
    q: Annotated[str, _QUERY] = "",
    columns: Annotated[list[str], _COLUMNS] = [],  # noqa: B006  FastAPI copies it
    size: Annotated[int | None, _SIZE] = None,
    number: Annotated[int, _NUMBER] = 1,
) -> Response:
    """Rows that meet all conditions, newest first unless they are sorted otherwise.

    They are runs; asked for by what was logged, or by a name or id of MLflow's, they are single task runs.
    """
    given = {"job": job, "project": project, "state": state, "user": user, "name": name}
    texts = [condition(field, "=", value) for field, value in given.items() if value is not None]
    asked = parse_query(q)
    texts += asked.conditions
    conditions = parse_expression(joined(texts)), parse_filter(filters), parse_expression(expression)
    order, descending = parse_order(sort)
    limit = limit if size is None else size
    page = {"limit": limit, "after": after, "offset": (number - 1) * limit, "columns": [*map(parse_column, columns)]}
    return ask(database, list_runs, *conditions, search=asked.words, order=order, descending=descending, **page)


@router.get("/runs/compare", response_model=views.RunComparison)
def compare(
    database: TheDatabase, run_uid: Annotated[list[str], Query(min_length=1, max_length=_MAX_COMPARED)]
) -> Response:
    """Several runs side by side: what their tasks have logged, by kind and name."""
    return ask(database, compare_runs, [uid.lower() for uid in run_uid])


@router.post("/runs/stop")
def stop(database: TheDatabase, run_uids: Annotated[Many[Uid], Body(min_length=1)]) -> dict[str, str]:
    """Ask runs to stop, and answer the state of each: they learn it from the answer to their next heartbeat."""
    return database.write(lambda writer: stop_runs(writer, run_uids))


@router.get("/runs/{run_uid}", response_model=views.RunDetail)
def run(database: TheDatabase, run_uid: str) -> Response:
    """One run with its task runs and everything that they logged."""
    return ask(database, run_detail, run_uid.lower())


@router.patch("/runs/{run_uid}", status_code=204)
def change_run(database: TheDatabase, run_uid: str, change: RunChange) -> Response:
    """Change the name, the note and tags of a run: here they stay so, and in MLflow they stay what they are."""
    changed = change.model_dump()
    database.write(lambda writer: edit_run(writer, run_uid.lower(), **changed))
    return Response(status_code=204)


@router.delete("/runs/{run_uid}", status_code=204)
def delete_run(database: TheDatabase, run_uid: str) -> Response:
    """Delete a run with everything in it, for good."""
    if delete_wholly(database, [run_uid.lower()]) == 0:
        raise HTTPException(404, f"There is no run {run_uid}.")
    return Response(status_code=204)


@router.get(
    "/runs/{run_uid}/export",
    response_model=views.RunDetail,
    responses={200: {"content": {kind: {} for kind in _MEDIA_TYPES.values()}}},
)
def export_run(
    database: TheDatabase,
    run_uid: str,
    form: Annotated[Form, Query(alias="format", description="Parquet needs pyarrow beside the tracker")] = "json",
) -> Response:
    """A run as a file.

    As JSON it is the whole run: as its own page of the API, with the log and every point of each task run. As CSV
    and Parquet it is a table with a row for each point.
    """
    reader = DatabaseReader(database, "the database")
    found = reader.run(run_uid.lower())
    if found is None:
        raise HTTPException(404, f"There is no run {run_uid}.")
    parts: Iterator[tuple[Any, int]] = run_json(reader, found) if form == "json" else FORMS[form](reader, [found])
    try:
        with database.read() as session:
            check_archive(session.connection(), found.run_uid)  # once the file begins, nothing can be said any more
        first, _ = next(parts)
    except UsageError as error:
        raise QueryError(str(error)) from None
    headers = {"Content-Disposition": f'attachment; filename="run-{found.run_uid}.{form}"'}
    return StreamingResponse(_chunks(first, parts), media_type=_MEDIA_TYPES[form], headers=headers)


@router.get("/client-errors", response_model=views.ClientErrorList)
def errors(database: TheDatabase, limit: Annotated[int, Query(ge=1, le=_MAX_RUNS)] = 100) -> Response:
    """Errors inside clients, which they have told of, newest first."""
    return ask(database, client_errors, limit)


def _chunks(first: Any, parts: Iterator[tuple[Any, int]]) -> Iterator[Any]:
    """``first`` at once and the others together, so that neither memory nor the time until a file begins grows."""
    yield first
    pending, size = [], 0
    for part, _ in parts:
        pending.append(part)
        size += len(part)
        if size >= _SIZE_AT_ONCE:
            yield first[:0].join(pending)
            pending, size = [], 0
    yield first[:0].join(pending)
