"""Connections to the server: how long one may keep it waiting, and how many there may be."""

from __future__ import annotations

import asyncio
import resource
from dataclasses import dataclass
from typing import Any, Final

from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

# Connections beyond the limit, for those who ask how the server is.
_RESERVE: Final = 32
# Files of the process that are no connections.
_FILES: Final = 128


@dataclass(frozen=True)
class ConnectionLimits:
    """What a client may do with a connection."""

    head_s: float = 20
    """Seconds from the first byte of a request, or from the connection, until the end of its head."""
    idle_s: int = 75
    """Seconds that it is kept after an answer; one that is closed just as its client sends costs that a retry."""
    stalled_s: float = 60
    """Seconds without progress in taking an answer."""
    head_bytes: int = 1 << 16
    most: int = 1000
    """How many connections are open at once. Beyond, one that waits for a request is closed for a new one."""


def allow_files(connections: int) -> int:
    """Let this process have so many connections open; returns how many it can have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + _RESERVE + _FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return connections if soft == resource.RLIM_INFINITY else max(1, min(connections, soft - _RESERVE - _FILES))


def connection_class(limits: ConnectionLimits) -> type[H11Protocol]:
    """The protocol of one server's connections, which know of each other."""
    return type("Connection", (_Connection,), {"limits": limits, "waiting": {}})


class _Connection(H11Protocol):
    """HTTP by uvicorn, which itself waits for ever for the rest of a head and for a client that takes no answer."""

    limits: ConnectionLimits
    waiting: dict[_Connection, None]
    """Connections that no request is under way on; the one that has waited longest comes first."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._timer: asyncio.TimerHandle | None = None
        self._stalled: asyncio.TimerHandle | None = None
        # Whether the time for a head runs; further bytes of it do not prolong that.
        self._has_begun = True

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._wait(self.limits.head_s)
        while len(self.connections) > self.limits.most + _RESERVE and self.waiting:
            next(iter(self.waiting)).give_up()

    def connection_lost(self, exc: Exception | None) -> None:
        self._work()
        self._stop_stalled()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        cycle: RequestResponseCycle | None = self.cycle
        if cycle is not None and not cycle.response_complete:
            self._work()
        elif not self._has_begun:
            self._has_begun = True
            self._wait(self.limits.head_s)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.cycle.response_complete:  # no further request was waiting
            self._has_begun = False
            # uvicorn closes it after the idle time; but not while the client leaves an answer untaken.
            self._wait(self.limits.head_s + (0 if self.transport.is_closing() else self.limits.idle_s))

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stop_stalled()
        self._stalled = self.loop.call_later(self.limits.stalled_s, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stop_stalled()

    def give_up(self) -> None:
        """Close the connection, which no request is under way on."""
        self._work()
        self.connections.discard(self)
        self.transport.abort()

    def _wait(self, seconds: float) -> None:
        """Let no request be under way, and the next one be here in time."""
        self._work()
        self.waiting[self] = None
        self._timer = self.loop.call_later(seconds, self.give_up)

    def _work(self) -> None:
        """Let a request be under way, which has times of its own."""
        self.waiting.pop(self, None)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _stop_stalled(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None
