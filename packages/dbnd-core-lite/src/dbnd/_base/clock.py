"""Times: the clock of the calendar, and the one by which we wait."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from time import CLOCK_MONOTONIC, clock_gettime
from typing import Final

EPOCH: Final = datetime(1970, 1, 1, tzinfo=timezone.utc)
_MICROSECOND: Final = timedelta(microseconds=1)


def utc_now() -> datetime:
    """The time, with its zone."""
    return datetime.now(timezone.utc)


def micros(time: datetime) -> int:
    """``time`` in µs since the epoch."""
    return (time - EPOCH) // _MICROSECOND


# The first and the last time of the calendar, in µs since the epoch.
EARLIEST: Final = micros(datetime.min.replace(tzinfo=timezone.utc))
LATEST: Final = micros(datetime.max.replace(tzinfo=timezone.utc))


def time_of(time_us: float) -> datetime:
    """A time in µs since the epoch, with its zone; one beyond the calendar becomes its nearest day."""
    return EPOCH + timedelta(microseconds=min(max(int(time_us), EARLIEST), LATEST))


def monotonic() -> float:
    """Seconds that only go on.

    Test suites stop ``time.monotonic`` together with the date, and whoever waits by it then waits for ever.
    """
    return clock_gettime(CLOCK_MONOTONIC)
