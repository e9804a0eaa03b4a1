"""Who may speak to the tracker: tokens, and the sessions of those who have logged in."""

from __future__ import annotations

import secrets
from typing import Final
from urllib.parse import quote

from anyio import CapacityLimiter
from anyio.to_thread import run_sync
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from dbnd_tracker._access.hosts import SAFE_METHODS
from dbnd_tracker._access.roles import API, LOGIN_PAGE, role_needed
from dbnd_tracker._access.tokens import ANYONE, SESSION_LIFESPAN, Identity, Keyring
from dbnd_tracker._storage.database import Database

CSRF_COOKIE: Final = "X-CSRF-TOKEN"
SESSION_COOKIE: Final = "databand_session"
_CSRF_HEADERS: Final = ("x-csrftoken", "x-csrf-token")  # of the Python client, and of the Java client
_NO_CSRF: Final = f"A session must repeat the cookie {CSRF_COOKIE} (GET /api/v1/auth/csrf) as header X-CSRFToken."
# Threads of its own, so that calls are not kept waiting by what others read.
_THREADS: Final = 4
_IDENTITY: Final = "dbnd_identity"


def identity_of(scope: Scope) -> Identity:
    """Whom the request of ``scope`` comes from; everyone where the tracker asks for no token."""
    found: Identity = scope.get(_IDENTITY, ANYONE)
    return found


def address_of(request: Request) -> str:
    """Where a request comes from: what ``tracker.allowed_hosts`` lets a proxy on this machine say (X-Forwarded-For)."""
    return request.client.host if request.client else ""


def set_session_cookie(request: Request, response: Response, secret: str) -> None:
    """Let the browser or client keep the session ``secret``: no script and no other site can use it."""
    response.set_cookie(
        SESSION_COOKIE,
        secret,
        max_age=int(SESSION_LIFESPAN.total_seconds()),
        httponly=True,
        samesite="lax",
        secure=request.url.scheme == "https",
    )


class AccessMiddleware:
    """Lets a request pass whose token or session allows what it asks for.

    Calls carry a token as ``Authorization: Bearer``. Browsers, and clients without a token, have logged in and carry a
    session cookie; because a browser adds it to requests that it was lured into, too, whatever writes with it must
    repeat the CSRF cookie as a header.
    """

    def __init__(self, app: ASGIApp, database: Database, keyring: Keyring) -> None:
        self._app = app
        self._database = database
        self._keyring = keyring
        self._threads = CapacityLimiter(_THREADS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        needed = role_needed(scope["method"], scope["path"])
        if needed is not None:
            request = Request(scope)
            identity = await run_sync(self._identify, request, limiter=self._threads)
            if identity is None:
                raise _unknown(request)
            if not identity.role.allows(needed):
                role = identity.role.value
                detail = f"The token {identity.label!r} is for {role}; this needs one for {needed.value}."
                raise HTTPException(403, detail)
            if not _has_bearer(scope) and request.method not in SAFE_METHODS and not _repeats_csrf(request):
                raise HTTPException(403, _NO_CSRF)
            scope[_IDENTITY] = identity
        await self._app(scope, receive, send)

    def _identify(self, request: Request) -> Identity | None:
        with self._database.read() as session:
            if _has_bearer(request.scope):
                secret = request.headers["authorization"].partition(" ")[2].strip()
                return self._keyring.of_token(session, secret, address_of(request))
            cookie = request.cookies.get(SESSION_COOKIE)
            return self._keyring.of_session(session, cookie) if cookie else None


def _has_bearer(scope: Scope) -> bool:
    return Headers(scope=scope).get("authorization", "").lower().startswith("bearer ")


def _repeats_csrf(request: Request) -> bool:
    cookie = request.cookies.get(CSRF_COOKIE, "")
    given = next((request.headers[name] for name in _CSRF_HEADERS if name in request.headers), "")
    return bool(cookie) and secrets.compare_digest(cookie.encode(), given.encode())


def _unknown(request: Request) -> HTTPException:
    """The answer to nobody: a form for browsers that want a page, a sentence for all others."""
    is_page = request.method == "GET" and not request.url.path.startswith(API)
    if is_page and "text/html" in request.headers.get("accept", ""):
        wanted = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        login = {"Location": f"{LOGIN_PAGE}?next={quote(wanted, safe='/')}"}
        return HTTPException(303, headers=login)
    detail = 'This tracker needs a token, as "Authorization: Bearer <token>"; clients take it from '
    detail += "core.databand_access_token. `dbnd tracker token create` makes one."
    return HTTPException(401, detail, {"WWW-Authenticate": "Bearer"})
