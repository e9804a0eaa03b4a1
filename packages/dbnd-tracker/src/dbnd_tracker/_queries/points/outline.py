"""Charts of series too long to be read: from the heads of their segments, or from the segments that a part touches."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from sqlalchemy import Connection, func, select

from dbnd_tracker._queries.points.lines import Axis, Line, Sample, Spans, ends, line_of, sample_line
from dbnd_tracker._queries.points.metrics import Series
from dbnd_tracker._storage.points.models import Segment
from dbnd_tracker._storage.points.reading import read_points, read_rows

_SIDES: Final = {"step": (Segment.low_step, Segment.high_step), "time": (Segment.low_us, Segment.high_us)}
_COUNTS: Final = (Segment.first, Segment.points, Segment.finite, Segment.stepless, Segment.texts)
_VALUES: Final = tuple(func.coalesce(column, 0) for column in (Segment.low_value, Segment.high_value, Segment.mean))
# Of three segments side by side, the middle one lies wholly in a part that touches all of them.
_LEAST: Final = 3


def chart_outline(
    connection: Connection, series: Series, axis: Axis, first: float | None, last: float | None, values: int
) -> Sample | None:
    """The same as ``chart_sample``, of a series that has segments.

    A part of so many segments that two or more values stand for each is read; otherwise a segment counts as its mean,
    its smallest and its largest value. None is the answer where that does not do, because the segments do not follow
    one another along the axis, or hold texts.
    """
    query = select(*_COUNTS, *_SIDES[axis], *_VALUES).where(Segment.series_id == series.id)
    rows = connection.execute(query.where(Segment.first <= series.sealed).order_by(Segment.first)).all()
    starts, points, finite, stepless, texts, low_x, high_x, low, high, mean = np.array(rows, float).T
    before = np.append(starts - 1, series.sealed).astype(np.int64)
    fresh = line_of(read_rows(connection, series.id, series.sealed, series.points), axis, series.sealed)
    name: str = axis
    if axis == "step" and (stepless.any() or fresh.axis == "index"):
        name, low_x, high_x = "index", starts - 1, starts + points - 2
    follow = np.stack((low_x, high_x), axis=1).ravel()
    in_order = (follow[1:] >= follow[:-1]).all() and (ends(fresh.x, fresh.gap_x) or (math.inf,))[0] >= high_x[-1]
    if texts.any() or fresh.texts or not in_order or (fresh.points and fresh.axis != name):
        return None

    def read(start: int, stop: int) -> Line:
        end = series.points if stop == len(rows) else int(before[stop])
        return line_of(read_points(connection, series.id, int(before[start]), end), axis, int(before[start]))

    unit = 1_000 if axis == "time" else 1
    start = int(np.searchsorted(high_x, -math.inf if first is None else first * unit, "left"))
    stop = max(start, int(np.searchsorted(low_x, math.inf if last is None else last * unit, "right")))
    if stop - start < max(values // 2, _LEAST):
        line = read(max(start - 1, 0), min(stop + 1, len(rows)))
    else:
        some = finite > 0
        gaps = [
            read(place, place + 1) for place in np.flatnonzero(finite < points).tolist() if start <= place < stop
        ] + [fresh]
        columns = ((low_x + high_x) / 2, fresh.x), (mean, fresh.y), (low, fresh.y), (high, fresh.y)
        x, y, lows, highs = (np.concatenate((of_segments[some], of_points)) for of_segments, of_points in columns)
        counts = np.concatenate((finite[some], np.ones(len(fresh.y)))).astype(np.int64)
        gap_x, gap_names = (np.concatenate([getattr(gap, part) for gap in gaps]) for part in ("gap_x", "gap_names"))
        line = Line(name, 0, 0, x, y, gap_x, gap_names, Spans(lows, highs, counts))
    place = max(np.flatnonzero(finite).tolist(), default=-1)
    latest = fresh if len(fresh.y) or place < 0 else read(place, place + 1)
    smallest, largest = ends(follow, fresh.x, fresh.gap_x)
    return sample_line(line, first, last, values)._replace(
        points=series.points,
        texts=0,
        extent=(smallest / unit, largest / unit),
        last=float(latest.y[-1]) if len(latest.y) else None,
    )
