"""When a tracker that did not take a batch may be tried again."""

from __future__ import annotations

import random
from typing import Final

from dbnd._base.clock import monotonic
from dbnd._tracking.contracts import UnreachableError

# Seconds after the first failure, doubled by each further one, up to the most.
_LEAST: Final = 0.5
_MOST: Final = 60.0
_MOST_DOUBLINGS: Final = 10
# While somebody waits, a tracker that may be starting up is tried as often as this, in seconds.
_IMPATIENT: Final = 1.0
# Our own, so that the numbers that a training has seeded stay what they are.
_random: Final = random.SystemRandom()


class Backoff:
    """Exponential, with jitter, and never before a tracker's Retry-After."""

    def __init__(self) -> None:
        self.succeeded()

    def succeeded(self) -> None:
        """Forget all failures."""
        self._failures = 0
        self._failed_at = self._until = self._asked_until = 0.0

    def failed(self, error: Exception) -> None:
        """Note a failure."""
        wait = min(_MOST, _LEAST * 2 ** min(self._failures, _MOST_DOUBLINGS))
        wait *= _random.uniform(1, 1.5)  # jitter: many clients must not come back at the same time
        asked = error.retry_after if isinstance(error, UnreachableError) else None
        self._failures += 1
        self._failed_at = monotonic()
        self._asked_until = self._failed_at + asked if asked else 0.0
        self._until = self._asked_until or self._failed_at + wait

    def next_attempt(self, *, impatient: bool) -> float:
        """The time (of ``monotonic``) of the next attempt.

        Args:
            impatient: Whether somebody waits for it. What the tracker has asked for holds all the same.
        """
        if not impatient:
            return self._until
        return max(self._asked_until, min(self._until, self._failed_at + _IMPATIENT))
