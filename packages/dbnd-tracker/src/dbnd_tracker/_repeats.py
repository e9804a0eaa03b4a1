"""Points that a series has already: MLflow's database keeps each key, time, step and value once, and so does ours.

A point with a later time than all others, or a higher step, is new, and nearly all points are. For the others the
points of the series are read, as few of them as possible: points lie in the order in which they came, which is nearly
that of their times, so that the smallest and the greatest time and step of each block tell which blocks to read.
"""

from __future__ import annotations

import json
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
# All points of a range at one of many times.
_FOUND: Final = (
    "SELECT timestamp_us, coalesce(step, 0), value, text FROM metrics "
    "WHERE series_id = {0} AND number > {0} AND number <= {0} AND timestamp_us "
)
_AT: Final = {
    "sqlite": f"{_FOUND.format('?')} IN (SELECT value FROM json_each(?))",  # noqa: S608  our own
    "postgresql": f"{_FOUND.format('%s')} = ANY (%s::int8[])",
}


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

    def doubtful(self, identities: Sequence[Identity]) -> list[Identity]:
        """Those of these points that are not new for sure."""
        latest, last = self._latest, self._last
        return [each for each in identities if each[0] <= latest and (each[1], each[0]) <= last]


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
        """Which of these points the series has, and some others that it has."""
        self.extend(connection, known)
        wanted = sorted(wanted, key=itemgetter(0))
        times = [identity[0] for identity in wanted]
        found: set[Identity] = set()
        ranges: list[list[int]] = []  # first block, block after the last one, first place in ``times``, place after
        for block, (earliest, latest, lowest, highest) in enumerate(zip(*self._bounds, strict=True)):
            start, stop = bisect_left(times, earliest), bisect_right(times, latest)
            if not any(lowest <= step <= highest for _, step, _, _ in islice(wanted, start, stop)):
                continue
            if ranges and ranges[-1][1] == block:
                ranges[-1][1:] = block + 1, min(ranges[-1][2], start), max(ranges[-1][3], stop)
            else:
                ranges.append([block, block + 1, start, stop])
        ranges.append([len(self), len(self) + 1, 0, len(times)])  # those that fill no block yet
        for first, end, start, stop in ranges:
            found |= _read(connection, known, first * _BLOCK, end * _BLOCK, times[start:stop])
        return found


def _read(connection: Connection, known: Known, after: int, last: int, times: Sequence[int]) -> set[Identity]:
    """Points of one of these times whose numbers are above ``after``, and at most ``last``."""
    dialect, some = connection.dialect.name, sorted(set(times))
    given: object = some if dialect == "postgresql" else json.dumps(some)
    values = (known.series_id, after, min(last, known.points), given)
    return {(row[0], row[1], row[2], row[3]) for row in connection.exec_driver_sql(_AT[dialect], values)}
