"""Series as charts draw them: their numbers along an axis, and a part of these in few values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final, Literal, NamedTuple

import numpy as np

from dbnd_tracker._storage.encoding import Kind
from dbnd_tracker._storage.points.segments import KIND, NO_STEP, Array, Points

Axis = Literal["step", "time"]

_NAMES: Final = ("NaN", "Infinity", "-Infinity")


class Sample(NamedTuple):
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
    low: Sequence[float | None] = ()
    """Smallest value of each bucket, if these are buckets."""
    high: Sequence[float | None] = ()
    counts: Sequence[int] = ()


class Line(NamedTuple):
    """The numbers of a series along one axis, rising, those without a finite value apart."""

    axis: str
    points: int
    texts: int
    x: Array
    y: Array
    gap_x: Array
    gap_names: Array
    """Places in ``_NAMES``."""
    spans: Spans | None = None
    """Not None if each value of ``x`` and ``y`` stands for many points."""


class Spans(NamedTuple):
    """What the values of a line stand for: ``y`` is the mean of so many points between ``low`` and ``high``."""

    low: Array
    high: Array
    counts: Array


def line_of(points: Points, axis: Axis, before: int = 0) -> Line:
    """The line of these points, of which ``before`` came before the first one."""
    numbers = np.flatnonzero((points.flags & KIND) <= Kind.INT)
    values = points.value[numbers]
    name: str = axis
    if axis == "step" and (points.flags & NO_STEP).any():
        name, xs = "index", np.arange(before, before + len(numbers))
    else:
        xs = (points.step if axis == "step" else points.timestamp_us)[numbers]
    if (xs[1:] < xs[:-1]).any():
        order = np.argsort(xs, kind="stable")
        xs, values = xs[order], values[order]
    finite = np.isfinite(values)
    gaps = values[~finite]
    gap_names = np.where(np.isnan(gaps), 0, np.where(gaps > 0, 1, 2))
    size = points.size
    return Line(name, size, size - len(numbers), xs[finite], values[finite], xs[~finite], gap_names)


def sample_line(line: Line, first: float | None, last: float | None, values: int) -> Sample:
    """A part of a line in so many values at most, but for one on either side of the part."""
    unit = 1_000 if line.axis == "time" else 1
    low, high = -math.inf if first is None else first * unit, math.inf if last is None else last * unit
    inner, gaps = (
        slice(int(np.searchsorted(x, low, "left")), int(np.searchsorted(x, high, "right")))
        for x in (line.x, line.gap_x)
    )
    extent = ends(line.x, line.gap_x)
    about: dict[str, Any] = {
        "axis": line.axis,
        "points": line.points,
        "texts": line.texts,
        "extent": (extent[0] / unit, extent[1] / unit) if extent else None,
        "last": float(line.y[-1]) if len(line.y) else None,
    }
    if line.spans is None and inner.stop - inner.start + gaps.stop - gaps.start <= values:
        outer = slice(max(inner.start - 1, 0), inner.stop + 1)
        gap_xs = (line.gap_x[gaps] / unit).tolist()
        shown = [*zip((line.x[outer] / unit).tolist(), line.y[outer].tolist(), strict=True)]
        shown = sorted([*shown, *((x, None) for x in gap_xs)], key=lambda point: point[0])
        about |= {"x": [x for x, _ in shown], "y": [y for _, y in shown]}
        return Sample(**about, exact=True, gaps=_named(gap_xs, line.gap_names[gaps]))
    x, y, gap_x, gap_names = line.x[inner], line.y[inner], line.gap_x[gaps], line.gap_names[gaps]
    start, end = ends(x, gap_x)
    edges = start + (end - start) / values * np.arange(1, values)
    spans = line.spans and Spans(*(column[inner] for column in line.spans))
    rows = _buckets(x, y, spans, edges, unit)
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


def ends(*xs: Array) -> tuple[float, ...]:
    """Smallest and largest of rising numbers, or nothing."""
    ends = [float(x[place]) for x in xs if len(x) for place in (0, -1)]
    return (min(ends), max(ends)) if ends else ()


def _named(xs: list[float], names: Array) -> list[tuple[float, str]]:
    return [(x, _NAMES[name]) for x, name in zip(xs, names.tolist(), strict=True)]


def _buckets(x: Array, y: Array, spans: Spans | None, edges: Array, unit: int) -> dict[int, tuple[Any, ...]]:
    """Middle, mean, smallest and largest value, and number of points, of the buckets that have some."""
    starts = np.concatenate(([0], np.searchsorted(x, edges), [len(x)]))
    counts = np.diff(starts)
    full = np.flatnonzero(counts)
    begins, ends, counts = starts[full], starts[full + 1], counts[full]
    lows, highs, sums = (y, y, y) if spans is None else (spans.low, spans.high, y * spans.counts)
    if spans is not None:
        counts = np.add.reduceat(spans.counts, begins)
    low, high = np.minimum.reduceat(lows, begins), np.maximum.reduceat(highs, begins)
    with np.errstate(over="ignore", invalid="ignore"):
        means = np.add.reduceat(sums, begins) / counts
    for bucket in np.flatnonzero(~np.isfinite(means)):  # the sum is larger than a double can be
        part = slice(begins[bucket], ends[bucket])
        weights = 1 if spans is None else spans.counts[part]
        means[bucket] = (y[part] / counts[bucket] * weights).sum()
    middles = (x[begins].astype(float) + x[ends - 1]) / 2 / unit
    columns = (middles, np.clip(means, low, high), low, high, counts)
    return dict(zip(full.tolist(), zip(*(column.tolist() for column in columns), strict=True), strict=True))
