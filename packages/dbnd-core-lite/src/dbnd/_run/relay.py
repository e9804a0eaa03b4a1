"""The relay: it delivers, while they are written, the journals of all processes that share a folder.

It goes through the folder again and again (see ``Sync``), and keeps nothing that it could not read anew: one that is
killed at any moment is replaced by the next.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from dbnd._base.clock import monotonic
from dbnd._journal.file import Known
from dbnd._journal.lease import Lease, holder_of
from dbnd._run.sync import Report, Sync
from dbnd._terminal.text import capitalised
from dbnd._tracking.contracts import UnreachableError
from dbnd._tracking.delivery import Backoff

if TYPE_CHECKING:
    from dbnd._config.config import Config

# Seconds for which a destination that answers, but takes nothing, is tried in one go.
_PATIENCE: Final = 30.0
# Seconds between two looks into the folder: after one that has delivered something, and after one that has not.
_LOOK: Final = 0.5
_SLOW_LOOK: Final = 3.0
# Seconds between two sentences on progress, while there is some and while there is none, and between the same trouble.
_SAY: Final = 10.0
_SAY_SELDOM: Final = 60.0
_SAY_AGAIN: Final = 600.0


class Relay:
    """Delivers a folder until it is stopped; ``say`` takes sentences on progress, and ``warn`` those on trouble."""

    def __init__(self, folder: Path, config: Config, say: Callable[[str], None], warn: Callable[[str], None]) -> None:
        self.folder: Final = folder
        self._config = config
        self._say, self._warn = say, warn
        self._known: Known = {}
        self._backoffs: dict[str, Backoff] = {}
        self._said: dict[str, float] = {}
        self._delivered = 0
        self._say_at = monotonic()

    def run(self, stop: threading.Event) -> None:
        """Deliver until ``stop`` is set; where another relay is at work, wait for its end."""
        while not stop.is_set():
            try:
                lease = Lease.take(self.folder)
            except OSError as error:
                self._trouble(f"{self.folder} cannot be written ({error.strerror or error}).")
                lease = None
            else:
                if lease is None:
                    self._trouble(f"{capitalised(holder_of(self.folder))} delivers {self.folder}: this one stands by.")
            if lease is None:
                stop.wait(_SLOW_LOOK)
                continue
            self._say(f"Delivering what is written in {self.folder}.")
            try:
                while lease.is_held and not stop.is_set():
                    has_delivered = self._look(lease, stop)
                    stop.wait(_LOOK if has_delivered else _SLOW_LOOK)
            finally:
                lease.release()
        self._tell(0, is_last=True)

    def _look(self, lease: Lease, stop: threading.Event) -> bool:
        """Deliver what is there now; returns whether there was anything."""
        now = monotonic()
        away = {name for name, backoff in self._backoffs.items() if backoff.next_attempt(impatient=False) > now}
        try:
            work = Sync(self.folder, self._config, lease=lease, stop=stop, away=away, known=self._known)
            report = work.deliver(patience=_PATIENCE, waits=False)
        except OSError as error:
            self._trouble(f"{self.folder} cannot be read ({error.strerror or error}).")
            return False
        for name, why in report.unreachable.items():
            self._backoffs.setdefault(name, Backoff()).failed(UnreachableError(why))
        for name in self._backoffs.keys() - away - report.unreachable.keys():
            del self._backoffs[name]
        for sentence in _troubles(report):
            self._trouble(sentence)
        self._delivered += report.delivered
        self._tell(max(0, sum(leftover.events for leftover in work.found) - report.delivered))
        return report.delivered > 0

    def _tell(self, waiting: int, *, is_last: bool = False) -> None:
        if is_last or monotonic() >= self._say_at:
            wait = f", {waiting} wait" if waiting else ""
            self._say(f"{self._delivered} events are delivered{wait}.")
            self._say_at = monotonic() + _SAY_SELDOM
        elif self._delivered:
            self._say_at = min(self._say_at, monotonic() + _SAY)

    def _trouble(self, sentence: str) -> None:
        now = monotonic()
        self._said = {said: at for said, at in self._said.items() if at > now - _SAY_AGAIN}
        if sentence not in self._said:
            self._said[sentence] = now
            self._warn(sentence)


def _troubles(report: Report) -> Iterator[str]:
    """What keeps events from being delivered; without numbers that grow, so that nothing is said twice."""
    yield from report.problems
    for name, why in report.unreachable.items():
        yield f"{capitalised(name)} does not take events ({why}); they are kept and sent later."
    for destination in report.elsewhere:
        yield f"There are events for {destination.name}, which is not configured here: {destination.hint}."
    for path in report.damaged:
        yield f"Events are damaged and lost: look at their bytes in {path}, and remove it."
    if report.refused:
        yield f"Events were refused ({report.reason}): `dbnd sync --list` shows all."
