"""The outbox: where events wait for one tracker, from the log call on until the tracker has them.

A plugin may have one for something else than a tracker, with a transport of its own.
"""

from __future__ import annotations

import atexit
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, ClassVar, Final

from dbnd._base.clock import monotonic
from dbnd._base.forks import renew_after_fork
from dbnd._base.masking import mask_url
from dbnd._config.settings import CoreSettings
from dbnd._journal.journal import Journal, JournalClosedError, open_journal
from dbnd._journal.leftovers import left_since
from dbnd._model.error_info import message_of
from dbnd._terminal import console
from dbnd._tracking.contracts import Transport, TransportFactory, tracker_name
from dbnd._tracking.relayed import Relayed
from dbnd._tracking.sender import Sender

if TYPE_CHECKING:
    from dbnd._config.config import Config
    from dbnd._journal.records import Record

# Seconds that the end of a run waits at most for a tracker that takes events all the time.
_LONGEST_DRAIN: Final = 300.0


class Outbox:
    """Keeps events in a journal, which the first of them makes, and has a sender deliver them.

    Args:
        url: Where they go; its scheme says by which transport.
        config: Time-outs, credentials and the rest of the transport's settings.
        make_transport: Makes what carries events to ``url``.
        destination: How messages name what is at ``url``, without credentials; unset, as a tracker.

    Attributes:
        name: The URL without credentials.
        destination: How messages name what is there.
        dropped: Number of events that could not be kept, and are lost.

    Raises:
        ConfigError: No transport serves the URL's scheme.
    """

    is_over: ClassVar[bool] = False
    """Whether the process has come to its end: what is logged then is delivered by the log call itself."""
    _of_parents: ClassVar[list[object]] = []

    def __init__(
        self, url: str, config: Config, make_transport: TransportFactory, *, destination: str | None = None
    ) -> None:
        self.url: Final = url
        self.name: Final = mask_url(url)
        self.destination: Final = destination or tracker_name(url)
        self._config, self._settings = config, config.settings(CoreSettings)
        self._make_transport = make_transport
        self._since = time.time_ns()
        # Made here, in the caller's thread, and not by the sender: two threads importing the same libraries at once
        # can see them half imported. Nothing is connected yet.
        self._transport: Transport | None = None if self.is_relayed else make_transport(url, config)
        self._start_afresh()
        _outboxes.add(self)
        renew_after_fork(self)

    def _start_afresh(self) -> None:
        """Begin without a journal: at first, and in a forked child, whose parent owns the old one."""
        self._opening = threading.RLock()  # a signal handler may log, too
        self._sender: Sender | Relayed | None = None
        self.dropped = 0
        self._warn_of_loss = console.once_a_minute()
        # Why the journal could not be opened, and when that is tried again.
        self._unopened: OSError | None = None
        self._open_again_at = 0.0
        # Seconds that were waited in vain for a tracker that takes nothing.
        self._waited = 0.0
        # Seconds spent on what was logged after the end of the process' tracking, and whether what is left was said.
        self._late = 0.0
        self._said_late = False
        # Counts already reported, so that the same warning is not repeated.
        self._told: tuple[int, ...] = (0, 0, 0, 0, 0)

    def after_fork(self) -> None:
        """Leave journal, sender and connections to the parent (see ``ForkAware``)."""
        Outbox.is_over = False
        if self._sender is not None:
            self._sender.journal.abandon()
        # Kept, for what a destructor does to a connection (to a database's, above all) would disturb the parent.
        self._of_parents.append((self._sender, self._transport))
        self._transport = None
        _open.discard(self)
        self._start_afresh()

    @property
    def is_relayed(self) -> bool:
        """Whether a relay delivers the events, and this process nothing."""
        return self._settings.delivery == "relay"

    @property
    def unsent(self) -> int:
        """Number of events that the tracker has not taken yet."""
        return sender.journal.unsent if (sender := self._sender) else 0

    @property
    def taken(self) -> int:
        """Number of events of the present journal that the tracker has taken or refused."""
        return sender.journal.settled if (sender := self._sender) else 0

    @property
    def refused(self) -> int:
        """Number of events that the tracker refused for good; they are kept as dead letters."""
        return sender.losses.dead if (sender := self._sender) else 0

    @property
    def trouble(self) -> str | None:
        """Why the tracker does not take events at the moment, or None while it does."""
        return sender.trouble if (sender := self._sender) else None

    @property
    def is_away(self) -> bool:
        """Whether nothing is taken at the moment, or this process sends nothing itself."""
        return self.is_relayed or self.trouble is not None

    def reconfigure(self, config: Config) -> None:
        """Use other credentials and time-outs from now on, also for what is unsent; the tracker is the same."""
        settings = config.settings(CoreSettings)
        if settings == self._settings:
            return
        self._config, self._settings = config, settings
        if self.is_relayed or isinstance(self._sender, Relayed):  # who delivers a journal never changes
            return
        transport = self._make_transport(self.url, config)
        with self._opening:
            if self._sender is None:
                self._transport = transport
            else:
                self._sender.use(transport)

    def keep(self, call: str, body: object, *, is_last_way: bool = True) -> Sender | Relayed | None:
        """Keep an event and have it delivered; returns its sender, or None where it could not be kept. It never raises.

        Unless ``is_last_way``, the caller has another way for it then, and it is not counted as lost.
        """
        try:
            while True:
                sender = self._sender or self._open()
                try:
                    sender.journal.append(call, body)
                except JournalClosedError:  # another thread has closed it since
                    continue
                break
        except Exception as error:  # noqa: BLE001  whatever it is, it is not the user's code that must deal with it
            if is_last_way:
                self.drop(call, error)
            return None
        sender.notify()
        if self.is_over:
            self._deliver_late(sender)
        return sender

    def drop(self, call: str, error: Exception) -> None:
        """Count an event that could not be kept, and say so at most once a minute."""
        self.dropped += 1
        self._warn_of_loss(f"An event ({call}) could not be kept and is lost: {message_of(error)}. The run goes on.")

    def _open(self) -> Sender | Relayed:
        with self._opening:
            if self._sender is None:
                if self._unopened is not None and monotonic() < self._open_again_at:
                    raise OSError(*self._unopened.args)
                try:
                    journal = open_journal(self.name, self._settings)
                except OSError as error:
                    self._unopened, self._open_again_at = error, monotonic() + 5
                    raise
                self._unopened = None
                self._sender = self._sender_of(journal)
                _open.add(self)
                self._told = (0, 0, 0, 0, self._told[-1])  # of events in an earlier journal
                _close_at_exit_of_child()
            return self._sender

    def _sender_of(self, journal: Journal) -> Sender | Relayed:
        if self.is_relayed:
            return Relayed(journal, self.destination)
        # The transport of before the fork is the parent's, and that of a closed journal is closed.
        transport, self._transport = self._transport or self._make_transport(self.url, self._config), None
        return Sender(journal, transport, self.destination)

    def waiting(self) -> Iterator[Record]:
        """The events that are not delivered yet, oldest first, as far as they can be read."""
        return iter(()) if self._sender is None else self._sender.journal.waiting()

    def flush(self, timeout: float | None = None, *, longest: float = 0.0, once: bool = False) -> bool:
        """Wait until everything logged so far is delivered, and return whether it is; what is not stays in the journal.

        Args:
            timeout: Seconds to wait at most. None for a tracker that takes nothing is what is left of
                ``core.flush_timeout`` after earlier waits in vain; then a terminal shows how far it is.
            longest: Seconds to wait for one that takes events, each time at most ``timeout`` for the next ones.
            once: Whether to wait no longer once an attempt has failed.
        """
        sender = self._sender
        if sender is not None and timeout is not None:
            return sender.flush(timeout, longest=longest, once=once)
        return sender is None or self._deliver(sender)

    def _deliver(self, sender: Sender | Relayed, timeout: float | None = None) -> bool:
        if timeout is not None:
            return sender.flush(timeout)
        patience = max(0.0, self._settings.flush_timeout - self._waited)
        started = monotonic()
        try:
            with console.progress(f"Delivering to {self.destination}", sender.journal.unsent) as progress:
                longest = _LONGEST_DRAIN if patience else 0.0
                done = sender.flush(patience, progress, longest=longest)
                if done and sender.journal.adopt(self._since):  # left by workers of a pool, say, which are terminated
                    done = sender.flush(patience, progress, longest=longest)
        except BaseException:
            self._waited = self._settings.flush_timeout
            raise
        self._waited = 0.0 if done else self._waited + monotonic() - started
        return done

    def _deliver_late(self, sender: Sender | Relayed) -> None:
        """Deliver what is logged after the end of tracking at once: nobody does it later in this process.

        All of that takes ``core.flush_timeout`` at most; what is left then is said once.
        """
        started = monotonic()
        try:
            is_flushed = self._late < self._settings.flush_timeout and self._deliver(sender)
            problem = self.left_over(sender, is_flushed=is_flushed)
        except Exception as error:  # noqa: BLE001  a transport may come from a plugin
            problem = f"{type(error).__name__}: {error}"
        self._late += monotonic() - started
        if problem and not self._said_late:
            self._said_late = True
            console.warning(f"Logged after the end of tracking: {problem} What follows may wait there, too.")
        if not sender.journal.unsent:
            self.close(0)

    def close(self, timeout: float | None = None) -> str | None:
        """Flush, and remove the journal if nothing in it is unsent. A later call starts a new one.

        Args:
            timeout: As of ``flush``.

        Returns:
            What is to be said about events that are not delivered, unless it was said before.
        """
        with self._opening:
            if self._sender is None and left_since(self._since, self._settings.journals, self.name):
                with suppress(OSError):
                    self._open()
            sender, self._sender = self._sender, None
            _open.discard(self)
        if sender is None:
            return self.left_over()
        sender.journal.seal()
        with suppress(KeyboardInterrupt):  # somebody does not want to wait
            self._deliver(sender, timeout)
        problem = self.left_over(sender)
        sender.close()
        return problem

    def left_over(self, sender: Sender | Relayed | None = None, *, is_flushed: bool = False) -> str | None:
        """What is to be said of events that are lost or, unless all was just flushed, wait; nothing is said twice."""
        sender = sender or self._sender
        unsent = 0 if sender is None or is_flushed else sender.journal.unsent
        lost = (0, 0, 0) if sender is None else sender.losses.counts()
        counts = (unsent, *lost, self.dropped)
        if counts == self._told:
            return None
        self._told = counts
        sentences = [] if sender is None else sender.losses.sentences()
        if isinstance(sender, Sender) and unsent:
            sentences.insert(0, self._why_unsent(sender, unsent))
        if self.dropped:
            sentences.append(f"{self.dropped} events could not be written to the journal and are lost.")
        return " ".join(sentences) or None

    def kept(self) -> str | None:
        """What waits for a relay, and where, as a sentence; None where the process delivers itself."""
        if not isinstance(sender := self._sender, Relayed) or not (unsent := sender.journal.unsent):
            return None
        where = sender.journal.directory
        return f"{unsent} events for {self.destination} are kept in {where}: `dbnd sync --watch` delivers them."

    def _why_unsent(self, sender: Sender, unsent: int) -> str:
        path = sender.journal.path
        try:
            sender.journal.restore()
        except OSError as error:
            return (
                f"{unsent} events are not delivered, and lost when the process ends: their file {path} was removed, "
                f"and cannot be written again ({error})."
            )
        why = f"does not take them ({sender.trouble})" if sender.trouble else f"was still at work ({sender.outcome})"
        return (
            f"{unsent} events are not delivered, because {self.destination} {why}; "
            f"they wait in {path}: `dbnd sync` or the next `dbnd run` sends them."
        )


_outboxes: Final[weakref.WeakSet[Outbox]] = weakref.WeakSet()
# Those with a sender stay until they are closed, whether anybody refers to them or not.
_open: Final[set[Outbox]] = set()


def others_than(client: Outbox | None) -> list[Outbox]:
    """The outboxes of this process beside that of a context's tracker."""
    return [outbox for outbox in list(_outboxes) if outbox is not client]


def close_all() -> None:
    """Drain and close every client of this process; called at its exit, and harmless when repeated.

    What is logged from then on, by handlers and threads that end later, is delivered by the log call itself.
    """
    Outbox.is_over = True
    # What a plugin delivers elsewhere, it may tell a tracker of.
    for outbox in sorted(_outboxes, key=lambda each: type(each) is not Outbox):
        try:
            problem = outbox.close()
        except Exception as error:  # noqa: BLE001  a transport may come from a plugin; the others end, too
            problem = f"The client of {outbox.destination} did not end as it should ({type(error).__name__}: {error})."
        if problem:
            console.warning(problem)


def _close_at_exit_of_child() -> None:
    """A child of multiprocessing leaves by ``os._exit``, without ``atexit``; its own finalizers do run."""
    multiprocessing = sys.modules.get("multiprocessing.process")
    if multiprocessing is not None and multiprocessing.parent_process() is not None:
        from multiprocessing import util

        util.Finalize(None, close_all, exitpriority=-1)


atexit.register(close_all)
