"""Delivery: which events of a file make a batch, what becomes of a batch, and when one that failed may be tried again.

It neither waits nor retries; the sender and `dbnd sync` do. States of a batch::

    gathered ──► sent ──┬─ taken ───────────────► acknowledged
        ▲               ├─ partly applied before ► that part acknowledged, the rest gathered anew
        ├── halved ◄────┼─ too large, refused
        │               ├─ of one event, too large or refused ──► buried (dead letter), acknowledged
        └── kept ◄──────┴─ not now (raised to the caller): sent again as it is

An event that cannot be read is buried, too, and the bytes of a damaged one are kept in a file of their own.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from dbnd._base.clock import monotonic
from dbnd._journal.dead_letters import keep_aside
from dbnd._journal.file import JournalFile
from dbnd._journal.records import Record
from dbnd._model.points import MAX_POINTS
from dbnd._tracking.contracts import (
    Batch,
    BusyError,
    NotATrackerError,
    PartlyAppliedError,
    RefusedError,
    TooLargeError,
    Transport,
    TransportError,
    UnreachableError,
)

# A batch is of about so many bytes of the file.
MAX_BYTES: Final = 1 << 19
_METRICS: Final = "log_metrics"

# Seconds after the first failure, doubled by each further one, up to the most.
_LEAST: Final = 0.5
_MOST: Final = 60.0
# While somebody waits, a tracker that may be starting up is tried as often as this, in seconds.
_IMPATIENT: Final = 1.0
# Our own, so that the numbers that a training has seeded stay what they are.
_random: Final = random.SystemRandom()

# Called with each event that is refused for good, cannot be read or is damaged, the reason, and where it is kept.
Buried = Callable[[Record, str, Path], None]


class Delivery:
    """Delivers the events of one file through one transport, in order; called by one thread at a time."""

    def __init__(self, file: JournalFile, transport: Transport, on_buried: Buried) -> None:
        self.file: Final = file
        self._transport = transport
        self._on_buried = on_buried
        # Events that the tracker has dropped because their runs were deleted, by uids of runs.
        self.dropped: Final[Counter[str]] = Counter()
        self._max_events: int | None = None
        self._read: list[Record] = []
        self._batch: list[Record] = []
        # Up to which event one has failed for a reason that no transport should have.
        self._suspected = 0

    def step(self) -> bool:
        """Send one batch, and return whether there was one.

        Raises:
            UnreachableError: The tracker cannot take it now.
            OSError: An event could not be read or kept aside; it stays where it is.
        """
        self._batch = self._batch or self._gather()
        if not self._batch:
            return False
        if self._batch[0].trouble:
            self._bury(self._batch[0], self._batch[0].trouble)
        else:
            self._send(self._batch)
        return True

    def _gather(self) -> list[Record]:
        """The next events that make one batch: consecutive metrics, or one event of another call."""
        self._read = self._read or self.file.read(MAX_BYTES, merged=self._max_events is None)
        batch: list[Record] = []
        points = 0
        for record in self._read[: self._max_events]:
            points += record.points
            is_alone = record.call != _METRICS or bool(record.trouble)
            if batch and (is_alone or points > MAX_POINTS):
                break
            batch.append(record)
            if is_alone:
                break
        return batch

    def _send(self, batch: list[Record]) -> None:
        first, last = batch[0], batch[-1]
        number = first.sequence - first.events + 1
        try:
            body = _merged(batch) if first.call == _METRICS and isinstance(first.body, list) else first.body
            dropped = self._transport.send(Batch(first.call, body, self.file.header.id, number, last.sequence))
        except PartlyAppliedError as error:
            known = min(error.last, last.sequence)
            self._read = self.file.read(MAX_BYTES)  # not merged: it may be one in the middle
            self._acknowledge([record for record in self._read if record.sequence <= known])
        except RefusedError as error:
            self._refused(batch, "it is too large" if isinstance(error, TooLargeError) else str(error))
        except (TransportError, OSError):
            raise
        except Exception as error:  # noqa: BLE001  a transport may come from a plugin, and an event be what it chokes on
            reason = f"{type(error).__name__}: {error}"
            if last.sequence > self._suspected:  # it may be the transport's fault
                self._suspected = last.sequence
                raise BusyError(reason) from None
            self._refused(batch, f"it cannot be sent: {reason}")
        else:
            self.dropped.update(dropped or {})
            if self._max_events is not None:
                self._max_events = self._max_events * 2 if self._max_events * 2 < MAX_POINTS else None
            self._acknowledge(batch)

    def _refused(self, batch: list[Record], reason: str) -> None:
        events = sum(record.events for record in batch)
        if events == 1:
            self._see_that_others_are_taken(reason)
            self._bury(batch[0], reason)
        else:  # find the one that is wrong or too large: the others are not to blame
            self._max_events, self._read, self._batch = events // 2, [], []

    def _see_that_others_are_taken(self, reason: str) -> None:
        """Raise UnreachableError if not even a call with nothing in it is taken: then it is not the fault of the event.

        A gateway whose tracker is being replaced, or another service at its address, refuses every call.
        """
        try:
            self._transport.check()
        except UnreachableError:
            raise
        except TransportError as error:
            raise NotATrackerError(f"{error}, to a call with nothing in it, too") from None
        except Exception:  # noqa: BLE001  whatever it is, nothing can be sent
            raise BusyError(reason) from None

    def _bury(self, record: Record, reason: str) -> None:
        path = keep_aside(record, reason, self.file)
        self._acknowledge([record])
        self._on_buried(record, reason, path)

    def _acknowledge(self, done: list[Record]) -> None:
        if not done:
            raise UnreachableError("it answered that it has other events than those that were sent")
        self.file.acknowledge(done[-1].sequence, done[-1].end)
        del self._read[: len(done)]
        self._batch = []


def _merged(batch: list[Record]) -> list[Any]:
    """The groups of all events, those of the same attempt and source that follow each other as one."""
    merged: list[Any] = []
    for record in batch:
        for attempt, source, points in record.body:
            if merged and merged[-1][:2] == [attempt, source]:
                merged[-1][2] += points
            else:
                merged.append([attempt, source, list(points)])
    return merged


class Backoff:
    """Exponential, with jitter, and never before a tracker's Retry-After."""

    def __init__(self) -> None:
        self.succeeded()

    def succeeded(self) -> None:
        self._failures = 0
        self.failed_at = self._until = self._asked_until = 0.0

    def hurry(self) -> None:
        """Let the next attempt be at once, if the tracker has not asked for more time."""
        self._until = self._asked_until

    def failed(self, error: Exception) -> None:
        wait = min(_MOST, _LEAST * 2 ** min(self._failures, 10))
        wait *= _random.uniform(1, 1.5)  # jitter: many clients must not come back at the same time
        asked = error.retry_after if isinstance(error, UnreachableError) else None
        self._failures += 1
        self.failed_at = monotonic()
        self._asked_until = self.failed_at + asked if asked else 0.0
        self._until = self._asked_until or self.failed_at + wait

    def next_attempt(self, *, impatient: bool) -> float:
        """The time (of ``monotonic``) of the next attempt; while somebody waits for it, it is soon."""
        if not impatient:
            return self._until
        return max(self._asked_until, min(self._until, self.failed_at + _IMPATIENT))
