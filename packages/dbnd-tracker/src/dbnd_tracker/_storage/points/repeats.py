"""Points that a series has already: MLflow's database keeps each key, time, step and value once, and so does ours.

A point with a later time than all others, or a higher step, is new, and nearly all points are. For the others, those
points of the series are read that have the same mark, a few bits of a hash. Each point is read at most once for its
mark. Points lie nearly in the order of their times: the bounds of times and steps of a block tell whether it is needed.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left, bisect_right
from itertools import count, islice
from operator import add, itemgetter
from typing import TYPE_CHECKING, Final

from dbnd_tracker._storage.points.models import SEGMENT

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlalchemy import Connection

    from dbnd_tracker._storage.points.segments import Points

    Identity = tuple[int, int, float | None, str | None]
    """Time, step, number and text of a point; a NaN has neither number nor text."""

# Points of a block.
_BLOCK: Final = SEGMENT
# A mark is so many bits of a hash, and behind it stands the number of the point: both together fill 64 bits.
_MARK: Final = (1 << 28) - 1
_NUMBER_BITS: Final = 36
# Lists of marks that are this many times longer than what is added are not sorted again.
_GROWTH: Final = 8


class Known:
    """What the database has of a series: how many points, their latest time, and step and time of the last value."""

    def __init__(
        self,
        series_id: int,
        points: int,
        sealed: int,
        latest_us: int | None,
        last_step: int | None,
        last_us: int | None,
    ) -> None:
        self.series_id = series_id
        self.points = points
        self.sealed = sealed
        self._latest: float = -math.inf if latest_us is None else latest_us
        self._last = (-math.inf, -math.inf) if last_us is None else (last_step or 0, last_us)

    def are_new(self, times: Sequence[int], steps: Sequence[int]) -> bool:
        """Whether these points are new and different for sure, because their steps or their times rise."""
        return (steps[0] > self._last[0] and _rise(steps)) or (times[0] > self._latest and _rise(times))

    def doubtful(self, identities: Sequence[Identity]) -> list[Identity]:
        """Those of these points that are not new for sure."""
        latest, last = self._latest, self._last
        return [each for each in identities if each[0] <= latest and (each[1], each[0]) <= last]


def _rise(values: Sequence[int]) -> bool:
    """Whether each is greater than the one before; quicker than to compare them one by one."""
    return len(values) == 1 or (sorted(values) == values and len(set(values)) == len(values))


class Seen:
    """What is known of the points of one series, which never change."""

    def __init__(self) -> None:
        self._points = 0  # all up to this number are known: by their marks, or by the bounds of their block
        self._blocks: list[tuple[int, int, int, int, int]] = []  # number before it, and bounds of times and of steps
        self._marks: list[array[int]] = []  # sorted, each much longer than the next

    def size(self) -> int:
        """How many blocks and points it knows."""
        return len(self._blocks) + sum(map(len, self._marks))

    def find(self, connection: Connection, known: Known, identities: Iterable[Identity]) -> set[Identity]:
        if known.points < self._points:  # an older copy of the database was put back
            self._points, self._blocks, self._marks = 0, [], []
        wanted = set(identities)
        found = self._extend(connection, known, wanted)
        found |= self._read_blocks(connection, known, wanted)
        for after in {(number - 1) // _BLOCK * _BLOCK for number in self._numbers(set(map(_mark, wanted - found)))}:
            found |= wanted.intersection(_identities(connection, known, after, after + _BLOCK))
        return found

    def add(self, identities: Iterable[Identity]) -> None:
        """Know points that are about to be added behind those that ``find`` knew of."""
        marks = list(map(add, map(_mark, identities), count(self._points + 1)))
        self._points += len(marks)
        if marks:
            self._keep(marks)

    def _extend(self, connection: Connection, known: Known, wanted: set[Identity]) -> set[Identity]:
        """Get to know what others have added; what fills no block is read."""
        while known.points - self._points >= _BLOCK:
            part = _read(connection, known, self._points, self._points + _BLOCK)
            times, steps = part.timestamp_us, part.step
            bounds = int(times.min()), int(times.max()), int(steps.min()), int(steps.max())
            self._blocks.append((self._points, *bounds))
            self._points += _BLOCK
        after, self._points = self._points, known.points
        return self._read(connection, known, after, known.points, wanted) if after < known.points else set()

    def _read_blocks(self, connection: Connection, known: Known, wanted: set[Identity]) -> set[Identity]:
        """Read the blocks that may have one of these points, and return those that they have."""
        ordered = sorted(wanted, key=itemgetter(0))
        times = [identity[0] for identity in ordered]
        found: set[Identity] = set()
        unread = []
        for block in self._blocks:
            after, earliest, latest, lowest, highest = block
            some = islice(ordered, bisect_left(times, earliest), bisect_right(times, latest))
            if any(lowest <= step <= highest for _, step, _, _ in some):
                found |= self._read(connection, known, after, after + _BLOCK, wanted)
            else:
                unread.append(block)
        self._blocks = unread
        return found

    def _read(
        self, connection: Connection, known: Known, after: int, last: int, wanted: set[Identity]
    ) -> set[Identity]:
        """Mark the points whose numbers are above ``after``, and at most ``last``, and return those that are wanted."""
        identities = _identities(connection, known, after, last)
        self._keep(map(add, map(_mark, identities), count(after + 1)))
        return wanted.intersection(identities)

    def _keep(self, more: Iterable[int]) -> None:
        marks = array("Q", sorted(more))
        while self._marks and len(self._marks[-1]) < _GROWTH * len(marks):
            marks = array("Q", sorted((*self._marks.pop(), *marks)))
        self._marks.append(marks)

    def _numbers(self, wanted: Iterable[int]) -> list[int]:
        """Numbers of the points that have one of these marks."""
        found = []
        for marks in self._marks:
            end = len(marks)
            for mark in wanted:
                place, past = bisect_left(marks, mark), mark + (1 << _NUMBER_BITS)
                while place < end and marks[place] < past:
                    found.append(marks[place] - mark)
                    place += 1
        return found


def _mark(identity: Identity) -> int:
    """The mark of a point, with room for its number."""
    return (hash(identity) & _MARK) << _NUMBER_BITS


def _read(connection: Connection, known: Known, after: int, last: int) -> Points:
    """The points whose numbers are above ``after`` and at most ``last``."""
    from dbnd_tracker._storage.points.reading import read_points  # with NumPy, and seldom needed

    return read_points(connection, known.series_id, after, min(last, known.points))


def _identities(connection: Connection, known: Known, after: int, last: int) -> list[Identity]:
    points = _read(connection, known, after, last)
    _, times, _, numbers, texts = points.columns()
    return list(zip(times, points.step.tolist(), numbers, texts, strict=True))
