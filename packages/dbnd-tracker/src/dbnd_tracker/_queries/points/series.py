"""Long histories in few values: parts of a series as charts draw them, and the points that show the shape of all."""

from __future__ import annotations

from typing import Final

import numpy as np
from sqlalchemy.orm import Session

from dbnd_tracker._queries.points.arrays import SeriesCache
from dbnd_tracker._queries.points.lines import Axis, Line, Sample, line_of, sample_line
from dbnd_tracker._queries.points.metrics import Series, find_series, metric_points
from dbnd_tracker._queries.points.outline import chart_outline
from dbnd_tracker._storage.points.models import SEGMENT
from dbnd_tracker._storage.points.segments import Array
from dbnd_tracker._views import MetricHistory

# Of the points that are shown, at most every fourth marks where numbers end or begin.
_GAPS: Final = 4
LEAST: Final = 10
"""Fewest points that a history is sampled to."""


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
    many = max(1, values // 2) * SEGMENT  # more than that is not read anew for each chart
    if series.sealed >= many > series.points - series.sealed:
        outline = chart_outline(session.connection(), series, axis, first, last, values)
        if outline is not None:
            return outline
    with cache.series(session, series) as kept:
        if axis not in kept.derived:
            kept.derived[axis] = line_of(kept.points, axis)
        line: Line = kept.derived[axis]
    return sample_line(line, first, last, values)


def sampled_history(session: Session, task_run_uid: str, key: str, samples: int, cache: SeriesCache) -> MetricHistory:
    """Points of one metric, at most ``samples``, that show the shape of its whole history."""
    series = find_series(session, task_run_uid, key)
    if series is None:
        return MetricHistory(task_run_uid=task_run_uid, key=key, data=[], after=None, total=0)
    with cache.series(session, series) as kept:
        points = kept.points.part(0, series.points)
    data = metric_points(points.at(sampled_places(points.value, samples)))
    return MetricHistory(task_run_uid=task_run_uid, key=key, data=data, after=None, total=series.points)


def sampled_places(values: Array, count: int) -> Array:
    """Places of at most ``count`` (``LEAST`` or more) values that show the shape of a series, rising.

    These are the first and the last number, and the smallest and the largest of each stretch. NaN, infinities and
    values that are no numbers, none of which is finite, have no place in a shape, but are not hidden by it: where they
    begin and end is shown.
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
