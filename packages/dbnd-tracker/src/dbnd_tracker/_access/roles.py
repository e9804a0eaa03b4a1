"""Roles, and which of them a request needs."""

from __future__ import annotations

from enum import Enum
from typing import Final


class Role(str, Enum):
    """What a token allows."""

    WRITE = "write"
    """Tracking calls, and nothing else: for jobs."""
    READ = "read"
    """Reading."""
    ADMIN = "admin"
    """Everything: writing, reading, stopping runs, making tokens."""

    def allows(self, needed: Role) -> bool:
        """Whether this role may do what needs ``needed``."""
        return self in {Role.ADMIN, needed}


API: Final = "/api/"
LOGIN_PAGE: Final = "/login"

_AUTH: Final = ("/api/v1/auth/csrf", "/api/v1/auth/login", "/api/v1/auth/ping")
_PUBLIC: Final = frozenset({*_AUTH, "/healthz", "/readyz", "/favicon.ico", LOGIN_PAGE, "/logout"})
_WRITING: Final = ("/api/v1/tracking/", "/api/v1/log_exception")
# POSTs that only ask: their lists of uids are too long for a query.
_ASKING: Final = frozenset({"/api/v1/task/tasks", "/api/v1/task/tasks-metrics"})


def role_needed(method: str, path: str) -> Role | None:
    """The role that a request needs, or None when it is open to everyone."""
    if path in _PUBLIC or path.startswith("/static/"):
        return None
    if path.startswith(_WRITING):
        return Role.WRITE
    return Role.READ if method in {"GET", "HEAD", "OPTIONS"} or path in _ASKING else Role.ADMIN
