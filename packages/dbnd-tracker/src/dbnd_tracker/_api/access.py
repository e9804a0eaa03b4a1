"""Who may speak to the tracker: the check of the Host header and of the token."""

from __future__ import annotations

import base64
import binascii
import ipaddress
import secrets
from http import HTTPStatus
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from fastapi.responses import JSONResponse
from starlette.datastructures import Headers

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

API: Final = "/api/"
_PUBLIC: Final = frozenset({"/api/v1/auth/csrf", "/api/v1/auth/login", "/api/v1/auth/ping"})
_LOCAL_HOSTS: Final = frozenset({"localhost", "127.0.0.1", "::1"})


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches ``host``."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


class HostMiddleware:
    """Refuses requests for other hosts: a web page whose name was made to point here must not read the tracker.

    Args:
        app: What handles the request.
        host: The address that the tracker is bound to. Bound to all addresses it goes by names that nobody can
            list, and only the token guards it.
    """

    def __init__(self, app: ASGIApp, host: str) -> None:
        self._app = app
        self._hosts = None if host in {"0.0.0.0", "::", ""} else {*_LOCAL_HOSTS, host.lower()}  # noqa: S104

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and self._hosts is not None:
            headers = Headers(scope=scope)
            if _host_name(headers.get("host", "")) not in self._hosts:
                detail = f"This tracker is not the host {headers.get('host', '')[:80]!r}."
                await JSONResponse({"detail": detail}, HTTPStatus.BAD_REQUEST)(scope, receive, send)
                return
            if headers.get("sec-fetch-site") == "cross-site" and scope["method"] != "GET":
                detail = "A page of another site may not write to this tracker."
                await JSONResponse({"detail": detail}, HTTPStatus.FORBIDDEN)(scope, receive, send)
                return
        await self._app(scope, receive, send)


def _host_name(header: str) -> str | None:
    try:
        return urlsplit(f"//{header}").hostname
    except ValueError:
        return None


class TokenMiddleware:
    """Lets only requests with the token pass.

    Calls carry it as ``Authorization: Bearer``; for pages, a browser asks its user for it as the password of any
    name. The API does not take passwords, because a browser would add them to requests that other sites make.

    Args:
        app: What handles the request.
        token: The token.
    """

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app = app
        self._token = token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in _PUBLIC or self._may_pass(scope):
            await self._app(scope, receive, send)
            return
        is_call = scope["path"].startswith(API)
        scheme = "Bearer" if is_call else 'Basic realm="databand tracker", charset="UTF-8"'
        detail = 'This tracker needs its token, as "Authorization: Bearer <token>"; clients take it from '
        detail += "core.databand_access_token."
        answer = JSONResponse({"detail": detail}, HTTPStatus.UNAUTHORIZED, {"WWW-Authenticate": scheme})
        await answer(scope, receive, send)

    def _may_pass(self, scope: Scope) -> bool:
        scheme, _, given = Headers(scope=scope).get("authorization", "").partition(" ")
        given = given.strip()
        if scheme.lower() == "basic" and not scope["path"].startswith(API):
            try:
                given = base64.b64decode(given, validate=True).decode().partition(":")[2]
            except (binascii.Error, UnicodeDecodeError):
                return False
        elif scheme.lower() != "bearer":
            return False
        return secrets.compare_digest(given.encode(), self._token)
