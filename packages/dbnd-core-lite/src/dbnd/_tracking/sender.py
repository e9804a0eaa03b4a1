"""The sender: one daemon thread that carries the journal's events to the tracker.

It reads the journal, not a queue, so that memory does not grow with what is unsent. It is the only one that retries:
with exponential backoff and jitter, honouring the tracker's Retry-After.
"""

from __future__ import annotations

import random
import threading
import time
from typing import Final

from dbnd import _console
from dbnd._tracking.journal import Journal, Record
from dbnd._tracking.transport import (
    Batch,
    PartlyAppliedError,
    RefusedError,
    TooLargeError,
    Transport,
    TransportError,
    UnreachableError,
)

# Events are given this long to gather into a batch, in seconds.
LINGER: Final = 0.2
MAX_BYTES: Final = 1 << 18
MAX_EVENTS: Final = 5_000
# The interpreter is the training's: while that goes on, the sender rests this many times as long as it has worked, but
# never longer than so many seconds.
_REST: Final = 4
_LONGEST_REST: Final = 1.0
_BACKOFF: Final = (0.5, 60.0)
# "At most once a minute": the shortest time between two messages about a tracker that does not answer.
_SILENCE: Final = 60.0


class Sender:
    """Delivers one journal through one transport.

    Args:
        journal: Where the events stand.
        transport: How they reach the tracker.
        name: The tracker as messages name it, without credentials.
    """

    def __init__(self, journal: Journal, transport: Transport, name: str) -> None:
        self._journal = journal
        self._transport = transport
        self._name = name
        self._wake = threading.Event()
        self._draining = threading.Event()
        self._delivering = threading.Lock()
        self._progress = threading.Condition()
        self._thread: threading.Thread | None = None
        self._stopped = False
        self._has_answered = False
        self._gave_up = False
        self._failures = 0
        self.trouble: str | None = None
        self._last_message = -_SILENCE
        self._max_records = MAX_EVENTS
        self._buffer: list[Record] = []

    def notify(self) -> None:
        """Say that the journal has grown; starts the thread at the first call."""
        if not self._wake.is_set():
            self._wake.set()
        if self._thread is None:
            self._start()

    def _start(self) -> None:
        with self._progress:
            if self._thread is not None:
                return
            thread = threading.Thread(target=self._run, name="dbnd-sender", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # the interpreter is going down and starts no threads; flush delivers itself
                return
            self._thread = thread

    def stop(self) -> bool:
        """Let the thread end, and return whether it has: it is not waited for while it talks to the tracker."""
        self._stopped = True
        self._wake.set()
        self._draining.set()
        idle = self._delivering.acquire(timeout=0.1)
        if idle:
            self._delivering.release()
        return idle

    def _run(self) -> None:
        while not self._stopped:
            self._wake.wait()
            self._draining.wait(LINGER)
            self._wake.clear()
            self._deliver()
            if self._journal.unsent:  # a drain gave up; there may be a later time
                self._wake.set()
                time.sleep(LINGER)

    def flush(self, timeout: float) -> bool:
        """Deliver what the journal holds now.

        Args:
            timeout: Seconds to wait at most. A tracker that has not answered this process once gets one attempt.

        Returns:
            Whether everything up to now is delivered.
        """
        target, deadline = self._journal.last, time.monotonic() + timeout
        self._gave_up = False
        self._draining.set()
        try:
            self.notify()
            if self._thread is None or not self._thread.is_alive():
                self._deliver(deadline)
                return self._journal.acknowledged >= target
            with self._progress:
                return (
                    self._progress.wait_for(
                        lambda: self._journal.acknowledged >= target or self._gave_up,
                        max(0.0, deadline - time.monotonic()),
                    )
                    and self._journal.acknowledged >= target
                )
        finally:
            self._draining.clear()

    def _deliver(self, deadline: float = float("inf")) -> None:
        """Send until the journal is empty, a drain gives up, or ``deadline`` (monotonic seconds) is reached."""
        with self._delivering:
            while not self._stopped and (records := self._next()):
                started = time.monotonic()
                try:
                    self._send(records)
                except Exception as error:  # noqa: BLE001  a transport may come from a plugin: the thread outlives it
                    if not self._failed(error, deadline):
                        return
                else:
                    self._failures, self.trouble = 0, None
                    self._has_answered = True
                    if not self._draining.is_set():
                        self._draining.wait(min(_REST * (time.monotonic() - started), _LONGEST_REST))
                with self._progress:
                    self._progress.notify_all()

    def _next(self) -> list[Record]:
        """The next events that make one batch: consecutive metrics, or one event of another call.

        What has been read stays in the buffer until it is acknowledged, so that a batch sent again is the same batch.
        """
        if not self._buffer:
            self._buffer = self._journal.read(MAX_EVENTS, MAX_BYTES)
        batch: list[Record] = []
        for record in self._buffer[: self._max_records]:
            if batch and (record.call != "log_metrics" or batch[0].call != "log_metrics"):
                break
            batch.append(record)
        return batch

    def _send(self, records: list[Record]) -> None:
        first, last = records[0], records[-1]
        body = first.body
        if len(records) > 1:
            body = [group for record in records for group in record.body]
        try:
            self._transport.send(Batch(first.call, body, self._journal.id, first.sequence, last.sequence))
        except PartlyAppliedError as error:
            last = next((record for record in records if record.sequence == error.last), last)
        except TooLargeError:
            if len(records) > 1:
                self._max_records = max(1, len(records) // 2)
                return
            self._bury(records, "it is too large")
        except RefusedError as error:
            if len(records) > 1:  # find the one that is wrong: the others are not to blame
                self._max_records = max(1, len(records) // 2)
                return
            self._bury(records, str(error))
        else:
            self._max_records = min(MAX_EVENTS, self._max_records * 2)
        self._journal.acknowledge(last)
        self._buffer = [record for record in self._buffer if record.sequence > last.sequence]

    def _bury(self, records: list[Record], reason: str) -> None:
        self._journal.bury(records)
        self._say(
            f"The tracker {self._name} refused an event ({records[0].call}: {reason}); "
            f"it is kept in {self._journal.dead_path}."
        )

    def _failed(self, error: Exception, deadline: float) -> bool:
        """Wait before the next attempt; False when there is to be none."""
        self._failures += 1
        self.trouble = str(error) if isinstance(error, TransportError) else f"{type(error).__name__}: {error}"
        draining = self._draining.is_set()
        if not draining:
            self._say(f"The tracker {self._name} does not take events ({self.trouble}); they are kept and sent later.")
        elif not self._has_answered:
            with self._progress:
                self._gave_up = True
                self._progress.notify_all()
            return False
        wait = self._backoff(error)
        if draining:
            time.sleep(min(wait, 1.0))
        else:
            self._draining.wait(wait)
        return time.monotonic() < deadline

    def _backoff(self, error: Exception) -> float:
        least, most = _BACKOFF
        wait = min(most, least * 2 ** min(self._failures - 1, 10)) * random.uniform(1, 1.5)  # noqa: S311  jitter
        asked = error.retry_after if isinstance(error, UnreachableError) else None
        return wait if asked is None else max(asked, least)

    def _say(self, text: str) -> None:
        now = time.monotonic()
        if now - self._last_message >= _SILENCE:
            self._last_message = now
            _console.warning(text)
