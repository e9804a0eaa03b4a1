"""Long histories in few values: parts of a series as charts draw them, and the points that show the shape of all."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

import numpy as np

from dbnd_tracker._queries.points.metrics import find_series, metric_points
from dbnd_tracker._storage.encoding import Kind
from dbnd_tracker._storage.points.segments import KIND, NO_STEP
from dbnd_tracker._views import MetricHistory

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from dbnd_tracker._queries.points.arrays import Kept, SeriesCache
    from dbnd_tracker._queries.points.metrics import Series
    from dbnd_tracker._storage.points.segments import Array, Points

Axis = Literal["step", "time"]

_NAMES: Final = ("NaN", "Infinity", "-Infinity")
# Of the points that are shown, at most every fourth marks where numbers end or begin.
_GAPS: Final = 4
LEAST: Final = 10
"""Fewest points that a history is sampled to."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A part of a series: its points, or buckets of them."""

    axis: str
    """What ``x`` is: step; index, the number of the point, where points have no step; time in ms since the epoch."""
    points: int
    """How many points the whole series has."""
    texts: int
    """How many of them are no numbers."""
    extent: tuple[float, float] | None
    """Smallest and largest x of the whole series, or None when it has no numbers."""
    last: float | None
    """The value at the largest x that has a finite one."""
    exact: bool
    """Whether the values are the points themselves; otherwise each stands for the points of a bucket."""
    x: list[float]
    y: list[float | None]
    """The values, or the means of the buckets; None where there are only NaN and infinities."""
    gaps: list[tuple[float, str]]
    """Places of NaN and infinities, at most one of each name for each bucket, and their names."""
    low: list[float | None] = field(default_factory=list)
    """Smallest value of each bucket, if these are buckets."""
    high: list[float | None] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)


class _Line(NamedTuple):
    """The numbers of a series along one axis, rising, those without a finite value apart."""

    axis: str
    points: int
    texts: int
    x: Array
    y: Array
    gap_x: Array
    gap_names: Array
    """Places in ``_NAMES``."""


def _line(points: Points, axis: Axis) -> _Line:
    numbers = np.flatnonzero((points.flags & KIND) <= Kind.INT)
    values = points.value[numbers]
    name: str = axis
    if axis == "step" and (points.flags & NO_STEP).any():
        name, xs = "index", np.arange(len(numbers))
    else:
        xs = (points.step if axis == "step" else points.timestamp_us)[numbers]
    if (xs[1:] < xs[:-1]).any():
        order = np.argsort(xs, kind="stable")
        xs, values = xs[order], values[order]
    finite = np.isfinite(values)
    gaps = values[~finite]
    gap_names = np.where(np.isnan(gaps), 0, np.where(gaps > 0, 1, 2))
    size = points.size
    return _Line(name, size, size - len(numbers), xs[finite], values[finite], xs[~finite], gap_names)


def _kept_line(kept: Kept, axis: Axis) -> _Line:
    if axis not in kept.derived:
        kept.derived[axis] = _line(kept.points, axis)
    line: _Line = kept.derived[axis]
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
    """A part of a series as a chart draws it, in so many values at most, but for one on either side of the part.

    ``first`` and ``last`` are steps, or milliseconds since the epoch; without them it is all the series.
    """
    with cache.series(session, series) as kept:
        line = _kept_line(kept, axis)
    return _sample(line, first, last, values)


def _sample(line: _Line, first: float | None, last: float | None, values: int) -> Sample:
    unit = 1_000 if line.axis == "time" else 1
    low, high = -math.inf if first is None else first * unit, math.inf if last is None else last * unit
    inner, gaps = (
        slice(int(np.searchsorted(x, low, "left")), int(np.searchsorted(x, high, "right")))
        for x in (line.x, line.gap_x)
    )
    extent = _ends(line.x, line.gap_x)
    about: dict[str, Any] = {
        "axis": line.axis,
        "points": line.points,
        "texts": line.texts,
        "extent": (extent[0] / unit, extent[1] / unit) if extent else None,
        "last": float(line.y[-1]) if len(line.y) else None,
    }
    if inner.stop - inner.start + gaps.stop - gaps.start <= values:
        outer = slice(max(inner.start - 1, 0), inner.stop + 1)
        gap_xs = (line.gap_x[gaps] / unit).tolist()
        shown = [*zip((line.x[outer] / unit).tolist(), line.y[outer].tolist(), strict=True)]
        shown = sorted([*shown, *((x, None) for x in gap_xs)], key=lambda point: point[0])
        about |= {"x": [x for x, _ in shown], "y": [y for _, y in shown]}
        return Sample(**about, exact=True, gaps=_named(gap_xs, line.gap_names[gaps]))
    x, y, gap_x, gap_names = line.x[inner], line.y[inner], line.gap_x[gaps], line.gap_names[gaps]
    start, end = _ends(x, gap_x)
    edges = start + (end - start) / values * np.arange(1, values)
    rows = _buckets(x, y, edges, unit)
    # The first gap of each name in each bucket.
    buckets = np.searchsorted(edges, gap_x, "right")
    _, firsts = np.unique(buckets * len(_NAMES) + gap_names, return_index=True)
    firsts.sort()
    gap_xs = (gap_x[firsts] / unit).tolist()
    for bucket, place in zip(buckets[firsts].tolist(), gap_xs, strict=True):
        rows.setdefault(bucket, (place, None, None, None, 0))
    # A value on either side, so that lines leave the picture.
    for bucket, outer_place in ((-1, inner.start - 1), (values, inner.stop)):
        if 0 <= outer_place < len(line.x):
            value = float(line.y[outer_place])
            rows[bucket] = (float(line.x[outer_place]) / unit, value, value, value, 1)
    columns = zip(*(rows[bucket] for bucket in sorted(rows)), strict=True)
    about.update(zip(("x", "y", "low", "high", "counts"), map(list, columns), strict=True))
    return Sample(**about, exact=False, gaps=_named(gap_xs, gap_names[firsts]))


def _ends(*xs: Array) -> tuple[float, ...]:
    """Smallest and largest of rising numbers, or nothing."""
    ends = [float(x[place]) for x in xs if len(x) for place in (0, -1)]
    return (min(ends), max(ends)) if ends else ()


def _named(xs: list[float], names: Array) -> list[tuple[float, str]]:
    return [(x, _NAMES[name]) for x, name in zip(xs, names.tolist(), strict=True)]


def _buckets(x: Array, y: Array, edges: Array, unit: int) -> dict[int, tuple[Any, ...]]:
    """Middle, mean, smallest and largest value, and number of points, of the buckets that have some."""
    starts = np.concatenate(([0], np.searchsorted(x, edges), [len(x)]))
    counts = np.diff(starts)
    full = np.flatnonzero(counts)
    begins, ends, counts = starts[full], starts[full + 1], counts[full]
    low, high = np.minimum.reduceat(y, begins), np.maximum.reduceat(y, begins)
    with np.errstate(over="ignore", invalid="ignore"):
        means = np.add.reduceat(y, begins) / counts
    for bucket in np.flatnonzero(~np.isfinite(means)):  # the sum is larger than a double can be
        means[bucket] = (y[begins[bucket] : ends[bucket]] / counts[bucket]).sum()
    middles = (x[begins].astype(float) + x[ends - 1]) / 2 / unit
    columns = (middles, np.clip(means, low, high), low, high, counts)
    return dict(zip(full.tolist(), zip(*(column.tolist() for column in columns), strict=True), strict=True))


def sampled_history(session: Session, task_run_uid: str, key: str, samples: int, cache: SeriesCache) -> MetricHistory:
    """Points of one metric, at most ``samples``, that show the shape of its whole history."""
    series = find_series(session, task_run_uid, key)
    if series is None:
        return MetricHistory(task_run_uid=task_run_uid, key=key, data=[], after=None, total=0)
    with cache.series(session, series) as kept:
        points = kept.points.part(0, series.points)
    data = metric_points(points.at(sampled_places(points.value, samples)).rows())
    return MetricHistory(task_run_uid=task_run_uid, key=key, data=data, after=None, total=series.points)


def sampled_places(values: Array, count: int) -> Array:
    """Places of at most ``count`` values that show the shape of a series, rising.

    These are the first and the last number, and the smallest and the largest of each stretch. NaN, infinities and
    values that are no numbers have no place in a shape, but are not hidden by it: where they begin and end is shown.

    Args:
        values: All values of the series, not finite where they are no numbers.
        count: How many, ``LEAST`` or more.
    """
    if len(values) <= count:
        return np.arange(len(values))
    is_gap = ~np.isfinite(values)
    is_inner = is_gap[1:-1] & is_gap[:-2] & is_gap[2:]
    is_gap_end = is_gap.copy()
    is_gap_end[1:-1] &= ~is_inner
    borders = np.flatnonzero(is_gap_end)
    if len(borders) > count // _GAPS:
        borders = borders[np.linspace(0, len(borders) - 1, count // _GAPS).astype(int)]
    numbers = np.flatnonzero(~is_gap)
    if len(numbers) > count - len(borders):
        width = -(-len(numbers) // ((count - len(borders) - 2) // 2))
        stretches = np.pad(values[numbers], (0, -len(numbers) % width), mode="edge").reshape(-1, width)
        starts = np.arange(len(stretches)) * width
        extremes = starts + stretches.argmin(axis=1), starts + stretches.argmax(axis=1)
        numbers = numbers[np.concatenate(([0], *extremes, [len(numbers) - 1]))]
    found: Array = np.union1d(borders, numbers)
    return found
