"""Series in compact arrays, kept from one question to the next.

A chart that is zoomed, and one that follows a run, ask for the same points again and again. What was read once is kept,
and only what has come since is read.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from sqlalchemy.orm import Session

from dbnd_tracker._queries.points.metrics import Series
from dbnd_tracker._storage.database import GENERATION
from dbnd_tracker._storage.points.reading import read_points
from dbnd_tracker._storage.points.segments import NONE, Points, join

# Of 25 bytes each.
_MAX_KEPT: Final = 4_000_000


class Kept:
    """The points of a series that have been read, and what was made of them."""

    def __init__(self) -> None:
        self.points: Points = NONE
        self.derived: dict[Any, Any] = {}
        """What was made of the points; forgotten when others are added."""
        self.lock = threading.Lock()

    def read(self, session: Session, series: Series) -> None:
        """Read what has come since the last time."""
        # Points are numbered in the order in which their transactions end, so that none comes before the last one read.
        if self.points.size > series.points:  # an older copy of the database was put back
            self.points = NONE
        if self.points.size < series.points:
            self.derived.clear()
            more = read_points(session.connection(), series.id, self.points.size, series.points)
            self.points = join([self.points, more]) if self.points.size else more


class SeriesCache:
    """The series that were asked for lately, up to ``max_points`` in all; any number of threads may use it."""

    def __init__(self, max_points: int = _MAX_KEPT) -> None:
        self._max_points = max_points
        self._kept: OrderedDict[tuple[int, int], Kept] = OrderedDict()
        self._lock = threading.Lock()

    @contextmanager
    def series(self, session: Session, series: Series) -> Iterator[Kept]:
        """The points of a series, for one thread at a time."""
        key = session.info[GENERATION], series.id  # in another file, ids begin anew
        with self._lock:
            kept = self._kept.setdefault(key, Kept())
            self._kept.move_to_end(key)
        with kept.lock:
            kept.read(session, series)
            yield kept
        with self._lock:
            while self._kept and sum(each.points.size for each in self._kept.values()) > self._max_points:
                self._kept.popitem(last=False)
