"""Tokens and logins: of clients, as they ask for them, and of people, by a form of the web page."""

from __future__ import annotations

import json
import secrets
from datetime import timedelta
from typing import Annotated, Final
from urllib.parse import parse_qs

from fastapi import APIRouter, HTTPException, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from pydantic import BaseModel, BeforeValidator, Field
from starlette.concurrency import run_in_threadpool

from dbnd_tracker._access.callers import CSRF_COOKIE, SESSION_COOKIE, address_of, identity_of, set_session_cookie
from dbnd_tracker._access.roles import Role
from dbnd_tracker._access.tokens import (
    ANYONE,
    LABEL_LENGTH,
    Keyring,
    ThrottledError,
    close_session,
    create_token,
    open_session,
)
from dbnd_tracker._api.pages import HEADERS
from dbnd_tracker._api.state import TheDatabase, TheKeyring
from dbnd_tracker._pages.templates import TEMPLATES
from dbnd_tracker._schemas.fields import from_digits
from dbnd_tracker._storage.database import Database
from dbnd_tracker._storage.writer import Writer

_LOGIN: Final = {"username": "databand", "password": "a token"}
_FORM_HEADERS: Final = {**HEADERS, "Cache-Control": "no-store"}
_MOST_FIELDS: Final = 10
_LONGEST_LIFESPAN: Final = 100 * 365 * 24 * 3600

_Lifespan = Annotated[int, Field(gt=0, le=_LONGEST_LIFESPAN)]


class Status(BaseModel):
    """That all is well."""

    status: str = "ok"


class TokenWanted(BaseModel):
    """What a new token is for.

    Its label is what lists and logs call it, and its lifespan is in seconds, as a number or text; without it, for ever.
    """

    label: Annotated[str, Field(min_length=1, max_length=LABEL_LENGTH)]
    lifespan: Annotated[_Lifespan | None, BeforeValidator(from_digits, json_schema_input_type=_Lifespan | None)] = None


class TokenMade(BaseModel):
    """A new token: its secret, which is told only now, and its uid."""

    token: str
    uid: str


router = APIRouter(prefix="/api/v1/auth", tags=["auth"])


@router.get("/csrf")
def csrf(request: Request, response: Response) -> Status:
    """Set the cookie whose value clients repeat as a header."""
    if CSRF_COOKIE not in request.cookies:
        is_secure = request.url.scheme == "https"
        response.set_cookie(CSRF_COOKIE, secrets.token_hex(16), samesite="strict", secure=is_secure)
    return Status()


@router.post(
    "/login",
    # Anything may stand there where no token is needed, so that clients of all kinds get in.
    openapi_extra={"requestBody": {"content": {"application/json": {"schema": {"examples": [_LOGIN]}}}}},
)
async def login(database: TheDatabase, keyring: TheKeyring, request: Request, response: Response) -> Status:
    """Open a session: the password is a token, of any user. Without tokens, everyone may come in."""
    if keyring is not None:
        try:
            password = json.loads(await request.body())["password"]
        except (ValueError, TypeError, KeyError, RecursionError):
            password = None
        is_text = isinstance(password, str)
        secret = await _open_session(database, keyring, password, address_of(request)) if is_text else None
        if secret is None:
            detail = "The password is no token of this tracker; clients take it from core.dbnd_password."
            raise HTTPException(401, detail)
        set_session_cookie(request, response, secret)
    return Status()


@router.get("/ping")
def ping() -> Status:
    """Say that the tracker is ready."""
    return Status()


@router.post("/personal_access_token")
def personal_access_token(database: TheDatabase, request: Request, wanted: TokenWanted) -> TokenMade:
    """Make a token with the role of the one that asks; a tracker that asks for none makes one for jobs."""
    identity = identity_of(request.scope)
    lifespan = None if wanted.lifespan is None else timedelta(seconds=wanted.lifespan)

    def work(writer: Writer) -> TokenMade:
        role, guards = (Role.WRITE, False) if identity == ANYONE else (identity.role, True)
        token, secret = create_token(writer, label=wanted.label, role=role, lifespan=lifespan, guards=guards)
        return TokenMade(token=secret, uid=token.uid)

    return database.write(work)


forms = APIRouter(include_in_schema=False)
"""Routes of the form; where no token is asked for, they lead to the page."""


def _form(request: Request, wanted: str, problem: str = "", status: int = 200) -> Response:
    is_open = SESSION_COOKIE in request.cookies and not problem
    text = TEMPLATES.get_template("login.html").render(problem=problem, next=wanted, is_open=is_open)
    return HTMLResponse(text, status, _FORM_HEADERS)


@forms.get("/login")
def show(keyring: TheKeyring, request: Request) -> Response:
    wanted = _local(request.query_params.get("next", "/"))
    return _form(request, wanted) if keyring else RedirectResponse("/", 303)


@forms.post("/login")
async def log_in(database: TheDatabase, keyring: TheKeyring, request: Request) -> Response:
    try:
        fields = parse_qs((await request.body()).decode("utf-8", "replace"), max_num_fields=_MOST_FIELDS)
    except ValueError:
        fields = {}
    wanted = _local(fields.get("next", ["/"])[-1])
    answer = RedirectResponse(wanted, 303)
    if keyring:
        token = fields.get("token", [""])[-1].strip()
        try:
            secret = await _open_session(database, keyring, token, address_of(request))
        except ThrottledError as error:
            answered = _form(request, wanted, str(error), 429)
            answered.headers["Retry-After"] = str(error.seconds)
            return answered
        if secret is None:
            return _form(request, wanted, "This is no token of this tracker.", 401)
        set_session_cookie(request, answer, secret)
    return answer


@forms.post("/logout")
def log_out(database: TheDatabase, keyring: TheKeyring, request: Request) -> Response:
    secret = request.cookies.get(SESSION_COOKIE)
    if keyring and secret:
        database.write(lambda writer: close_session(writer, secret))
    answer = RedirectResponse("/login", 303)
    answer.delete_cookie(SESSION_COOKIE)
    return answer


async def _open_session(database: Database, keyring: Keyring, password: str, address: str) -> str | None:
    """The secret of a new session of the token ``password``, or None; ThrottledError after too many wrong ones."""

    def work() -> str | None:
        with database.read() as session:
            identity = keyring.of_token(session, password, address)
        return None if identity is None else database.write(lambda writer: open_session(writer, identity))

    return await run_in_threadpool(work)


def _local(wanted: str) -> str:
    """``wanted`` if it is a page of this tracker, else its first page: a link must not lead elsewhere after a login."""
    is_local = wanted.startswith("/") and not wanted.startswith(("//", "/\\")) and wanted.isprintable()
    return wanted if is_local and wanted.isascii() else "/"
