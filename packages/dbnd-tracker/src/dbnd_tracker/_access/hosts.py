"""Which names the tracker answers to, and which pages may write to it."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection
from typing import Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
"""Methods that change nothing."""
_SINGLE: Final = (b"host", b"authorization", b"origin", b"x-databand-batch", b"x-databand-points")
_EVERYTHING: Final = frozenset({"0.0.0.0", "::", ""})  # noqa: S104  compared, not bound to
_LOCAL_HOSTS: Final = frozenset({"localhost", "127.0.0.1", "::1"})


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches ``host``."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


class HostMiddleware:
    """Refuses requests for other hosts, writes of other sites' pages, and heads that can be misunderstood.

    A web page whose name was made to point here must not read the tracker, and a page that the user has open must not
    write to it. A tracker that is bound to all addresses goes by names that nobody can list: it answers to any, unless
    ``allowed_hosts`` names some, and only the token guards it.
    """

    def __init__(self, app: ASGIApp, host: str, allowed_hosts: Collection[str] = ()) -> None:
        self._app = app
        names = {name.lower() for name in allowed_hosts}
        bound = set() if host in _EVERYTHING else {host.strip("[]").lower()}
        self._hosts = {*_LOCAL_HOSTS, *bound, *names} if names or bound else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        _check_ambiguity([name for name, _ in scope["headers"]])
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if self._hosts is not None and _host_name(host) not in self._hosts:
            detail = f"This tracker is not the host {host[:80]!r}; tracker.allowed_hosts names those that it is."
            raise HTTPException(400, detail)
        if "\0" in scope["path"] or b"%00" in scope["query_string"]:
            raise HTTPException(400, "The address has the character NUL (%00) in it, which no name here has.")
        if scope["method"] not in SAFE_METHODS and _is_of_another_site(headers, host):
            raise HTTPException(403, "A page of another site may not write to this tracker.")
        await self._app(scope, receive, send)


def _check_ambiguity(names: list[bytes]) -> None:
    """Refuse a head with these names if a proxy before the tracker may have understood it otherwise."""
    found = next((f"{name.decode()} stands twice" for name in _SINGLE if names.count(name) > 1), None)
    if b"transfer-encoding" in names and b"content-length" in names:
        found = "content-length contradicts transfer-encoding"
    if found:
        raise HTTPException(400, f"The header {found}.", {"Connection": "close"})


def _is_of_another_site(headers: Headers, host: str) -> bool:
    """Whether a browser says that a page of another site makes this request; other clients say nothing of it."""
    fetched = headers.get("sec-fetch-site")
    if fetched is not None:
        return fetched not in {"none", "same-origin"}
    origin = headers.get("origin")  # browsers that reach the tracker by plain HTTP leave out the header above
    return origin is not None and origin.partition("://")[2].lower() != host.lower()


def _host_name(header: str) -> str | None:
    try:
        return urlsplit(f"//{header}").hostname
    except ValueError:
        return None
