"""Login, readiness and tokens, as the clients of the protocol ask for them."""

from __future__ import annotations

import json
import secrets
from datetime import timedelta
from http import HTTPStatus
from typing import TYPE_CHECKING, Annotated, Final

from fastapi import APIRouter, HTTPException, Request, Response
from pydantic import BaseModel, BeforeValidator, Field

from dbnd_tracker._access.roles import Role
from dbnd_tracker._access.tokens import ANYONE, LABEL_LENGTH, create_token, open_session
from dbnd_tracker._middleware.access import CSRF_COOKIE, address_of, identity_of, set_session_cookie
from dbnd_tracker._schemas.fields import from_digits

if TYPE_CHECKING:
    from dbnd_tracker._access.tokens import Identity, Keyring
    from dbnd_tracker._storage.database import Database
    from dbnd_tracker._storage.writer import Writer

_LOGIN: Final = {"username": "databand", "password": "a token"}
_LONGEST_LIFESPAN: Final = 100 * 365 * 24 * 3600


_Lifespan = Annotated[int, Field(gt=0, le=_LONGEST_LIFESPAN)]


class Status(BaseModel):
    """That all is well."""

    status: str = "ok"


class TokenWanted(BaseModel):
    """What a new token is for.

    Args:
        label: What lists and logs call it.
        lifespan: For how many seconds it is valid, as a number or text; without it, for ever.
    """

    label: Annotated[str, Field(min_length=1, max_length=LABEL_LENGTH)]
    lifespan: Annotated[
        _Lifespan | None,
        BeforeValidator(from_digits, json_schema_input_type=_Lifespan | None),
    ] = None


class TokenMade(BaseModel):
    """A new token: its secret, which is told only now, and its uid."""

    token: str
    uid: str


def auth_router(database: Database, keyring: Keyring | None) -> APIRouter:
    """Routes under ``/api/v1/auth``.

    Args:
        database: Where tokens and sessions stand.
        keyring: What tells whose they are; None where the tracker asks for no token.
    """
    router = APIRouter(prefix="/api/v1/auth", tags=["auth"])

    @router.get("/csrf")
    def csrf(request: Request, response: Response) -> Status:
        """Set the cookie whose value clients repeat as a header."""
        if CSRF_COOKIE not in request.cookies:
            response.set_cookie(
                CSRF_COOKIE, secrets.token_hex(16), samesite="strict", secure=request.url.scheme == "https"
            )
        return Status()

    @router.post(
        "/login",
        # Anything may stand there where no token is needed, so that clients of all kinds get in.
        openapi_extra={"requestBody": {"content": {"application/json": {"schema": {"examples": [_LOGIN]}}}}},
    )
    async def login(request: Request, response: Response) -> Status:
        """Open a session: the password is a token, of any user. Without tokens, everyone may come in."""
        if keyring is not None:
            password = _password(await request.body())
            secret = (
                None if password is None else await open_session_of(database, keyring, password, address_of(request))
            )
            if secret is None:
                detail = "The password is no token of this tracker; clients take it from core.dbnd_password."
                raise HTTPException(HTTPStatus.UNAUTHORIZED, detail)
            set_session_cookie(request, response, secret)
        return Status()

    @router.get("/ping")
    def ping() -> Status:
        """Say that the tracker is ready."""
        return Status()

    @router.post("/personal_access_token")
    def personal_access_token(request: Request, wanted: TokenWanted) -> TokenMade:
        """Make a token with the role of the one that asks; a tracker that asks for none makes one for jobs."""
        identity = identity_of(request.scope)
        lifespan = None if wanted.lifespan is None else timedelta(seconds=wanted.lifespan)

        def work(writer: Writer) -> TokenMade:
            role, guards = (Role.WRITE, False) if identity == ANYONE else (identity.role, True)
            token, secret = create_token(writer, label=wanted.label, role=role, lifespan=lifespan, guards=guards)
            return TokenMade(token=secret, uid=token.uid)

        return database.write(work)

    return router


async def open_session_of(database: Database, keyring: Keyring, password: str, address: str) -> str | None:
    """The secret of a new session for whose token ``password`` is, or None when it is none.

    Raises:
        ThrottledError: Too many wrong ones came from ``address``.
    """
    from starlette.concurrency import run_in_threadpool

    def work() -> str | None:
        with database.read() as session:
            identity: Identity | None = keyring.of_token(session, password, address)
        return None if identity is None else database.write(lambda writer: open_session(writer, identity))

    return await run_in_threadpool(work)


def _password(body: bytes) -> str | None:
    try:
        found = json.loads(body)["password"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return found if isinstance(found, str) else None
