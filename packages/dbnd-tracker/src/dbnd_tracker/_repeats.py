"""Points that a series has already: MLflow's database keeps each key, time, step and value once, and so does ours.

A point with a later time than all others, or a higher step, is new, and nearly all points are. For the others the
points of the series are read, as few of them as possible: points lie in the order in which they came, which is nearly
that of their times, so that the smallest and the greatest time and step of each block tell which blocks to read.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left, bisect_right
from itertools import islice
from operator import itemgetter, lt
from typing import TYPE_CHECKING, Final, cast

from sqlalchemy import bindparam, func, select

from dbnd_tracker._models import Metric

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection, Table

    Identity = tuple[int, int, float | None, str | None]
    """Time, step, number and text of a point; a NaN has neither number nor text."""

# Points of a block.
_BLOCK: Final = 4_096
_POINTS: Final = cast("Table", Metric.__table__)
_STEP: Final = func.coalesce(_POINTS.c.step, 0)
_RANGE: Final = (
    _POINTS.c.series_id == bindparam("of"),
    _POINTS.c.number > bindparam("after"),
    _POINTS.c.number <= bindparam("last"),
)
_BOUNDS: Final = select(
    func.min(_POINTS.c.timestamp_us), func.max(_POINTS.c.timestamp_us), func.min(_STEP), func.max(_STEP)
).where(*_RANGE)
_FOUND: Final = select(_POINTS.c.timestamp_us, _STEP, _POINTS.c.value, _POINTS.c.text).where(
    *_RANGE, _POINTS.c.timestamp_us.between(bindparam("earliest"), bindparam("latest"))
)


class Known:
    """What the database has of a series.

    Args:
        series_id: Id of the series.
        points: How many points it has.
        latest_us: Their latest time, or None when there is none.
        last_step: Step of the last value, which is the highest one.
        last_us: Its time.
    """

    def __init__(
        self, series_id: int, points: int, latest_us: int | None, last_step: int | None, last_us: int | None
    ) -> None:
        self.series_id = series_id
        self.points = points
        self._latest: float = -math.inf if latest_us is None else latest_us
        self._last = (-math.inf, -math.inf) if last_us is None else (last_step or 0, last_us)

    def are_new(self, times: Sequence[int], steps: Sequence[int | None]) -> bool:
        """Whether these points are new and different for sure, because their steps or their times rise."""
        if None not in steps:
            known = cast("Sequence[int]", steps)
            if known[0] > self._last[0] and all(map(lt, known, islice(known, 1, None))):
                return True
        return times[0] > self._latest and all(map(lt, times, islice(times, 1, None)))

    def is_new(self, identity: Identity) -> bool:
        """Whether a point is new for sure."""
        time_us, step, _, _ = identity
        return time_us > self._latest or (step, time_us) > self._last


class Blocks:
    """Bounds of the whole blocks of one series."""

    def __init__(self) -> None:
        self._bounds = [array("q") for _ in range(4)]

    def __len__(self) -> int:
        return len(self._bounds[0])

    def extend(self, connection: Connection, known: Known) -> None:
        """Read the bounds of blocks that were filled since the last time. They never change."""
        for block in range(len(self), known.points // _BLOCK):
            place = {"of": known.series_id, "after": block * _BLOCK, "last": (block + 1) * _BLOCK}
            for bound, value in zip(self._bounds, connection.execute(_BOUNDS, place).one(), strict=True):
                bound.append(value)

    def find(self, connection: Connection, known: Known, wanted: Sequence[Identity]) -> set[Identity]:
        """Which of these points the series may have, and some others that it has."""
        self.extend(connection, known)
        wanted = sorted(wanted, key=itemgetter(0))
        times = [identity[0] for identity in wanted]
        found: set[Identity] = set()
        for block, (earliest, latest, lowest, highest) in enumerate(zip(*self._bounds, strict=True)):
            start, stop = bisect_left(times, earliest), bisect_right(times, latest)
            if any(lowest <= step <= highest for _, step, _, _ in islice(wanted, start, stop)):
                found |= _read(connection, known, block * _BLOCK, times[start], times[stop - 1])
        return found | _read(connection, known, len(self) * _BLOCK, times[0], times[-1])


def _read(connection: Connection, known: Known, after: int, earliest: int, latest: int) -> set[Identity]:
    """Points of the block that comes after a number, from one time to another."""
    last = min(after + _BLOCK, known.points)
    place = {"of": known.series_id, "after": after, "last": last, "earliest": earliest, "latest": latest}
    return {(row[0], row[1], row[2], row[3]) for row in connection.execute(_FOUND, place)}
