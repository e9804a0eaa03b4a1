"""The sender: one daemon thread that carries the journal's events to the tracker.

It reads the journal, not a queue, so that memory does not grow with what is unsent. It is the only one that retries.
States::

    not started ──► resting ◄──► delivering ──► waiting for the tracker (backoff)
     (no event)        ▲             ▲                    │
                       │             └────────────────────┘
                       └── heartbeats of the runs of this process

While a training goes on, the sender rests many times as long as it has kept the processor busy: the interpreter is the
training's. It rests less once it has been behind for long, and not at all while somebody waits for it (``flush``).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dbnd._base.clock import monotonic
from dbnd._base.forks import start
from dbnd._journal.journal import Journal
from dbnd._journal.records import Record
from dbnd._terminal import console
from dbnd._tracking.backoff import Backoff
from dbnd._tracking.delivery import Delivery
from dbnd._tracking.transport import BusyError, Transport, TransportError

# Events are given this long to gather into a batch, in seconds.
LINGER: Final = 0.05
# Rests, as multiples of the processor time that the last batch took: usually, when the sender has been behind for long,
# in seconds, and when it is far behind, in bytes.
_REST: Final = 300
_SHORTER_REST: Final = 40
_SHORT_REST: Final = 4
_LONG_BEHIND: Final = 30.0
_FAR_BEHIND: Final = 64 << 20
_LEAST_REST: Final = 0.15
# A full batch takes some 60 ms: with a shorter limit the sender of a process that logs thousands of points a second
# would have the interpreter for more than a hundredth of the time.
_LONGEST_REST: Final = 6.0
# Seconds between two looks at the progress of a flush.
_LOOK: Final = 0.2
_FOREVER: Final = float("inf")

Progress = Callable[[int], None]


@dataclass(slots=True)
class _Heart:
    """The heartbeat of one run."""

    interval: float
    due: float
    on_state: Callable[[str], None]


class Sender:
    """Delivers one journal through one transport.

    Args:
        journal: Where the events stand.
        transport: How they reach the tracker.
        name: The tracker as messages name it, without credentials.

    Attributes:
        trouble: Why the tracker does not take events at the moment, or None while it does.
        dead: Number of events that the tracker has refused for good, or that cannot be read.
        dead_path: Where the last one of them is kept.
        refused_runs: Uids of runs whose announcement the tracker has refused.
        damaged: Number of events that are lost, because their bytes in the journal have been changed.
        damaged_path: Where the last of these bytes are kept.
        dropped: Numbers of events that the tracker has dropped because their runs were deleted, by uids of runs.
        outcome: Why the last flush ended with events left, as the end of a sentence.
    """

    def __init__(self, journal: Journal, transport: Transport, name: str) -> None:
        self._journal = journal
        self._transport = transport
        self._name = name
        self._successor: Transport | None = None
        self._delivery: Delivery | None = None
        self._backoff = Backoff()
        self._hearts: dict[str, _Heart] = {}
        self._thread: threading.Thread | None = None
        self._awake = False
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._delivering = threading.Lock()
        # Who waits in flush: how many, until when, the number of this drain; and how often a wait was in vain.
        self._progress = threading.Condition()
        self._draining = threading.Event()
        self._waiting = 0
        self._drain = 0
        self._deadline = _FOREVER
        self._given_up = 0
        self._has_answered = False
        # Whether the last failure was that of a tracker that is not there, and during which drain it was.
        self._is_absent = False
        self._failed_in = 0
        # When last everything was sent that had been logged before its batch began.
        self._caught_up_at = monotonic()
        self._warn = console.once_a_minute()
        self.trouble: str | None = None
        self.dead = 0
        self.dead_path: Path | None = None
        self.refused_runs: set[str] = set()
        self.damaged = 0
        self.damaged_path: Path | None = None
        self.dropped: Final[dict[str, int]] = {}
        self.outcome = ""

    def notify(self) -> None:
        """Say that the journal has grown; starts the thread at the first call."""
        if not self._awake:
            self._awake = True
            if self._thread is None:
                self._start()
            self._wake.set()

    def use(self, transport: Transport) -> None:
        """Deliver through another transport from the next batch on."""
        self._successor = transport
        self._backoff.succeeded()
        self.notify()

    def _start(self) -> None:
        with self._progress:
            if self._thread is not None:
                return
            thread = threading.Thread(target=self._run, name="dbnd-sender", daemon=True)
            if start(thread):  # without one, flush delivers itself
                self._thread = thread

    def beat(self, run_uid: str, interval: float, on_state: Callable[[str], None]) -> None:
        """Tell the tracker every ``interval`` seconds that a run is alive; ``on_state`` gets each answer."""
        self._hearts[run_uid] = _Heart(interval, monotonic() + interval, on_state)
        self._wake.set()

    def end_beat(self, run_uid: str) -> None:
        """Send no more heartbeats of a run."""
        self._hearts.pop(run_uid, None)

    def stop(self) -> bool:
        """Let the thread end, and return whether it has: it is not waited for while it talks to the tracker."""
        self._stop.set()
        self._wake.set()
        self._draining.set()
        idle = self._delivering.acquire(timeout=0.1)
        if idle:
            self._delivering.release()
        return idle

    def close(self) -> None:
        """Close the connection to the tracker; the sender was stopped."""
        self._transport.close()

    def _run(self) -> None:
        while not self._stop.is_set():
            due = min((heart.due for heart in tuple(self._hearts.values())), default=_FOREVER)
            self._wake.wait(None if due == _FOREVER else max(0.0, due - monotonic()))
            self._draining.wait(LINGER)
            self._wake.clear()
            self._awake = False
            with self._delivering:
                self._deliver(_FOREVER)
                self._send_heartbeats()
            if self._journal.unsent:  # it has given up for now; there may be a later time
                self._wake.set()
                self._stop.wait(LINGER)

    def flush(self, timeout: float, progress: Progress | None = None, *, longest: float = 0.0) -> bool:
        """Deliver what the journal holds now.

        Args:
            timeout: Seconds to wait at most. A tracker that has not answered this process once gets one attempt.
            progress: Called now and then with the number of events that still wait.
            longest: Seconds to wait for a tracker that takes events, each time at most ``timeout`` for the next ones.

        Returns:
            Whether everything up to now is delivered; if not, ``outcome`` says why.
        """
        started = monotonic()
        target, first, end = self._journal.accepted, self._journal.settled, started + max(timeout, longest)
        settled, deadline = first, started + timeout
        self.outcome = "the wait for it was interrupted"
        with self._progress:
            self._waiting += 1
            if self._waiting == 1:
                self._drain += 1
                self._deadline = deadline
            self._deadline = max(deadline, self._deadline)
            given_up = self._given_up
        self._draining.set()
        try:
            self._awake = False
            self.notify()
            while self._journal.settled < target and self._given_up == given_up:
                if self._journal.settled > settled:
                    settled = self._journal.settled
                    deadline = min(monotonic() + timeout, end)
                    self._deadline = max(deadline, self._deadline)
                if monotonic() >= deadline:
                    break
                if self._thread is None or not self._thread.is_alive():
                    self._deliver_here(deadline)
                    if self._journal.settled == settled:
                        break
                    continue
                with self._progress:
                    self._progress.wait(min(max(0.0, deadline - monotonic()), _LOOK))
                if progress is not None:
                    progress(max(0, target - self._journal.settled))
            self.outcome = _outcome(
                timeout, self._journal.settled - first, monotonic() - started, at_end=deadline == end
            )
            return self._journal.settled >= target
        finally:
            with self._progress:
                self._waiting -= 1
                if not self._waiting:
                    self._draining.clear()

    def _deliver_here(self, deadline: float) -> None:
        """Deliver in the thread of whoever waits: there is none of our own, at the end of the interpreter."""
        if not self._delivering.acquire(timeout=max(0.0, deadline - monotonic())):
            return
        try:
            self._transport.deadline = deadline
            self._deliver(deadline)
        finally:
            self._transport.deadline = None
            self._delivering.release()

    def _deliver(self, deadline: float) -> None:
        """Send until the journal is empty, waiting is in vain, or ``deadline`` (monotonic seconds) is reached."""
        while self._await_turn() and monotonic() < deadline:
            started, logged, is_first = time.thread_time(), self._journal.accepted, not self._has_answered
            try:
                has_sent = self._step()
                if self._journal.settled >= logged:
                    self._caught_up_at = monotonic()
                if not has_sent:
                    break
            except Exception as error:  # noqa: BLE001  a transport may come from a plugin: the thread outlives it
                if not self._failed(error):
                    break
            else:
                self._backoff.succeeded()
                self.trouble, self._has_answered, self._is_absent = None, True, False
                self._tell()
                self._send_heartbeats()
                # What it takes to connect, or to make a database, is spent once.
                self._draining.wait(self._rest_after(0.0 if is_first else time.thread_time() - started))
        self._tell()

    def _step(self) -> bool:
        """Send one batch; False when there is none."""
        file = self._journal.front()
        if file is None:
            return False
        successor, self._successor = self._successor, None
        if successor is not None:
            self._transport.close()
            self._transport, self._delivery = successor, None
        if self._delivery is None or self._delivery.file is not file:
            self._delivery = Delivery(file, self._transport, self._buried)
        self._delivery.step()
        self._count_dropped(self._delivery.dropped)
        return True

    def _count_dropped(self, dropped: dict[str, int]) -> None:
        for run_uid, events in dropped.items():
            if run_uid not in self.dropped:
                self._warn(
                    f"The run {run_uid} was deleted from the tracker {self._name}: what it still logs is dropped."
                )
            self.dropped[run_uid] = self.dropped.get(run_uid, 0) + events
        dropped.clear()

    def _rest_after(self, busy: float) -> float:
        """Seconds to leave the interpreter to the training, after ``busy`` seconds of processor time."""
        factor = _REST
        if self._journal.unsent_bytes > _FAR_BEHIND:
            factor = _SHORT_REST
        elif monotonic() - self._caught_up_at > _LONG_BEHIND:
            factor = _SHORTER_REST
        return min(max(_LEAST_REST, factor * busy), _LONGEST_REST)

    def _await_turn(self) -> bool:
        """Wait until the tracker may be tried; False when that is too late for whoever waits, or at the end."""
        while not self._stop.is_set():
            impatient = self._draining.is_set()
            if impatient and self._is_absent and self._failed_in != self._drain:
                return True  # its one attempt
            turn = self._backoff.next_attempt(impatient=impatient)
            left = turn - monotonic()
            if left <= 0:
                return True
            if impatient and (self._is_absent or turn > self._deadline):
                self._give_up()
                return False
            (self._stop if impatient else self._draining).wait(left)
        return False

    def _failed(self, error: Exception) -> bool:
        """Note a failure; False when there is to be no further attempt for now."""
        self._backoff.failed(error)
        self.trouble = str(error) if isinstance(error, TransportError) else f"{type(error).__name__}: {error}"
        self._is_absent = not (self._has_answered or isinstance(error, BusyError))
        self._failed_in = self._drain if self._draining.is_set() else 0
        if not self._draining.is_set():
            self._warn(f"The tracker {self._name} does not take events ({self.trouble}); they are kept and sent later.")
        elif self._is_absent:
            self._give_up()
            return False
        return True

    def _give_up(self) -> None:
        self._given_up += 1
        self._tell()

    def _tell(self) -> None:
        with self._progress:
            self._progress.notify_all()

    def _send_heartbeats(self) -> None:
        for run_uid, heart in list(self._hearts.items()):
            if heart.due > monotonic():
                continue
            heart.due = monotonic() + heart.interval
            if not self._has_answered or self.trouble is not None or self._stop.is_set():
                continue
            try:
                state = self._transport.heartbeat(run_uid)
            except Exception:  # noqa: BLE001, S112  the next batch, or the next heartbeat, meets the same trouble and says so
                continue
            if state is not None:
                heart.on_state(state)

    def _buried(self, record: Record, reason: str, path: Path) -> None:
        if record.is_damaged:
            self.damaged += record.points
            self.damaged_path = path
            self._warn(f"{record.points} events in the journal are damaged and lost; their bytes are kept in {path}.")
            return
        self.dead += 1
        if record.call == "init_run" and isinstance(record.body, dict):
            self.refused_runs.add(record.body.get("init_args", {}).get("run_uid"))
        self.dead_path = path
        who = "An event could not be sent" if record.line else f"The tracker {self._name} refused an event"
        self._warn(f"{who} ({record.call}: {reason}); it is kept in {path}.")


def _outcome(timeout: float, taken: int, seconds: float, *, at_end: bool) -> str:
    """How a flush ended that has waited so long and in which so many events were taken."""
    if not taken:
        within = f"it has taken none within the {timeout:g} s of core.flush_timeout"
        return within if timeout > 0 else "core.flush_timeout leaves no time to wait for it"
    if at_end:
        return f"it took {taken} in {seconds:.0f} s, and nobody waits longer"
    return f"it took {taken}, and then none within the {timeout:g} s of core.flush_timeout"
