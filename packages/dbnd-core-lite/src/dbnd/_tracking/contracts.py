"""What carries events to a tracker and reads them back: the contracts of transports and readers, and their errors.

A plugin may send events to something else than a tracker; the contract of transports is the same.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from dbnd._base.errors import DatabandError
from dbnd._base.masking import mask_url
from dbnd._model.points import Group, wire_text

if TYPE_CHECKING:
    from dbnd._config.config import Config


@dataclass(frozen=True, slots=True)
class Batch:
    """One wire call, made of one or more consecutive events of a journal.

    Args:
        call: Name of the call, the last part of ``/api/v1/tracking/<call>``.
        body: Its JSON body; of ``log_metrics`` also a list of groups of points (see ``points``).
        journal: Id of the journal, a uuid as 32 hex digits.
        first: Sequence number of the first event (the journal's first is 1).
        last: Sequence number of the last event. A tracker that has applied ``last`` applies the batch no more.
    """

    call: str
    body: dict[str, Any] | list[Group]
    journal: str
    first: int
    last: int

    def wire_text(self) -> str:
        """The body as the protocol has it, as JSON."""
        return wire_text(self.body) if isinstance(self.body, list) else json.dumps(self.body)


class Transport(Protocol):
    """Delivers batches to one tracker; called by one thread at a time."""

    deadline: float | None
    """Time (of ``dbnd.tracking.monotonic``) by which a request should have ended, set while somebody waits for it and
    nobody else could; None for the transport's own time-outs."""

    def send(self, batch: Batch) -> Mapping[str, int] | None:
        """Deliver ``batch``; when this returns, the tracker has it.

        Returns:
            Numbers of events that the tracker has dropped because their runs were deleted, by the uids of the runs.

        Raises:
            UnreachableError: The tracker cannot take it now; the batch will be sent again.
            RefusedError: The tracker will never take this batch.
            PartlyAppliedError: The tracker has the first events of it; the others go into a batch of their own.
        """

    def heartbeat(self, run_uid: str) -> str | None:
        """Say that a run is alive.

        Returns:
            The state of the run as the tracker has it ("shutdown": it is asked to end), or None if it did not say.

        Raises:
            TransportError: The tracker did not answer.
        """

    def check(self) -> None:
        """Make a call that needs the credentials and changes nothing.

        Raises:
            AccessError: The tracker refuses the credentials.
            TransportError: It does not answer, or not as a tracker does.
        """

    def close(self) -> None:
        """Release connections."""


class Reader(Protocol):
    """Reads from one tracker, in the JSON forms of its read API; raises DatabandError where it cannot be read."""

    name: str
    """The tracker as messages name it, without credentials."""

    def task_run(self, uid: str) -> dict[str, Any] | None:
        """The task run with this uid and everything it logged, or None."""

    def run_summary(self, uid: str) -> dict[str, Any] | None:
        """The run with this uid without what is in it, or None."""

    def points(self, task_run_uid: str, key: str) -> Iterator[dict[str, Any]]:
        """All points of one metric, in the order in which they came: step, timestamp (ms), value."""

    def close(self) -> None:
        """Release connections."""


@dataclass(frozen=True, slots=True)
class Destination:
    """What the URL in a journal stands for.

    Args:
        name: How messages name it, without credentials, as "the tracker http://host".
        url: Where to send to, with credentials; None where this configuration does not send there.
        hint: What sends there, as a clause: "`dbnd sync --set-config core.databand_url=http://host` sends them".
    """

    name: str
    url: str | None
    hint: str


def tracker_name(url: str) -> str:
    """How messages name the tracker at ``url``."""
    return f"the tracker {mask_url(url)}"


TransportFactory = Callable[[str, "Config"], Transport]
ReaderFactory = Callable[[str, "Config"], Reader]


class TransportError(DatabandError):
    """A batch was not delivered; the text says why."""


class UnreachableError(TransportError):
    """The tracker does not take events: what is unsent stays unsent for now.

    Args:
        reason: Why, as the end of a sentence.
        retry_after: Seconds for which the tracker wants to be left alone, if it said so.
    """

    def __init__(self, reason: str, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


class BusyError(UnreachableError):
    """There is a tracker, and it cannot take the batch at the moment: it is overloaded, or is just starting."""


class NotATrackerError(UnreachableError):
    """What answers at the tracker's address is none: it is not known to have taken anything."""


class AccessError(UnreachableError):
    """The tracker refuses the credentials."""


class RefusedError(TransportError):
    """The tracker answered that this batch is wrong; sending it again would change nothing."""


class TooLargeError(RefusedError):
    """The batch is larger than the tracker takes; a part of it may be taken."""


class PartlyAppliedError(TransportError):
    """The tracker has applied the first events of the batch already, and none of the others now.

    Args:
        last: Sequence number of the last event that it has.
    """

    def __init__(self, last: int) -> None:
        super().__init__(f"events up to {last} are applied already")
        self.last = last
