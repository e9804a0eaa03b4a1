"""The read API of datasets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Query, Response

from dbnd_tracker import _queries as queries
from dbnd_tracker import _views as views

if TYPE_CHECKING:
    from dbnd_tracker._storage.database import Database

_Path = Annotated[str, Query(description="The whole path, such as s3://bucket/file.csv")]


def datasets_router(database: Database) -> APIRouter:
    """Routes that read operations on datasets."""
    router = APIRouter(prefix="/api/v1/datasets", tags=["datasets"])

    @router.get("/operations", response_model=views.DatasetOperationPage)
    def operations(
        *,
        path: _Path | None = None,
        run_uid: str | None = None,
        limit: Annotated[int, Query(ge=1, le=1_000)] = 100,
        after: Annotated[int | None, Query(ge=1, le=2**63 - 1, description="after of the previous answer")] = None,
    ) -> Response:
        """Operations on datasets, newest first."""
        with database.read() as session:
            found = queries.dataset_operations(
                session, path=path, run_uid=None if run_uid is None else run_uid.lower(), limit=limit, after=after
            )
        return Response(found.model_dump_json(), media_type="application/json")

    @router.get("/lineage", response_model=views.Lineage)
    def lineage(path: _Path) -> Response:
        """Which datasets one was made of, and which were made of it."""
        with database.read() as session:
            return Response(queries.lineage(session, path).model_dump_json(), media_type="application/json")

    return router
