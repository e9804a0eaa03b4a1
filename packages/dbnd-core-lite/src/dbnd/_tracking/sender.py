"""The sender: one daemon thread that carries the journal's events to the tracker.

It reads the journal, not a queue, so that memory does not grow with what is unsent. It is the only one that retries.
States::

    not started ──► resting ◄──► delivering ──► waiting for the tracker (backoff)
     (no event)        ▲             ▲                    │
                       │             └────────────────────┘
                       └── heartbeats of the runs of this process

While a training goes on, the sender rests many times as long as it has kept the processor busy: the interpreter is the
training's. It rests less once it has been behind for long, and not at all while somebody waits for it (``flush``).

When it is the sender's turn, log calls let it have the interpreter. Python would not: a thread that writes to a file
every millisecond takes the interpreter back before a thread that waits for it has woken up, and a batch takes seconds.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from dbnd._base.clock import monotonic
from dbnd._base.forks import start
from dbnd._journal.journal import Journal
from dbnd._terminal import console
from dbnd._terminal.text import capitalised
from dbnd._tracking.contracts import BusyError, Transport, TransportError
from dbnd._tracking.delivery import Backoff, Delivery
from dbnd._tracking.losses import Losses

# Events are given this long to gather into a batch, in seconds.
_LINGER: Final = 0.05
# Rests, as multiples of the processor time that the last batch took: usually, when the sender has been behind for long,
# in seconds, and when it is far behind, in bytes.
_REST: Final = 300
_SHORTER_REST: Final = 40
_SHORT_REST: Final = 4
_LONG_BEHIND: Final = 30.0
_FAR_BEHIND: Final = 64 << 20
_LEAST_REST: Final = 0.15
# A point is on the page within two seconds of its log call. A full batch takes some 15 ms, so that the sender has the
# interpreter for a hundredth of the time even where a process logs thousands of points a second.
_LONGEST_REST: Final = 1.5
# The shortest sleep, in seconds: the system makes some 60 us of it, in which a thread wakes up.
_WAKING: Final = 1e-6
# Seconds from one time that a log call lets the sender in to the next: at least, and as a part of how long an attempt
# has taken already, for most of a long one is waiting for the tracker.
_BETWEEN_TURNS: Final = 1e-3
_PART_BETWEEN_TURNS: Final = 0.01
# Seconds between two looks at the progress of a flush.
_LOOK: Final = 0.2
_FOREVER: Final = float("inf")


@dataclass(slots=True)
class _Heartbeat:
    """The heartbeat of one run; by the tracker's answer ``goes_on`` decides whether there are more."""

    interval: float
    due: float
    goes_on: Callable[[str], bool]


class Sender:
    """Delivers one journal through one transport, and closes both; messages name where to by ``name``."""

    def __init__(self, journal: Journal, transport: Transport, name: str) -> None:
        self.journal: Final = journal
        self._transport = transport
        self._name = name
        self._warn = console.once_a_minute()
        self.losses: Final = Losses(name, self._warn)
        self.trouble: str | None = None  # why the tracker takes no events at the moment
        self.outcome = ""  # why the last flush ended with events left, as the end of a sentence
        self._successor: Transport | None = None
        self._delivery: Delivery | None = None
        self._backoff = Backoff()
        self.heartbeats: dict[str, _Heartbeat] = {}
        self._thread: threading.Thread | None = None
        self._awake = False
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._delivering = threading.Lock()
        # Whoever waits in flush is told of each attempt.
        self._attempted = threading.Condition()
        self._draining = threading.Event()
        self._waiting = 0
        # A tracker that is not there gets one attempt while somebody waits; one that has answered before gets more.
        self._has_answered = self._is_absent = False
        # When the last attempt began that has failed.
        self._failed_from = 0.0
        # When last everything was sent that had been logged before its batch began.
        self._caught_up_at = monotonic()
        # Seconds to leave the interpreter to the training after the last batch.
        self._rest = 0.0
        # From when on the sender needs the interpreter, and when it last began an attempt.
        self._turn = _FOREVER
        self._began = 0.0

    def notify(self) -> None:
        """Say that the journal has grown; starts the thread at the first call."""
        if not self._awake:
            self._awake = True
            if self._thread is None:
                self._start()
            self._turn = monotonic() + _LINGER
            self._wake.set()
        elif self._turn <= (now := monotonic()):
            self._turn = now + max(_BETWEEN_TURNS, _PART_BETWEEN_TURNS * (now - self._began))
            time.sleep(_WAKING)

    def _start(self) -> None:
        with self._attempted:
            thread = threading.Thread(target=self._run, name="dbnd-sender", daemon=True)
            if self._thread is None and start(thread):  # without one, flush delivers itself
                self._thread = thread

    def use(self, transport: Transport) -> None:
        """Deliver through another transport from the next batch on."""
        self._successor = transport
        self._backoff.succeeded()
        self.notify()

    def beat(self, run_uid: str, interval: float, goes_on: Callable[[str], bool]) -> None:
        """Tell the tracker every ``interval`` seconds that a run is alive, as long as ``goes_on(answer)``."""
        self.heartbeats[run_uid] = _Heartbeat(interval, monotonic() + interval, goes_on)
        self._wake.set()

    def end_beat(self, run_uid: str) -> None:
        self.heartbeats.pop(run_uid, None)

    def has_taken(self, number: int, run_uid: str) -> bool:
        """Whether the tracker has taken the event of this number, which announces a run."""
        return self.journal.settled >= number and run_uid not in self.losses.refused_runs

    def close(self) -> None:
        """End delivery; a thread that talks to the tracker at the moment is left to end with the process."""
        self._stop.set()
        self._wake.set()
        self._draining.set()
        if self._delivering.acquire(timeout=0.1):
            self._delivering.release()
            self.journal.close()
            self._transport.close()

    def flush(
        self,
        timeout: float,
        progress: Callable[[int], None] | None = None,
        *,
        longest: float = 0.0,
        once: bool = False,
    ) -> bool:
        """Deliver what the journal holds now; ``progress`` is told now and then how many events still wait.

        ``timeout``, ``longest`` and ``once`` are those of ``Outbox.flush``. A tracker that has never answered this
        process gets one attempt.

        Returns:
            Whether everything up to now is delivered; if not, ``outcome`` says why.
        """
        journal, started = self.journal, monotonic()
        target, first, end = journal.accepted, journal.settled, started + max(timeout, longest)
        settled, deadline = first, started + timeout
        self.outcome = "the wait for it was interrupted"
        self._begin_to_wait()
        try:
            while journal.settled < target and not self._stop.is_set():
                if journal.settled > settled:
                    settled, deadline = journal.settled, min(monotonic() + timeout, end)
                if monotonic() >= deadline or self._is_in_vain(started, deadline, once=once):
                    break
                if self._thread is None or not self._thread.is_alive():
                    self._attempt_here(deadline)
                else:
                    with self._attempted:
                        self._attempted.wait(min(max(0.0, deadline - monotonic()), _LOOK))
                if progress is not None:
                    progress(max(0, target - journal.settled))
            self.outcome = _outcome(timeout, journal.settled - first, monotonic() - started, at_end=deadline == end)
            return journal.settled >= target
        finally:
            self._end_to_wait()

    def _begin_to_wait(self) -> None:
        with self._attempted:
            self._waiting += 1
            if self._waiting == 1:
                self._backoff.hurry()
            self._draining.set()
        self._awake = False
        self.notify()

    def _end_to_wait(self) -> None:
        with self._attempted:
            self._waiting -= 1
            if not self._waiting:
                self._draining.clear()

    def _is_in_vain(self, since: float, deadline: float, *, once: bool) -> bool:
        """Whether the tracker asks for more time than there is, or is not there, as an attempt since then has shown.

        With ``once`` also one that was under way already.
        """
        is_gone = self._backoff.failed_at >= since if once else self._is_absent and self._failed_from >= since
        return is_gone or self._backoff.next_attempt(impatient=True) > deadline

    def _attempt_here(self, deadline: float) -> None:
        """Deliver in the thread of whoever waits: there is none of our own, at the end of the interpreter."""
        if not self._delivering.acquire(timeout=max(0.0, deadline - monotonic())):
            return
        try:
            self._transport.deadline = deadline
            if self._await_turn(deadline):
                self._attempt()
        finally:
            self._transport.deadline = None
            self._delivering.release()

    def _run(self) -> None:
        while not self._stop.is_set():
            due = min((beat.due for beat in tuple(self.heartbeats.values())), default=_FOREVER)
            self._wake.wait(None if due == _FOREVER else max(0.0, due - monotonic()))
            self._turn = monotonic() + _LINGER
            self._draining.wait(_LINGER)
            self._wake.clear()
            self._awake = False
            with self._delivering:
                while self._await_turn(_FOREVER) and self._attempt():
                    self._send_heartbeats()
                    self._turn = monotonic() + self._rest
                    self._draining.wait(self._rest)
                self._send_heartbeats()
            self._turn = _FOREVER

    def _await_turn(self, deadline: float) -> bool:
        """Wait until the tracker may be tried; False when that is after ``deadline``, or at the end."""
        while not self._stop.is_set():
            impatient = self._draining.is_set()
            turn = self._backoff.next_attempt(impatient=impatient)
            left = turn - monotonic()
            if left <= 0 or turn > deadline:
                return left <= 0
            self._turn = turn
            if impatient:  # somebody waits, but may do so no more
                self._stop.wait(min(left, _LOOK))
            else:
                self._draining.wait(left)
        return False

    def _attempt(self) -> bool:
        """Send one batch, and note what has become of it; False when there is none."""
        started, logged, is_first = time.thread_time(), self.journal.accepted, not self._has_answered
        self._rest = 0.0
        self._turn = self._began = monotonic()
        try:
            has_sent = self._step()
        except Exception as error:  # noqa: BLE001  a transport may come from a plugin: the thread outlives it
            self._failed(error)
            return True
        finally:
            with self._attempted:
                self._attempted.notify_all()
        if self.journal.settled >= logged:
            self._caught_up_at = monotonic()
        if has_sent:
            self._backoff.succeeded()
            self.trouble, self._has_answered, self._is_absent = None, True, False
            # What it takes to connect, or to make a database, is spent once.
            self._rest = self._rest_after(0.0 if is_first else time.thread_time() - started)
        return has_sent

    def _step(self) -> bool:
        file = self.journal.front()
        if file is None:
            return False
        successor, self._successor = self._successor, None
        if successor is not None:
            self._transport.close()
            self._transport, self._delivery = successor, None
        if self._delivery is None or self._delivery.file is not file:
            self._delivery = Delivery(file, self._transport, self.losses.bury)
        self._delivery.step()
        self.losses.drop(self._delivery.dropped)
        self._delivery.dropped.clear()
        return True

    def _failed(self, error: Exception) -> None:
        self._failed_from = self._began
        self._is_absent = not (self._has_answered or isinstance(error, BusyError))
        self._backoff.failed(error)
        # Last: who has seen it and then waits, waits for another attempt.
        self.trouble = str(error) if isinstance(error, TransportError) else f"{type(error).__name__}: {error}"
        if not self._draining.is_set():
            self._warn(
                f"{capitalised(self._name)} does not take events ({self.trouble}); they are kept and sent later."
            )

    def _rest_after(self, busy: float) -> float:
        """Seconds to leave the interpreter to the training, after ``busy`` seconds of processor time."""
        factor = _REST
        if self.journal.unsent_bytes > _FAR_BEHIND:
            factor = _SHORT_REST
        elif monotonic() - self._caught_up_at > _LONG_BEHIND:
            factor = _SHORTER_REST
        return min(max(_LEAST_REST, factor * busy), _LONGEST_REST)

    def _send_heartbeats(self) -> None:
        for run_uid, beat in self.heartbeats.copy().items():
            if beat.due > monotonic():
                continue
            beat.due = monotonic() + beat.interval
            if not self._has_answered or self.trouble is not None or self._stop.is_set():
                continue
            try:
                state = self._transport.heartbeat(run_uid)
            except Exception:  # noqa: BLE001, S112  the next batch, or the next heartbeat, meets the same trouble and says so
                continue
            if state is not None and not beat.goes_on(state):
                self.end_beat(run_uid)


def _outcome(timeout: float, taken: int, seconds: float, *, at_end: bool) -> str:
    """How a flush ended that has waited so long and in which so many events were taken."""
    if not taken:
        within = f"it has taken none within the {timeout:g} s of core.flush_timeout"
        return within if timeout > 0 else "core.flush_timeout leaves no time to wait for it"
    if at_end:
        return f"it took {taken} in {seconds:.0f} s, and nobody waits longer"
    return f"it took {taken}, and then none within the {timeout:g} s of core.flush_timeout"
