"""What a forked child must renew: locks that a thread of the parent may have held, and what belongs to the parent."""

from __future__ import annotations

import os
import weakref
from typing import Final, Protocol


class ForkAware(Protocol):
    """An object that renews itself in a forked child."""

    def after_fork(self) -> None:
        """Make new locks, and let go of what belongs to the parent; called in the child, which has one thread."""


_known: Final[weakref.WeakSet[ForkAware]] = weakref.WeakSet()


def renew_after_fork(known: ForkAware) -> None:
    """Have ``known.after_fork()`` called in every forked child, as long as it is alive."""
    _known.add(known)


def _after_fork_in_child() -> None:
    for known in list(_known):
        known.after_fork()


os.register_at_fork(after_in_child=_after_fork_in_child)
