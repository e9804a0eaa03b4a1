"""The routes of views: addresses of pages that were saved under a name, for all who use the tracker."""

from __future__ import annotations

import re
from typing import Annotated, Final

from fastapi import APIRouter, HTTPException, Request, Response
from fastapi.responses import RedirectResponse
from pydantic import AfterValidator, ConfigDict, Field

from dbnd_tracker._api.pages import message
from dbnd_tracker._api.state import TheDatabase
from dbnd_tracker._schemas.fields import Body, Name, Text
from dbnd_tracker._storage.saved_views import forget_view, save_view, saved_views

# The table, the runs of a job or in them, a comparison: nothing that leads to another host, or changes anything.
_ADDRESS: Final = re.compile(r"/(\?.*|app/(jobs/|compare\?).*)?")
_LONGEST: Final = 16_000

router = APIRouter(prefix="/api/v1/views", tags=["views"])
page_router = APIRouter(include_in_schema=False)

ViewName = Annotated[Name, Field(min_length=1)]


def _checked(address: str) -> str:
    if _ADDRESS.fullmatch(address) is None:
        msg = f"{address[:80]!r} is not the address of a table of runs, a run or a comparison, such as /?q=words"
        raise ValueError(msg)
    return address


class SavedAddress(Body):
    """Body of a view: the address that its name stands for, without the host."""

    model_config = ConfigDict(extra="forbid")

    address: Annotated[Text, Field(max_length=_LONGEST), AfterValidator(_checked)]


@router.get("")
def views(database: TheDatabase) -> dict[str, str]:
    """The addresses of all views, by their names."""
    with database.read() as session:
        return saved_views(session)


@router.put("/{name:path}", status_code=204)
def save(database: TheDatabase, name: ViewName, body: SavedAddress) -> Response:
    """Save an address under a name, in place of what has had it before."""
    database.write(lambda writer: save_view(writer, name, body.address))
    return Response(status_code=204)


@router.delete("/{name:path}", status_code=204)
def forget(database: TheDatabase, name: ViewName) -> Response:
    """Forget a view."""
    if not database.write(lambda writer: forget_view(writer.session, name)):
        raise HTTPException(404, f"There is no view {name!r}.")
    return Response(status_code=204)


@page_router.get("/app/views/{name:path}")
def view(database: TheDatabase, request: Request, name: Name) -> Response:
    """The page that a view stands for."""
    with database.read() as session:
        address = saved_views(session).get(name)
    return message(request, f"There is no view {name!r}.") if address is None else RedirectResponse(address, 303)
