"""The clock by which we wait."""

from __future__ import annotations

from time import CLOCK_MONOTONIC, clock_gettime


def monotonic() -> float:
    """Seconds that only go on.

    Test suites stop ``time.monotonic`` together with the date, and whoever waits by it then waits for ever.
    """
    return clock_gettime(CLOCK_MONOTONIC)
