"""Metric histories as charts draw them: any part of a series in as many values as a chart has pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np

from dbnd_tracker._queries.arrays import NO_STEP, NO_VALUE
from dbnd_tracker._storage.encoding import Kind

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from dbnd_tracker._queries.arrays import Array, Columns, SeriesCache
    from dbnd_tracker._queries.metrics import Series

Axis = Literal["step", "time"]

_KIND: Final = NO_STEP - 1
_NAMES: Final = ("NaN", "Infinity", "-Infinity")
_COLUMNS: Final = ("x", "y", "low", "high", "counts")


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


@dataclass(frozen=True, slots=True)
class _Line:
    """The numbers of a series along one axis, rising, those without a finite value apart.

    Args:
        axis: What ``x`` is.
        points: How many points the series has.
        texts: How many of them are no numbers.
        x: Where there is a finite value.
        y: The value.
        gap_x: Where there is none.
        gap_names: Places in ``_NAMES``.
    """

    axis: str
    points: int
    texts: int
    x: Array
    y: Array
    gap_x: Array
    gap_names: Array

    def part(self, first: float, last: float) -> tuple[slice, slice]:
        """Places of ``x`` and of ``gap_x`` from ``first`` to ``last``."""
        found = [
            slice(int(np.searchsorted(x, first, "left")), int(np.searchsorted(x, last, "right")))
            for x in (self.x, self.gap_x)
        ]
        return found[0], found[1]


def _line(columns: Columns, axis: Axis) -> _Line:
    if axis in columns.derived:
        known: _Line = columns.derived[axis]
        return known
    # Another thread may have read later values, whose steps and times are not read yet.
    points = min(len(columns.value), len(columns.flags))
    values, flags = columns.value[:points], columns.flags[:points]
    numbers = np.flatnonzero((flags & _KIND) <= Kind.INT)
    values, flags = values[numbers], flags[numbers]
    values[(flags & NO_VALUE) != 0] = math.nan
    name: str = axis
    if axis == "step" and (flags & NO_STEP).any():
        name, xs = "index", np.arange(len(numbers))
    else:
        xs = (columns.step if axis == "step" else columns.timestamp_us)[numbers]
    if (xs[1:] < xs[:-1]).any():
        order = np.argsort(xs, kind="stable")
        xs, values = xs[order], values[order]
    finite = np.isfinite(values)
    gaps = values[~finite]
    gap_names = np.where(np.isnan(gaps), 0, np.where(gaps > 0, 1, 2))
    line = _Line(name, points, points - len(numbers), xs[finite], values[finite], xs[~finite], gap_names)
    columns.derived[axis] = line
    return line


def chart_sample(
    session: Session,
    cache: SeriesCache,
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
        cache: What was read before.
        series: The series.
        axis: What the part is a part of.
        first: Smallest x, in steps or in milliseconds since the epoch; None for the series' own.
        last: Largest x; None for the series' own.
        values: How many values at most, but for one on either side of the part, so that lines leave the picture.
    """
    with cache.columns(session, series) as columns:
        line = _line(columns, axis)
    return _sample(line, first, last, values)


def _sample(line: _Line, first: float | None, last: float | None, values: int) -> Sample:
    unit = 1_000 if line.axis == "time" else 1
    inner, gaps = line.part(-math.inf if first is None else first * unit, math.inf if last is None else last * unit)
    ends = [int(x[i]) for x in (line.x, line.gap_x) if len(x) for i in (0, -1)]
    facts: dict[str, Any] = {
        "axis": line.axis,
        "points": line.points,
        "texts": line.texts,
        "extent": (min(ends) / unit, max(ends) / unit) if ends else None,
    }
    if inner.stop - inner.start + gaps.stop - gaps.start <= values:
        return _exact(line, inner, gaps, unit, facts)
    return _bucketed(line, inner, gaps, unit, values, facts)


def _exact(line: _Line, inner: slice, gaps: slice, unit: int, facts: dict[str, Any]) -> Sample:
    outer = slice(max(inner.start - 1, 0), inner.stop + 1)
    gap_xs = (line.gap_x[gaps] / unit).tolist()
    shown: list[tuple[float, float | None]] = [
        *zip((line.x[outer] / unit).tolist(), line.y[outer].tolist(), strict=True),
        *((x, None) for x in gap_xs),
    ]
    shown.sort(key=lambda point: point[0])
    named = [(x, _NAMES[name]) for x, name in zip(gap_xs, line.gap_names[gaps].tolist(), strict=True)]
    return Sample(**facts, exact=True, x=[x for x, _ in shown], y=[y for _, y in shown], gaps=named)


def _bucketed(line: _Line, inner: slice, gaps: slice, unit: int, count: int, facts: dict[str, Any]) -> Sample:
    x, y, gap_x, gap_names = line.x[inner], line.y[inner], line.gap_x[gaps], line.gap_names[gaps]
    ends = [float(xs[i]) for xs in (x, gap_x) if len(xs) for i in (0, -1)]
    start, width = min(ends), (max(ends) - min(ends)) / count
    edges = start + width * np.arange(1, count)
    # The finite values, of the buckets that have some.
    starts = np.concatenate(([0], np.searchsorted(x, edges), [len(x)]))
    counts = np.diff(starts)
    full = np.flatnonzero(counts)
    begins = starts[full]
    low, high = np.minimum.reduceat(y, begins), np.maximum.reduceat(y, begins)
    with np.errstate(over="ignore", invalid="ignore"):
        means = np.add.reduceat(y, begins) / counts[full]
    for bucket in np.flatnonzero(~np.isfinite(means)):  # the sum is larger than a double can be
        means[bucket] = (y[begins[bucket] : begins[bucket] + counts[full][bucket]] / counts[full][bucket]).sum()
    means = np.clip(means, low, high)
    middles = (x[begins].astype(float) + x[starts[full + 1] - 1]) / 2 / unit
    columns = (middles.tolist(), means.tolist(), low.tolist(), high.tolist(), counts[full].tolist())
    rows: dict[int, tuple[Any, ...]] = dict(zip(full.tolist(), zip(*columns, strict=True), strict=True))
    # The first gap of each name in each bucket.
    buckets = np.searchsorted(edges, gap_x, "right")
    _, firsts = np.unique(buckets * len(_NAMES) + gap_names, return_index=True)
    firsts.sort()
    gap_xs = (gap_x[firsts] / unit).tolist()
    for at, place in zip(buckets[firsts].tolist(), gap_xs, strict=True):
        rows.setdefault(at, (place, None, None, None, 0))
    # A value on either side, so that lines leave the picture.
    for at, outer in ((-1, inner.start - 1), (count, inner.stop)):
        if 0 <= outer < len(line.x):
            value = float(line.y[outer])
            rows[at] = (float(line.x[outer]) / unit, value, value, value, 1)
    shown = zip(*(rows[at] for at in sorted(rows)), strict=True)
    named = [(place, _NAMES[name]) for place, name in zip(gap_xs, gap_names[firsts].tolist(), strict=True)]
    facts.update(zip(_COLUMNS, map(list, shown), strict=True))
    return Sample(**facts, exact=False, gaps=named)
