"""How a script ends itself: Python tells nobody which ``sys.exit()`` ended it, so that the call has to be watched."""

from __future__ import annotations

import builtins
import functools
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, Final

_EXITS: Final[tuple[tuple[Any, str], ...]] = ((sys, "exit"), (builtins, "exit"), (builtins, "quit"))
# Where the outermost frame stands when the script has come to its end; anywhere else, an exception ended it.
_RETURNS: Final = frozenset({"RETURN_VALUE", "RETURN_CONST"})


class ExitWatch:
    """Notices by which call of ``sys.exit()``, ``exit()`` or ``quit()`` the main thread leaves its script.

    A ``SystemExit`` that is raised by hand is not noticed.
    """

    def __init__(self) -> None:
        self._error: SystemExit | None = None
        self._bottom: FrameType | None = None
        self._watched: list[tuple[Any, str, object, object]] = []

    def start(self) -> None:
        """Watch from now on."""
        for owner, name in _EXITS:
            if (original := getattr(owner, name, None)) is not None:  # python -S has no exit() and quit()
                watching = self._watching(original)
                self._watched.append((owner, name, original, watching))
                setattr(owner, name, watching)

    def stop(self) -> None:
        """Let the functions be what they were, where nobody else has replaced them meanwhile."""
        for owner, name, original, watching in self._watched:
            if getattr(owner, name, None) is watching:
                setattr(owner, name, original)
        self._watched.clear()
        self._error = self._bottom = None

    @property
    def uncaught(self) -> SystemExit | None:
        """What ended the script, once it has ended; None where it was no call, or where that was caught."""
        from opcode import opname

        bottom = self._bottom
        if bottom is None or opname[bottom.f_code.co_code[bottom.f_lasti]] in _RETURNS:
            return None
        return self._error

    def _watching(self, original: Callable[..., object]) -> Callable[..., object]:
        @functools.wraps(original, updated=())
        def leave(*args: object, **kwargs: object) -> object:
            try:
                return original(*args, **kwargs)
            except SystemExit as error:
                if threading.current_thread() is threading.main_thread():
                    self._error, self._bottom = error, _bottom(sys._getframe())  # noqa: SLF001  the one way to it
                raise

        return leave


def _bottom(frame: FrameType) -> FrameType:
    while frame.f_back is not None:
        frame = frame.f_back
    return frame
