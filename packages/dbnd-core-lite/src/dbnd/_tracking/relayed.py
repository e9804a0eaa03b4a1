"""A journal that its process leaves to a relay: `dbnd sync --watch` delivers it, maybe on another machine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from dbnd._journal.journal import Journal
from dbnd._terminal import console
from dbnd._tracking.contracts import Transport
from dbnd._tracking.losses import Losses


class Relayed:
    """Stands where a ``Sender`` does, and sends nothing: nobody ever waits for it."""

    trouble: Final[str | None] = None
    outcome: Final = ""

    def __init__(self, journal: Journal, name: str) -> None:
        self.journal: Final = journal
        self.losses: Final = Losses(name, console.once_a_minute())

    def notify(self) -> None:
        """The relay looks itself."""

    def use(self, transport: Transport) -> None:
        """The relay has transports of its own."""

    def beat(self, run_uid: str, interval: float, goes_on: Callable[[str], bool]) -> None:
        """The tracker hears of the run by what it logs."""

    def end_beat(self, run_uid: str) -> None:
        """See ``beat``."""

    def has_taken(self, number: int, run_uid: str) -> bool:  # noqa: ARG002  as of a sender
        """Whether the relay has delivered the event of this number, as far as it has noted."""
        return self.journal.settled >= number

    def flush(self, timeout: float, progress: Callable[[int], None] | None = None, **_: object) -> bool:  # noqa: ARG002
        """Whether everything is delivered at this moment."""
        return not self.journal.unsent

    def close(self) -> None:
        """Give the journal up: it is complete, which the relay sees at once."""
        self.journal.close()
