"""What a fork needs: locks that a thread of the parent may hold are made anew, and what is the parent's is let go."""

from __future__ import annotations

import os
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


def around_forks(before: Callable[[], None], after: Callable[[], None]) -> None:
    """Have ``before`` called before each fork, and ``after`` in both processes after it."""
    os.register_at_fork(before=before, after_in_parent=after, after_in_child=after)


@in_children
def _renew() -> None:
    for known in list(_known):
        known.after_fork()
