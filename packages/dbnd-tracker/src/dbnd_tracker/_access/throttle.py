"""A limit on wrong tokens and passwords, for each address."""

from __future__ import annotations

import ipaddress
import math
import threading
from collections.abc import Callable
from typing import Final

from dbnd.tracking import monotonic

BURST: Final = 20
"""Wrong ones that an address may send at once."""
SECONDS: Final = 3.0
"""After how many seconds it may send a further one."""
_REMEMBERED: Final = 10_000
# What all clients count as whose address is none: those of a socket file, or of a proxy that writes what it likes.
_OTHERS: Final = "others"


class Throttle:
    """Counts wrong tokens and passwords by address, and what was right lately.

    An address that has sent many wrong ones is heard again after a while. Until then it is heard only with what was
    right before, so that clients which share an address with a guesser go on. Of each kind so many are remembered, and
    the oldest make room. ``clock`` tells the time in seconds.
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        # By address, the time at which all that was wrong is forgiven: a number that grows by SECONDS with each.
        self._forgiven: dict[str, float] = {}
        self._right: dict[str, float] = {}

    def wait(self, address: str, hashed: str) -> int:
        """Seconds until the secret with this hash is looked at; 0 is now."""
        with self._lock:
            if hashed in self._right:
                return 0
            left = self._forgiven.get(_network(address), 0.0) - self._clock()
        return max(0, math.ceil(left - (BURST - 1) * SECONDS))

    def note(self, address: str, hashed: str, *, is_right: bool) -> None:
        """Note whether the secret with this hash was right."""
        with self._lock:
            if is_right:
                _remember(self._right, hashed, 0.0)
            else:
                self._right.pop(hashed, None)
                key, now = _network(address), self._clock()
                until = max(self._forgiven.get(key, now), now) + SECONDS
                _remember(self._forgiven, key, min(until, now + BURST * SECONDS))


def _remember(found: dict[str, float], key: str, value: float) -> None:
    found.pop(key, None)  # the one that was remembered last stands last
    found[key] = value
    if len(found) > _REMEMBERED:
        del found[next(iter(found))]


def _network(address: str) -> str:
    """What counts as one address: of version 6 a network of 64 bits, for one client has all of it."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return _OTHERS
    if isinstance(found, ipaddress.IPv4Address):
        return str(found)
    if found.ipv4_mapped:
        return str(found.ipv4_mapped)
    return str(int(found) >> 64)
