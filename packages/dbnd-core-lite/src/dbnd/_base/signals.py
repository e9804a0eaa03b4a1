"""SIGTERM: it ends the run of this process as CANCELLED, with its events delivered, instead of the process at once."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import ClassVar, Final


class TerminatedError(SystemExit):
    """The process was asked to end (SIGTERM); uncaught, it ends the interpreter without a traceback."""

    last: ClassVar[TerminatedError | None] = None
    """The one that was raised in this process, if any."""

    def __init__(self) -> None:
        super().__init__(128 + signal.SIGTERM)  # what a shell shows for a process that SIGTERM has ended

    def __str__(self) -> str:
        return "The process was asked to end (SIGTERM)."


def request_end() -> None:
    """End this process' run as SIGTERM would, if somebody handles that; called in any thread."""
    if _is_handled():
        os.kill(os.getpid(), signal.SIGTERM)


class _HeldAtForks(threading.local):
    """Holds SIGTERM back while a thread forks, as long as our handler is set.

    Python forgets in a new child the signals that have come before it is ready, where a process with a handler would
    otherwise have died of them: a child that is terminated at once would go on.
    """

    is_wanted: ClassVar[bool] = False
    mask: set[int | signal.Signals] | None = None

    def hold(self) -> None:
        if _HeldAtForks.is_wanted:
            self.mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})

    def release(self) -> None:
        mask, self.mask = self.mask, None
        if mask is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def release_in_child(self) -> None:
        """Let the child die of the signal at once: a handler of Python's would have to wait for what it does."""
        _HeldAtForks.is_wanted = False
        if isinstance(signal.getsignal(signal.SIGTERM), _Terminate):
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        self.release()


_held: Final = _HeldAtForks()
os.register_at_fork(before=_held.hold, after_in_parent=_held.release, after_in_child=_held.release_in_child)


class _Terminate:
    """Our handler of SIGTERM, for the process ``owner``; without one it does as if there were no handler."""

    def __init__(self) -> None:
        self.owner: int | None = os.getpid()
        self.blocks = 0  # those within ``sigterm_cancels``, which may end in any order

    def __call__(self, number: int, _: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if os.getpid() != self.owner:
            os.kill(os.getpid(), number)
            return
        TerminatedError.last = TerminatedError()
        raise TerminatedError.last


def _is_handled() -> bool:
    """Whether SIGTERM does anything else in this process than end it."""
    handler = signal.getsignal(signal.SIGTERM)
    if isinstance(handler, _Terminate):
        return handler.owner == os.getpid()
    return handler is not signal.SIG_DFL


@contextmanager
def sigterm_cancels() -> Iterator[bool]:
    """Let SIGTERM raise ``TerminatedError`` in the main thread within the block, and yield whether it does.

    A second one ends the process. Nothing changes where the user has a handler of his own, in other threads than the
    main one, and for forked children, which die of the signal as they would without us.
    """
    terminate, is_handled = signal.getsignal(signal.SIGTERM), _is_handled()
    is_ours = is_handled and isinstance(terminate, _Terminate)
    if threading.current_thread() is not threading.main_thread() or (is_handled and not is_ours):
        yield False
        return
    if not isinstance(terminate, _Terminate) or not is_ours:
        terminate = _Terminate()
        signal.signal(signal.SIGTERM, terminate)
        _HeldAtForks.is_wanted = True
    terminate.blocks += 1
    try:
        yield True
    finally:
        terminate.blocks -= 1
        if not terminate.blocks:
            terminate.owner = None
            _HeldAtForks.is_wanted = False
            # Another thread may end what this one has begun, and cannot set handlers; what stays then does as none.
            in_main = threading.current_thread() is threading.main_thread()
            if in_main and signal.getsignal(signal.SIGTERM) is terminate:
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
