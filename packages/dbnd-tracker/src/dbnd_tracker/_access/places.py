"""Whose files and servers the tracker opens for those who look at artifacts.

Whoever may write runs may name any file of the server's machine, and any address, as the place of an artifact. What is
opened is therefore what a run has named *and* what the one who started the tracker allows.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from starlette.types import Scope

from dbnd_tracker._access.hosts import is_loopback
from dbnd_tracker._settings import TrackerSettings

_CONNECTIONS: Final = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
_PORTS: Final = {"http": 80, "https": 443}


class MlflowServer(NamedTuple):
    """Where an MLflow server is."""

    scheme: str
    host: str
    port: int
    path: str
    """Below which path of the host it is; empty, or with a slash before it and none after it."""

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port == _PORTS[self.scheme] else f":{self.port}"
        return f"{self.scheme}://{host}{port}{self.path}"


def mlflow_server(url: str) -> MlflowServer | None:
    """The server that a page of MLflow's, or its address, is of; names and passwords in ``url`` are left out."""
    try:
        parts = urlsplit(url.partition("#")[0])
        port = parts.port
    except ValueError:
        return None
    if parts.scheme not in _PORTS or not parts.hostname:
        return None
    return MlflowServer(parts.scheme, parts.hostname, port or _PORTS[parts.scheme], parts.path.rstrip("/"))


class Places:
    """What ``tracker.artifact_places`` allows.

    Where it says nothing, a tracker that asks nobody for a token and that only this machine reaches opens every folder
    and the MLflow servers of this machine, for the user who started it; others open nothing.
    """

    def __init__(self, settings: TrackerSettings, *, guarded: bool) -> None:
        given = settings.artifact_places
        is_own = not guarded and not settings.token and is_loopback(settings.host) and not settings.allowed_hosts
        self.is_own = given is None and is_own
        servers = [mlflow_server(place) for place in given or ()]
        self._servers = [server for server in servers if server is not None]
        self._folders = [Path(place).resolve() for place in given or () if mlflow_server(place) is None]

    def allows_caller(self, scope: Scope) -> bool:
        """Whether the one whose request this is may see files of the user whom this process belongs to."""
        return not self.is_own or _is_of_this_user(scope)

    def opens_for(self, scope: Scope) -> bool:
        """Whether there is anything that is opened for the one whose request this is."""
        return bool(self.is_own or self._folders or self._servers) and self.allows_caller(scope)

    def allows_file(self, path: Path) -> bool:
        """Whether the file or folder at ``path``, in which no link is left, may be opened."""
        return self.is_own or any(path.is_relative_to(folder) for folder in self._folders)

    def server_of(self, urls: Sequence[str]) -> MlflowServer | None:
        """The first MLflow server that one of ``urls`` is of and that may be asked."""
        for url in urls:
            asked = mlflow_server(url)
            if asked is None:
                continue
            if self.is_own and is_loopback(asked.host):
                return asked
            for allowed in self._servers:
                if asked[:3] == allowed[:3] and f"{asked.path}/".startswith(f"{allowed.path}/"):
                    return allowed
        return None


def _is_of_this_user(scope: Scope) -> bool:
    """Whether the user of this process, or root, is at the other end of a connection within this machine.

    Linux says whose sockets there are. A system that does not, such as macOS, is taken for one person's.
    """
    ours, theirs = scope.get("server"), scope.get("client")
    if not ours or not theirs:
        return False
    known = [path for path in _CONNECTIONS if path.exists()]
    wanted = (f":{theirs[1]:04X}", f":{ours[1]:04X}")
    uids = set()
    for path in known:
        for line in path.read_text().splitlines()[1:]:
            _, local, remote, _, _, _, _, uid, *_ = line.split()
            if (local[-5:], remote[-5:]) == wanted:
                uids.add(int(uid))
    # Whatever else has the same two ports must be ours, too: that is stricter than to compare addresses.
    return bool(uids) and uids <= {0, os.getuid()} if known else True
