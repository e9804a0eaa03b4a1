"""The form by which a person gives a token to the web page."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qs

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from dbnd_tracker._access.tokens import ThrottledError, close_session
from dbnd_tracker._api.auth import open_session_of
from dbnd_tracker._api.pages import HEADERS
from dbnd_tracker._middleware.access import SESSION_COOKIE, address_of, set_session_cookie
from dbnd_tracker._pages.templates import make_templates

if TYPE_CHECKING:
    from dbnd_tracker._access.tokens import Keyring
    from dbnd_tracker._storage.database import Database

_HEADERS: Final = {**HEADERS, "Cache-Control": "no-store"}
_MOST_FIELDS: Final = 10


def login_router(database: Database, keyring: Keyring | None) -> APIRouter:
    """Routes of the form; without ``keyring`` there is nothing to ask for, and they lead to the page."""
    router = APIRouter(include_in_schema=False)
    environment = make_templates()

    def form(request: Request, wanted: str, problem: str = "", status: HTTPStatus = HTTPStatus.OK) -> Response:
        is_open = SESSION_COOKIE in request.cookies and not problem
        text = environment.get_template("login.html").render(problem=problem, next=wanted, is_open=is_open)
        return HTMLResponse(text, status, _HEADERS)

    @router.get("/login")
    def show(request: Request) -> Response:
        wanted = _local(request.query_params.get("next", "/"))
        return form(request, wanted) if keyring else RedirectResponse("/", HTTPStatus.SEE_OTHER)

    @router.post("/login")
    async def log_in(request: Request) -> Response:
        fields = _fields(await request.body())
        wanted = _local(fields.get("next", ["/"])[-1])
        answer = RedirectResponse(wanted, HTTPStatus.SEE_OTHER)
        if keyring:
            token = fields.get("token", [""])[-1].strip()
            try:
                secret = await open_session_of(database, keyring, token, address_of(request))
            except ThrottledError as error:
                answered = form(request, wanted, str(error), HTTPStatus.TOO_MANY_REQUESTS)
                answered.headers["Retry-After"] = str(error.seconds)
                return answered
            if secret is None:
                return form(request, wanted, "This is no token of this tracker.", HTTPStatus.UNAUTHORIZED)
            set_session_cookie(request, answer, secret)
        return answer

    @router.post("/logout")
    def log_out(request: Request) -> Response:
        secret = request.cookies.get(SESSION_COOKIE)
        if keyring and secret:
            database.write(lambda writer: close_session(writer, secret))
        answer = RedirectResponse("/login", HTTPStatus.SEE_OTHER)
        answer.delete_cookie(SESSION_COOKIE)
        return answer

    return router


def _fields(body: bytes) -> dict[str, list[str]]:
    try:
        return parse_qs(body.decode("utf-8", "replace"), max_num_fields=_MOST_FIELDS)
    except ValueError:
        return {}


def _local(wanted: str) -> str:
    """``wanted`` if it is a page of this tracker, else its first page: a link must not lead elsewhere after a login."""
    is_local = wanted.startswith("/") and not wanted.startswith(("//", "/\\")) and wanted.isprintable()
    return wanted if is_local and wanted.isascii() else "/"
