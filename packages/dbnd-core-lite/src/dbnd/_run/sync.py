"""Delivery of what earlier processes could not deliver, for `dbnd sync` and, quietly, beside `dbnd run`.

Only files whose process is gone are touched, oldest first, and those of one process one after the other. Events go to
the tracker that their file names; the credentials of the configured tracker go to no other one.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Final

from dbnd._base.clock import monotonic
from dbnd._base.errors import ConfigError
from dbnd._base.forks import start
from dbnd._base.masking import mask_url
from dbnd._base.paths import journal_folder
from dbnd._config.settings import CoreSettings
from dbnd._context.registry import configured_url, create_transport
from dbnd._journal import ownership
from dbnd._journal.file import JournalFile
from dbnd._journal.header import JournalFormatError
from dbnd._journal.leftovers import Leftover, find, is_empty, look_at, tidy
from dbnd._terminal import console
from dbnd._tracking.backoff import Backoff
from dbnd._tracking.contracts import BusyError, Transport, TransportError
from dbnd._tracking.delivery import Delivery

if TYPE_CHECKING:
    from dbnd._config.config import Config
    from dbnd._journal.records import Record

# While a training goes on, rests are so many times as long as a batch took, in seconds of processor time.
_REST: Final = 4
_LONGEST_REST: Final = 1.0
# Seconds between two looks at a file that another process has, and for one that the process has which wrote it: it may
# be about to end, and it may go on for days.
_LOOK: Final = 0.1
_MOMENT: Final = 2.0


def _ignore(left: int) -> None:
    """Show no progress."""


@dataclass(slots=True)
class Report:
    """What a sync has done.

    Attributes:
        delivered: Number of events that the trackers have taken.
        journals: Number of files that are delivered as a whole.
        refused: Number of events that a tracker has refused for good.
        reason: Why it has refused the first of them, and where that is kept.
        damaged: Number of events that are lost, by the file that their bytes are kept in.
        unreachable: Why a tracker takes no events, by its name.
        dropped: Number of those that a tracker has dropped because their runs were deleted.
        busy: Number of events that another process had at the time, by the file that they are in.
        in_use: Number of events that living processes deliver themselves, by their ids.
        elsewhere: Number of events for trackers that are not the configured one, by their names.
        problems: What else was wrong, as sentences.
    """

    delivered: int = 0
    journals: int = 0
    refused: int = 0
    reason: str = ""
    damaged: dict[Path, int] = field(default_factory=dict)
    unreachable: dict[str, str] = field(default_factory=dict)
    dropped: int = 0
    busy: dict[Path, int] = field(default_factory=dict)
    in_use: dict[int, int] = field(default_factory=dict)
    elsewhere: dict[str, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    @property
    def is_complete(self) -> bool:
        """Whether nothing is left that should have been delivered."""
        left = (self.refused, self.damaged, self.unreachable, self.busy, self.elsewhere, self.problems)
        return not any(left)


class Sync:
    """One look through the folder of the journals.

    Args:
        folder: The folder.
        config: The configured tracker and its credentials.
        retry_dead: Whether events that were refused are sent, too.
        transports: Transports that are made already, by URL.
    """

    def __init__(
        self, folder: Path, config: Config, *, retry_dead: bool = False, transports: dict[str, Transport] | None = None
    ) -> None:
        self._config = config
        self._folder = folder
        url = configured_url(config)
        self._configured = {mask_url(url): url} if url else {}
        self._transports = transports or {}
        self._all = [x for x in find(folder) if not x.is_damaged and (retry_dead or not x.is_dead)]
        self.found: Final = [leftover for leftover in self._all if not leftover.is_in_use]
        self.in_use: Final = [leftover for leftover in self._all if leftover.is_in_use]

    def url_of(self, leftover: Leftover) -> str | None:
        """Where the events of a file may be sent: to the configured tracker, or to a file, which asks for no token."""
        assert leftover.header is not None
        url = leftover.header.url
        return self._configured.get(url, url if url.startswith("sqlite:") else None)

    def deliver(
        self,
        *,
        patience: float,
        waits: bool = True,
        deadline: float = float("inf"),
        stop: threading.Event | None = None,
        hurry: threading.Event | None = None,
        progress: Callable[[int], None] = _ignore,
    ) -> Report:
        """Send everything that was found.

        Args:
            patience: Seconds for which a tracker that answers, but takes nothing, is tried.
            waits: Whether to wait, as long as that, for files that other processes have at the moment.
            deadline: Time (of ``monotonic``) at which to end whatever is left.
            stop: Ends the delivery between two batches.
            hurry: Until it is set, the interpreter is left to others most of the time.
            progress: Called with the number of events that are left.
        """
        report = Report(problems=[leftover.problem for leftover in self.found if leftover.problem])
        courier = _Courier(report, patience, deadline, stop or threading.Event(), hurry)
        courier.left = sum(leftover.events for leftover in self.found)
        courier.progress = progress
        try:
            held = self._deliver_chains(list(self._chains()), courier)
            give_up = monotonic() + (patience if waits else 0.0)
            while held and monotonic() < give_up and not courier.is_over():
                if all(chain[0].is_in_use for chain in held):
                    give_up = min(give_up, monotonic() + _MOMENT)
                courier.stop.wait(_LOOK)
                held = self._deliver_chains(held, courier)
            for chain in held:
                self._note_held(chain, report)
        finally:
            for transport in self._transports.values():
                transport.close()
        tidy(self._folder)
        return report

    def _chains(self) -> Iterator[list[Leftover]]:
        readable = [leftover for leftover in self._all if leftover.header is not None]
        for _, chain in groupby(readable, key=lambda leftover: leftover.header and leftover.header.order[:2]):
            yield list(chain)

    def _deliver_chains(self, chains: list[list[Leftover]], courier: _Courier) -> list[list[Leftover]]:
        """Deliver chains; returns what of them has to wait for other processes."""
        return [held for chain in chains if (held := self._deliver_chain(chain, courier))]

    def _deliver_chain(self, chain: list[Leftover], courier: _Courier) -> list[Leftover]:
        """Deliver a chain up to the first file that another process has; returns that one and what follows."""
        for number, leftover in enumerate(chain):
            assert leftover.header is not None
            report, name = courier.report, leftover.header.url
            url = self.url_of(leftover)
            if url is None:
                if leftover.is_in_use:
                    return chain[number:]
                report.elsewhere[name] = report.elsewhere.get(name, 0) + leftover.events
                continue
            if name in report.unreachable or courier.is_over():
                break
            try:
                if url not in self._transports:
                    self._transports[url] = create_transport(url, self._config)
                file = JournalFile.adopt(leftover.path)
            except (ConfigError, JournalFormatError, OSError) as error:
                why = error.strerror or error if isinstance(error, OSError) else None
                report.problems.append(f"{leftover.path} cannot be opened: {why}." if why else str(error))
                break
            if file is None:
                if not leftover.path.exists():
                    continue
                # What follows comes after what the other one delivers.
                return [replace(leftover, is_owned=True), *chain[number + 1 :]]
            try:
                if not courier.carry(file, self._transports[url]):
                    break
            finally:
                file.close()
        return []

    def _note_held(self, chain: list[Leftover], report: Report) -> None:
        for leftover in (look_at(leftover.path) for leftover in chain):
            if leftover is None or leftover.header is None or not leftover.events:  # the other one has delivered it
                continue
            pid = leftover.header.pid
            if ownership.is_alive(leftover.header.host, pid):
                report.in_use[pid] = report.in_use.get(pid, 0) + leftover.events
            else:
                report.busy[leftover.path] = leftover.events


@contextmanager
def delivering_leftovers(config: Config) -> Iterator[None]:
    """Deliver, beside the block, what earlier processes could not: quietly, and within ``core.sync_timeout``.

    At the end of the block what is under way may use the rest of that time, unless the tracker takes nothing.
    """
    settings, folder = config.settings(CoreSettings), journal_folder()
    url = configured_url(config)
    if not settings.sync_timeout or url is None or is_empty(folder):
        yield
        return
    deadline, stop, hurry = monotonic() + settings.sync_timeout, threading.Event(), threading.Event()
    # Made here, and not in the thread: two threads importing the same libraries at once can see them half imported.
    transports = {url: create_transport(url, config)}

    def deliver() -> None:
        try:
            Sync(folder, config, transports=transports).deliver(
                patience=settings.flush_timeout, waits=False, deadline=deadline, stop=stop, hurry=hurry
            )
        except Exception as error:  # noqa: BLE001  it must not disturb the run; `dbnd sync` shows what is wrong
            console.warning(f"Events of earlier runs could not be sent ({type(error).__name__}: {error}).")

    thread = threading.Thread(target=deliver, name="dbnd-sync", daemon=True)
    if not start(thread):  # `dbnd sync` delivers them, or the next run
        yield
        return
    try:
        yield
    finally:
        hurry.set()
        thread.join(max(0.0, min(deadline - monotonic(), settings.flush_timeout)))
        stop.set()


@dataclass(slots=True)
class _Courier:
    """Carries files to their trackers within the bounds of one sync."""

    report: Report
    patience: float
    deadline: float
    stop: threading.Event
    hurry: threading.Event | None
    left: int = 0
    progress: Callable[[int], None] = _ignore

    def is_over(self) -> bool:
        return self.stop.is_set() or monotonic() >= self.deadline

    def carry(self, file: JournalFile, transport: Transport) -> bool:
        """Deliver ``file``; False when something of it is left."""
        delivery = Delivery(file, transport, self._buried)
        backoff, taken_at, has_answered = Backoff(), monotonic(), False
        while file.unsent and not self.is_over():
            started, before = time.thread_time(), file.unsent
            transport.deadline = min(self.deadline, monotonic() + self.patience)
            try:
                delivery.step()
            except (TransportError, OSError) as error:
                backoff.failed(error)
                turn = backoff.next_attempt(impatient=True)
                is_hopeless = not has_answered and not isinstance(error, BusyError)
                if is_hopeless or turn > min(self.deadline, taken_at + self.patience):
                    self.report.unreachable[file.header.url] = str(error)
                    return False
                self.stop.wait(max(0.0, turn - monotonic()))
            else:
                backoff.succeeded()
                has_answered, taken_at = True, monotonic()
                self.report.delivered += before - file.unsent
                self.report.dropped += sum(delivery.dropped.values())
                delivery.dropped.clear()
                self.left -= before - file.unsent
                self.progress(self.left)
                if self.hurry is not None:
                    self.hurry.wait(min(_REST * (time.thread_time() - started), _LONGEST_REST))
        if file.unsent:
            return False
        self.report.journals += 1
        return True

    def _buried(self, record: Record, reason: str, path: Path) -> None:
        if record.is_damaged:
            self.report.damaged[path] = self.report.damaged.get(path, 0) + record.points
            self.report.delivered -= record.points
            return
        self.report.refused += 1
        self.report.delivered -= 1
        self.report.reason = self.report.reason or f"{record.call}: {reason}; kept in {path}"
