"""A channel: the way of this process' events to one tracker, from the journal over the sender to the transport."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from dbnd._base.paths import journal_folder
from dbnd._journal.folders import make_private, spares_of
from dbnd._journal.journal import Journal
from dbnd._terminal import console
from dbnd._tracking.sender import Sender

if TYPE_CHECKING:
    from pathlib import Path

    from dbnd._config.settings import CoreSettings
    from dbnd._tracking.transport import Transport

# Seconds that the end of a run waits at most for a tracker that takes events all the time.
_LONGEST_DRAIN: Final = 300.0


class Channel:
    """A journal and the sender that empties it.

    Args:
        name: The tracker as messages name it, without credentials.
        settings: The bounds of the journal.
        transport: How events reach the tracker.
        is_late: Whether the process has come to its end already.

    Attributes:
        journal: Where events are kept.
        sender: What carries them to the tracker.

    Raises:
        OSError: The journal cannot be made.
    """

    def __init__(self, name: str, settings: CoreSettings, transport: Transport, *, is_late: bool = False) -> None:
        self._name = name
        self.journal: Final = _open_journal(name, settings)
        self.is_late: Final = is_late
        self.sender: Final = Sender(self.journal, transport, name)

    def append(self, call: str, body: object) -> None:
        """Keep an event, and have it delivered (see ``Journal.append``)."""
        self.journal.append(call, body)
        self.sender.notify()

    def drain(self, timeout: float) -> bool:
        """Flush, and show on a terminal how far that is when it takes longer than a second."""
        with console.progress(f"Delivering to {self._name}", self.journal.unsent) as progress:
            return self.sender.flush(timeout, progress, longest=_LONGEST_DRAIN if timeout else 0.0)

    def counts(self) -> tuple[int, int, int, int]:
        """Numbers of events that are unsent, that were refused, that are damaged, and that were dropped."""
        return self.journal.unsent, self.sender.dead, self.sender.damaged, sum(self.sender.dropped.values())

    def left_over(self) -> list[str]:
        """What is to be said about these, in sentences."""
        unsent, dead, damaged, dropped = self.counts()
        sentences = []
        removed = self._removed() if unsent else None
        if removed is not None:
            sentences.append(
                f"{unsent} events are not delivered, and lost when the process ends: their file {self.journal.path} "
                f"was removed, and cannot be written again ({removed})."
            )
        elif unsent:
            trouble, outcome = self.sender.trouble, self.sender.outcome
            why = f"does not take them ({trouble})" if trouble else f"was still at work ({outcome})"
            sentences.append(
                f"{unsent} events are not delivered, because the tracker {self._name} {why}; "
                f"they wait in {self.journal.path}: `dbnd sync` or the next `dbnd run` sends them."
            )
        if dead:
            sentences.append(f"{dead} events were refused by {self._name}; they are kept in {self.sender.dead_path}.")
        if damaged:
            kept = self.sender.damaged_path
            sentences.append(f"{damaged} events in the journal are damaged and lost; their bytes are kept in {kept}.")
        if dropped:
            runs = ", ".join(self.sender.dropped)
            sentences.append(f"{dropped} events were dropped by {self._name}, because their runs were deleted: {runs}.")
        return sentences

    def _removed(self) -> OSError | None:
        """Why events that stand in a file that somebody has removed cannot be written into another one."""
        try:
            self.journal.restore()
        except OSError as error:
            return error
        return None

    def has_taken(self, number: int, run_uid: str) -> bool:
        """Whether the tracker has taken the event of this number, which announces a run."""
        return self.journal.settled >= number and run_uid not in self.sender.refused_runs

    def close(self) -> None:
        """End delivery; a sender that talks to the tracker at the moment is left to end with the process."""
        if self.sender.stop():
            self.journal.close()
            self.sender.close()


def _open_journal(name: str, settings: CoreSettings) -> Journal:
    """A journal in the home, or in another folder where that cannot be written, which is said once.

    Raises:
        OSError: It cannot be made anywhere.
    """
    home = journal_folder()

    def make(folder: Path) -> Journal:
        return Journal(folder, name, max_bytes=settings.journal_max_bytes, fsync=settings.journal_fsync)

    try:
        return make(home)
    except OSError as error:
        trouble = error
    for folder in spares_of(home):
        try:
            make_private(folder.parent)
            journal = make(folder)
        except OSError:
            continue
        console.warn_once(
            f"Events cannot be kept in {home} ({trouble}); they are kept in {folder}, and `dbnd sync` looks there, "
            "too. Set DBND_HOME to a folder that can be written."
        )
        return journal
    raise trouble
