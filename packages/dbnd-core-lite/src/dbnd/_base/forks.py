"""Forks and threads: what a forked child makes anew, and threads that a process may not get."""

from __future__ import annotations

import importlib
import os
import sys
import threading
import weakref
from collections.abc import Callable
from typing import Final, Protocol


class ForkAware(Protocol):
    """An object that renews itself in a forked child."""

    def after_fork(self) -> None:
        """Make new locks, and let go of what belongs to the parent; called in the child, which has one thread."""


_known: Final[weakref.WeakSet[ForkAware]] = weakref.WeakSet()


def renew_after_fork(known: ForkAware) -> None:
    """Have ``known.after_fork()`` called in every forked child, as long as it is alive."""
    _known.add(known)


def in_children(function: Callable[[], None]) -> Callable[[], None]:
    """Have ``function`` called in every forked child; a decorator."""
    os.register_at_fork(after_in_child=function)
    return function


@in_children
def _forget_unfinished_imports() -> None:
    """Import anew what a thread of the parent was importing.

    Each module has a lock while it is imported. A child inherits those of threads that it does not have: Python itself
    would wait for them for good. Our senders import in the background, and MLflow
    looks for optional modules in most of its calls.
    """
    locks = importlib._bootstrap._module_locks  # type: ignore[attr-defined]  # noqa: SLF001  nothing public knows
    for name, reference in locks.copy().items():
        lock = reference()
        if lock is not None and lock.owner not in {None, threading.get_ident()}:
            del locks[name]
            spec = getattr(sys.modules.get(name), "__spec__", None)
            if getattr(spec, "_initializing", False):
                del sys.modules[name]


@in_children
def _renew() -> None:
    for known in list(_known):
        known.after_fork()


def start(thread: threading.Thread) -> bool:
    """Start a thread; False where there can be no more of them, or the interpreter is going down."""
    try:
        thread.start()
    except RuntimeError:
        return False
    return True
