"""Metric histories as charts draw them: any part of a series in as many values as a chart has pixels.

A chart that is zoomed asks for one part after another of the same points. They are therefore read once and kept in
compact arrays, over which a part is found by bisection and its buckets by ``min``, ``max`` and ``sum``: a million
points take half a second or so when they are read, and some milliseconds afterwards.
"""

from __future__ import annotations

import math
import threading
from array import array
from bisect import bisect_left, bisect_right
from collections import OrderedDict
from dataclasses import dataclass, field
from itertools import islice
from operator import le
from typing import TYPE_CHECKING, Any, Final, Literal, cast

from sqlalchemy import select

from dbnd_tracker._models import Attempt, Metric, MetricKey, MetricSeries
from dbnd_tracker._values import Kind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Table
    from sqlalchemy.orm import Session

Axis = Literal["step", "time"]

# The bare table: a million rows are too many to go through the ORM's hands.
_METRICS: Final = cast("Table", Metric.__table__)
_CHUNK: Final = 20_000
# 25 bytes each.
_MAX_KEPT: Final = 4_000_000


@dataclass(frozen=True, slots=True)
class Sample:
    """A part of a series.

    Args:
        axis: What ``x`` is: ``step``; ``index``, the number of the point, where points have no step; or ``time``,
            milliseconds since the epoch.
        points: How many points the whole series has.
        texts: How many of them are no numbers.
        extent: Smallest and largest x of the whole series, or None when it has no numbers.
        exact: Whether the values are the points themselves; otherwise each stands for the points of a bucket.
        x: Where the values are, rising.
        y: The values, or the means of the buckets; None where there are only NaN and infinities.
        low: Smallest value of each bucket; empty if ``exact``.
        high: Largest value of each bucket; empty if ``exact``.
        counts: Number of points in each bucket; empty if ``exact``.
        gaps: Places of NaN and infinities, at most one of each name for each bucket, and their names.
    """

    axis: str
    points: int
    texts: int
    extent: tuple[float, float] | None
    exact: bool
    x: list[float] = field(default_factory=list)
    y: list[float | None] = field(default_factory=list)
    low: list[float | None] = field(default_factory=list)
    high: list[float | None] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    gaps: list[tuple[float, str]] = field(default_factory=list)


@dataclass(slots=True)
class _Line:
    """The points of a series along one axis, those without a finite value apart."""

    x: Sequence[float]
    y: Sequence[float]
    gap_x: list[float]
    gap_names: list[str]

    def extent(self) -> tuple[float, float] | None:
        ends = [x[i] for x in (self.x, self.gap_x) if x for i in (0, -1)]
        return (float(min(ends)), float(max(ends))) if ends else None


@dataclass(slots=True)
class _Points:
    """All points of a series in the order in which they came."""

    texts: int = 0
    has_steps: bool = True
    steps: array[int] = field(default_factory=lambda: array("q"))
    times: array[int] = field(default_factory=lambda: array("q"))
    values: array[float] = field(default_factory=lambda: array("d"))
    lines: dict[str, _Line] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __len__(self) -> int:
        return len(self.values) + self.texts

    def read(self, session: Session, series_id: int) -> None:
        """Read what has come since the last time."""
        # Points are numbered in the order in which their transactions end, so that none comes before the last one read.
        wanted = (
            select(*(_METRICS.c[name] for name in ("step", "timestamp_us", "value", "kind")))
            .where(_METRICS.c.series_id == series_id, _METRICS.c.number > len(self))
            .order_by(_METRICS.c.number)
        )
        result = session.connection().execute(wanted.execution_options(yield_per=_CHUNK))
        for rows in result.partitions():
            steps, times, values, kinds = zip(*rows, strict=True)
            self.lines.clear()
            if max(kinds) > Kind.INT:
                numbers = [row[:3] for row in rows if row[3] <= Kind.INT]
                self.texts += len(rows) - len(numbers)
                steps, times, values = zip(*numbers, strict=True) if numbers else ((), (), ())
            self.has_steps = self.has_steps and None not in steps
            if self.has_steps:
                self.steps.extend(steps)
            self.times.extend(times)
            self.values.extend(values if None not in values else (math.nan if v is None else v for v in values))

    def line(self, axis: str) -> _Line:
        if axis not in self.lines:
            self.lines[axis] = self._make_line(axis)
        return self.lines[axis]

    def _make_line(self, axis: str) -> _Line:
        xs: Sequence[float] = range(len(self.values))
        if axis != "index":
            xs = self.steps if axis == "step" else self.times
        ys: Sequence[float] = self.values
        if not all(map(le, xs, islice(xs, 1, None))):
            order = sorted(range(len(xs)), key=xs.__getitem__)
            xs, ys = [xs[i] for i in order], array("d", (ys[i] for i in order))
        gap_x: list[float] = []
        names: list[str] = []
        if not all(map(math.isfinite, ys)):
            for x, y in zip(xs, ys, strict=True):
                if not math.isfinite(y):
                    gap_x.append(x)
                    names.append(_name(y))
            kept = [i for i, y in enumerate(ys) if math.isfinite(y)]
            xs, ys = [xs[i] for i in kept], array("d", (ys[i] for i in kept))
        return _Line(xs, ys, gap_x, names)


def _name(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    return "Infinity" if value > 0 else "-Infinity"


@dataclass(frozen=True, slots=True)
class Series:
    """A series as it stands in the database."""

    id: int
    attempt_uid: str
    points: int


def find_series(session: Session, task_run_uid: str, key: str) -> Series | None:
    """The series of one metric of a task run: of several attempts' the latest; None when there is none."""
    wanted = (
        select(MetricSeries.id, Attempt.uid, MetricSeries.points)
        .join(MetricKey, MetricKey.id == MetricSeries.key_id)
        .join(Attempt, Attempt.id == MetricSeries.attempt_id)
        .where(Attempt.task_run_uid == task_run_uid, MetricKey.name == key, MetricSeries.points > 0)
        .order_by(Attempt.number.desc().nulls_last(), Attempt.id.desc())
        .limit(1)
    )
    row = session.execute(wanted).first()
    return None if row is None else Series(*row)


class SeriesCache:
    """The series that charts have asked for lately; any number of threads may use it.

    Args:
        max_points: How many points are kept at most, of all series together.
    """

    def __init__(self, max_points: int = _MAX_KEPT) -> None:
        self._max_points = max_points
        self._kept: OrderedDict[tuple[int, str], _Points] = OrderedDict()
        self._lock = threading.Lock()

    def sample(
        self,
        session: Session,
        series: Series,
        *,
        axis: Axis = "step",
        first: float | None = None,
        last: float | None = None,
        values: int = 1_000,
    ) -> Sample:
        """A part of a series.

        Args:
            session: Where to read.
            series: The series.
            axis: What the part is a part of.
            first: Smallest x, in steps or in milliseconds since the epoch; None for the series' own.
            last: Largest x; None for the series' own.
            values: How many values at most, but for one on either side of the part, so that lines leave the picture.
        """
        # An id may come again after rows were deleted; the uid of the attempt does not.
        key = series.id, series.attempt_uid
        with self._lock:
            points = self._kept.setdefault(key, _Points())
            self._kept.move_to_end(key)
        with points.lock:
            if len(points) < series.points:
                points.read(session, series.id)
            named = "index" if axis == "step" and not points.has_steps else str(axis)
            found = _sample(points, named, first, last, values)
        with self._lock:
            while len(self._kept) > 1 and sum(len(kept) for kept in self._kept.values()) > self._max_points:
                self._kept.popitem(last=False)
        return found


def _sample(points: _Points, axis: str, first: float | None, last: float | None, values: int) -> Sample:
    line = points.line(axis)
    unit = 1_000 if axis == "time" else 1
    start = -math.inf if first is None else first * unit
    end = math.inf if last is None else last * unit
    i, j = bisect_left(line.x, start), bisect_right(line.x, end)
    gap_i, gap_j = bisect_left(line.gap_x, start), bisect_right(line.gap_x, end)
    extent = line.extent()
    facts: dict[str, Any] = {
        "axis": axis,
        "points": len(points),
        "texts": points.texts,
        "extent": None if extent is None else (extent[0] / unit, extent[1] / unit),
    }
    inner = (i, j, gap_i, gap_j)
    if j - i + gap_j - gap_i <= values:
        return _exact(line, inner, unit, facts)
    return _bucketed(line, inner, unit, values, facts)


def _exact(line: _Line, inner: tuple[int, int, int, int], unit: int, facts: dict[str, Any]) -> Sample:
    i, j, gap_i, gap_j = inner
    i, j = max(i - 1, 0), min(j + 1, len(line.x))
    gaps = [(line.gap_x[g] / unit, line.gap_names[g]) for g in range(gap_i, gap_j)]
    shown: list[tuple[float, float | None]] = [(line.x[k] / unit, line.y[k]) for k in range(i, j)]
    shown += [(x, None) for x, _ in gaps]
    shown.sort(key=lambda point: point[0])
    return Sample(**facts, exact=True, x=[x for x, _ in shown], y=[y for _, y in shown], gaps=gaps)


def _bucketed(line: _Line, inner: tuple[int, int, int, int], unit: int, values: int, facts: dict[str, Any]) -> Sample:
    i, j, gap_i, gap_j = inner
    found = Sample(**facts, exact=False)
    ends = [x[k] for x, a, b in ((line.x, i, j), (line.gap_x, gap_i, gap_j)) if b > a for k in (a, b - 1)]
    start, width = min(ends), (max(ends) - min(ends)) / values
    if i > 0:
        _add(found, line.x[i - 1] / unit, line.y[i - 1 : i])
    at, gap_at = i, gap_i
    for bucket in range(1, values + 1):
        edge = start + bucket * width
        is_last = bucket == values
        following = j if is_last else bisect_left(line.x, edge, at, j)
        gap_following = gap_j if is_last else bisect_left(line.gap_x, edge, gap_at, gap_j)
        gaps = {line.gap_names[g]: line.gap_x[g] / unit for g in range(gap_following - 1, gap_at - 1, -1)}
        found.gaps.extend((x, name) for name, x in sorted(gaps.items(), key=lambda gap: gap[1]))
        if following > at:
            _add(found, (line.x[at] + line.x[following - 1]) / 2 / unit, line.y[at:following])
        elif gaps:
            _add(found, min(gaps.values()), ())
        at, gap_at = following, gap_following
    if j < len(line.x):
        _add(found, line.x[j] / unit, line.y[j : j + 1])
    return found


def _add(found: Sample, x: float, part: Sequence[float]) -> None:
    found.x.append(x)
    found.counts.append(len(part))
    if not part:
        for values in (found.y, found.low, found.high):
            values.append(None)
        return
    low, high = min(part), max(part)
    mean = sum(part) / len(part)
    if not math.isfinite(mean):  # the sum is larger than a double can be
        mean = sum(value / len(part) for value in part)
    found.y.append(min(max(mean, low), high))
    found.low.append(low)
    found.high.append(high)
