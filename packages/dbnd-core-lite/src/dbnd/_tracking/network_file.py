"""SQLite is not put on a file system that machines share: there it has damaged databases. Journals do well on one."""

from __future__ import annotations

from typing import Final, NoReturn

from dbnd._base.mounts import network_file_system
from dbnd._base.paths import SQLITE, sqlite_path
from dbnd._tracking.contracts import Batch, UnreachableError


def network_of(url: str) -> str | None:
    """The kind of the network file system that the SQLite file of ``url`` is on; None where it is on none."""
    return network_file_system(sqlite_path(url)[0]) if url.startswith(SQLITE) else None


class NetworkFileTransport:
    """Stands for an SQLite file on a network file system of a ``kind``: it takes nothing, so that journals are kept."""

    deadline: float | None = None

    def __init__(self, kind: str) -> None:
        self._reason: Final = (
            f"it is on {kind}, and SQLite is not safe on a network file system: set core.databand_url to a server or "
            "to a file on a local disk, and `dbnd sync` delivers there"
        )

    def send(self, batch: Batch) -> NoReturn:  # noqa: ARG002  as of any transport
        raise UnreachableError(self._reason)

    def heartbeat(self, run_uid: str) -> NoReturn:  # noqa: ARG002  as of any transport
        raise UnreachableError(self._reason)

    def check(self) -> NoReturn:
        raise UnreachableError(self._reason)

    def close(self) -> None:
        """There is nothing to close."""
