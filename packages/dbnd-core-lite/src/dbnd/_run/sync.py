"""Delivery of what earlier processes could not deliver, for `dbnd sync` and, quietly, beside `dbnd run`.

Only files are touched whose process is gone, or leaves them to a relay: oldest first, and those of one process one
after the other. Those that several machines may see are left to who holds the lease of their folder. Events go where
their file says, with the credentials that the configuration has for just that.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Final

from dbnd._base.clock import monotonic
from dbnd._base.errors import ConfigError
from dbnd._base.forks import start
from dbnd._config.settings import CoreSettings
from dbnd._context.registry import configured_url, create_transport, destination_of
from dbnd._journal import ownership
from dbnd._journal.file import JournalFile, Known, is_of_other_host
from dbnd._journal.followed import FollowedFile
from dbnd._journal.header import Header, JournalFormatError
from dbnd._journal.lease import Lease, holder_of
from dbnd._journal.leftovers import Leftover, find, look_at, tidy, urls_in
from dbnd._terminal import console
from dbnd._tracking.contracts import BusyError, Destination, Transport, TransportError
from dbnd._tracking.delivery import Backoff, Delivery

if TYPE_CHECKING:
    from dbnd._config.config import Config
    from dbnd._journal.records import Record

# While a training goes on, rests are so many times as long as a batch took, in seconds of processor time.
_REST: Final = 4
_LONGEST_REST: Final = 1.0
# Seconds between two looks at a file that another process has; and seconds to wait for the process that writes it,
# which may be about to end, or go on for days.
_LOOK: Final = 0.1
_MOMENT: Final = 2.0


@dataclass(slots=True)
class Report:
    """What a sync has done, in numbers of events."""

    delivered: int = 0
    dropped: int = 0  # of those that were delivered, by the tracker, because their runs were deleted
    refused: int = 0
    reason: str = ""  # why the first of them was refused, and where that is kept
    damaged: Counter[Path] = field(default_factory=Counter)  # lost, by the file that their bytes are kept in
    unreachable: dict[str, str] = field(default_factory=dict)  # why a destination takes no events, by its name
    busy: Counter[Path] = field(default_factory=Counter)  # left to other processes, by the file that they are in
    in_use: Counter[int] = field(default_factory=Counter)  # left to the living processes that log them, by their ids
    leased: Counter[str] = field(default_factory=Counter)  # left to who delivers the folder at the moment
    elsewhere: Counter[Destination] = field(default_factory=Counter)  # for what is not configured here
    problems: list[str] = field(default_factory=list)  # what else was wrong, as sentences

    @property
    def is_complete(self) -> bool:
        """Whether nothing is left that should have been delivered."""
        return not any((self.refused, self.damaged, self.unreachable, self.busy, self.elsewhere, self.problems))


@dataclass
class Sync:
    """One look through the folder of the journals."""

    folder: Path
    config: Config  # the configured tracker and its credentials
    retry_dead: bool = False  # whether events that were refused are sent, too
    transports: dict[str, Transport] = field(default_factory=dict)  # made already, by URL
    deadline: float = float("inf")  # time (of ``monotonic``) at which to end
    stop: threading.Event = field(default_factory=threading.Event)  # ends the delivery between two batches
    lease: Lease | None = None  # of the folder; else it is taken if need be
    away: Collection[str] = ()  # names of destinations that nothing is sent to
    known: Known = field(default_factory=dict)  # what an earlier look has counted
    hurry: threading.Event | None = None  # until it is set, the interpreter is left to others most of the time

    def __post_init__(self) -> None:
        self._destinations: dict[str, Destination] = {}
        self._all = [
            x for x in find(self.folder, self.known) if not x.is_damaged and (self.retry_dead or not x.is_dead)
        ]
        self.in_use = [leftover for leftover in self._all if leftover.is_in_use and not leftover.is_relayed]
        self.found = [leftover for leftover in self._all if leftover not in self.in_use]
        self._report = Report(problems=[leftover.problem for leftover in self.found if leftover.problem])
        self._left = sum(leftover.events for leftover in self.found)
        self._patience = 0.0
        self._progress: Callable[[int], None] | None = None

    def destination_of(self, header: Header) -> Destination:
        """Where the events of a file may be sent."""
        if header.url not in self._destinations:
            self._destinations[header.url] = destination_of(header.url, self.config)
        return self._destinations[header.url]

    def deliver(self, *, patience: float, waits: bool = True, progress: Callable[[int], None] | None = None) -> Report:
        """Send everything that was found.

        Args:
            patience: Seconds for which a tracker that answers, but takes nothing, is tried.
            waits: Whether to wait, as long as that, for files that other processes have at the moment.
            progress: Called with the number of events that are left.
        """
        self._patience, self._progress = patience, progress
        if self.lease is not None:
            return self._deliver_all(waits=waits)
        try:
            if any(leftover.header and leftover.header.beats for leftover in self._all):
                self.lease = Lease.take(self.folder)
            return self._deliver_all(waits=waits)
        finally:
            if self.lease is not None:
                self.lease.release()

    def _deliver_all(self, *, waits: bool) -> Report:
        readable = [leftover for leftover in self._all if leftover.header is not None]
        chains = [list(files) for _, files in groupby(readable, lambda found: found.header and found.header.order[:2])]
        try:
            held = list(filter(None, map(self._deliver_chain, chains)))
            give_up = monotonic() + (self._patience if waits else 0.0)
            while held and monotonic() < give_up and not self._is_over():
                if all(chain[0].is_in_use for chain in held):
                    give_up = min(give_up, monotonic() + _MOMENT)
                self.stop.wait(_LOOK)
                held = list(filter(None, map(self._deliver_chain, held)))
        finally:
            for transport in self.transports.values():
                transport.close()
        for chain in held:
            self._note_held(chain)
        tidy(self.folder)
        return self._report

    def _is_over(self) -> bool:
        is_lost = self.lease is not None and not self.lease.is_held
        return is_lost or self.stop.is_set() or monotonic() >= self.deadline

    def _deliver_chain(self, chain: list[Leftover]) -> list[Leftover]:
        """Deliver files up to the first one that another process has; returns that one and what follows."""
        for number, leftover in enumerate(chain):
            assert leftover.header is not None
            destination = self.destination_of(leftover.header)
            if destination.url is None:
                if leftover.is_in_use and not leftover.is_relayed:
                    return chain[number:]
                self._report.elsewhere[destination] += leftover.events
                continue
            if leftover.header.beats and self.lease is None:
                self._report.leased[holder_of(self.folder)] += sum(each.events for each in chain[number:])
                break
            if destination.name in {*self.away, *self._report.unreachable} or self._is_over():
                break
            try:
                file = self._opened(leftover, leftover.header, destination.url)
            except (ConfigError, JournalFormatError, OSError) as error:
                why = error.strerror or error if isinstance(error, OSError) else None
                self._report.problems.append(f"{leftover.path} cannot be opened: {why}." if why else str(error))
                break
            if file is None and leftover.path.exists():
                # What follows comes after what the other one delivers.
                return [replace(leftover, is_owned=True), *chain[number + 1 :]]
            if file is not None and not self._deliver_file(file, self.transports[destination.url]):
                break
        return []

    def _opened(self, leftover: Leftover, header: Header, url: str) -> JournalFile | None:
        """The file, and its transport made; None where another process has the file, or it is no more."""
        if url not in self.transports:
            self.transports[url] = create_transport(url, self.config)
        file = JournalFile.adopt(leftover.path)
        # One that is locked and yet not owned was written on a machine that is gone, and whose lock is still there.
        if file is None and (leftover.is_relayed or (is_of_other_host(header) and not leftover.is_owned)):
            return FollowedFile.follow(leftover.path)
        return file

    def _deliver_file(self, file: JournalFile, transport: Transport) -> bool:
        """Deliver a file, and give it up; returns whether it is delivered."""
        try:
            self._send(file, transport)
            return not file.unsent
        finally:
            file.close()

    def _send(self, file: JournalFile, transport: Transport) -> None:
        delivery = Delivery(file, transport, self._buried)
        backoff, taken_at, has_answered = Backoff(), monotonic(), False
        while file.unsent and not self._is_over():
            started, before = time.thread_time(), file.unsent
            transport.deadline = min(self.deadline, monotonic() + self._patience)
            try:
                delivery.step()
            except (TransportError, OSError) as error:
                backoff.failed(error)
                turn = backoff.next_attempt(impatient=True)
                is_hopeless = not has_answered and not isinstance(error, BusyError)
                if is_hopeless or turn > min(self.deadline, taken_at + self._patience):
                    self._report.unreachable[self.destination_of(file.header).name] = str(error)
                    return
                self.stop.wait(max(0.0, turn - monotonic()))
            else:
                backoff.succeeded()
                has_answered, taken_at = True, monotonic()
                self._report.delivered += before - file.unsent
                self._report.dropped += sum(delivery.dropped.values())
                delivery.dropped.clear()
                self._left -= before - file.unsent
                if self._progress is not None:
                    self._progress(self._left)
                if self.hurry is not None:
                    self.hurry.wait(min(_REST * (time.thread_time() - started), _LONGEST_REST))

    def _buried(self, record: Record, reason: str, path: Path) -> None:
        if record.is_damaged:
            self._report.damaged[path] += record.points
            self._report.delivered -= record.points
            return
        self._report.refused += 1
        self._report.delivered -= 1
        self._report.reason = self._report.reason or f"{record.call}: {reason}; kept in {path}"

    def _note_held(self, chain: list[Leftover]) -> None:
        for leftover in (look_at(leftover.path) for leftover in chain):
            if leftover is None or leftover.header is None or not leftover.events:  # the other one has delivered it
                continue
            pid = leftover.header.pid
            if ownership.is_alive(leftover.header.host, pid):
                self._report.in_use[pid] += leftover.events
            else:
                self._report.busy[leftover.path] = leftover.events


@contextmanager
def delivering_leftovers(config: Config) -> Iterator[None]:
    """Deliver, beside the block, what earlier processes could not: quietly, and within ``core.sync_timeout``.

    At the end of the block what is under way may use the rest of that time, unless the tracker takes nothing.
    """
    settings = config.settings(CoreSettings)
    folder = settings.journals
    is_off = not settings.sync_timeout or settings.delivery == "relay" or configured_url(config) is None
    destinations = () if is_off else tuple(destination_of(url, config).url for url in urls_in(folder))
    if not destinations:
        yield
        return
    # Made here, and not in the thread: two threads importing the same libraries at once can see them half imported.
    transports = {}
    for url in filter(None, destinations):
        with suppress(ConfigError):  # it stays where it is, and `dbnd sync` says so
            transports[url] = create_transport(url, config)
    deadline, stop, hurry = monotonic() + settings.sync_timeout, threading.Event(), threading.Event()

    def deliver() -> None:
        try:
            work = Sync(folder, config, transports=transports, deadline=deadline, stop=stop, hurry=hurry)
            work.deliver(patience=settings.flush_timeout, waits=False)
        except Exception as error:  # noqa: BLE001  it must not disturb the run; `dbnd sync` shows what is wrong
            console.warning(f"Events of earlier runs could not be sent ({type(error).__name__}: {error}).")

    thread = threading.Thread(target=deliver, name="dbnd-sync", daemon=True)
    is_started = start(thread)  # else `dbnd sync` delivers them, or the next run
    try:
        yield
    finally:
        hurry.set()
        if is_started:
            thread.join(max(0.0, min(deadline - monotonic(), settings.flush_timeout)))
        stop.set()
