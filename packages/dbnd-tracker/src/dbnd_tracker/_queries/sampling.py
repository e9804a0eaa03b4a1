"""Down-sampling: which points of a long history show its shape.

MinMaxLTTB keeps the extremes of each stretch, and of them those that a line through few points needs most.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from dbnd_tracker._queries.metrics import find_series, metric_point, points_query
from dbnd_tracker._storage.models import Metric
from dbnd_tracker._views import MetricHistory

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from dbnd_tracker._queries.arrays import Array, SeriesCache

LEAST: Final = 10
"""Fewest points that a history is sampled to."""

# Of the points that are shown, at most every fourth marks where numbers end or begin.
_GAPS: Final = 4
# Numbers in one IN list.
_CHUNK: Final = 1_000


def sampled_history(session: Session, cache: SeriesCache, task_run_uid: str, key: str, samples: int) -> MetricHistory:
    """Points of one metric that show the shape of its whole history, in the order in which they came.

    Args:
        session: Where to read.
        cache: What was read before.
        task_run_uid: The task run.
        key: The metric.
        samples: How many points at most; all if there are no more.
    """
    series = find_series(session, task_run_uid, key)
    if series is None:
        return MetricHistory(task_run_uid=task_run_uid, key=key, data=[], after=None, total=0)
    with cache.columns(session, series, only_values=True) as columns:
        values = columns.value[: series.points]
    numbers = (sampled_places(values, samples) + 1).tolist()
    parts = [numbers[start : start + _CHUNK] for start in range(0, len(numbers), _CHUNK)]
    data = [
        metric_point(row)
        for part in parts
        for row in session.execute(points_query(series.id).where(Metric.number.in_(part)))
    ]
    return MetricHistory(task_run_uid=task_run_uid, key=key, data=data, after=None, total=series.points)


def sampled_places(values: Array, count: int) -> Array:
    """Places of the values that show the shape of a series, rising.

    NaN, infinities and values that are no numbers have no place in a shape. They are not hidden by it: where a stretch
    of them begins and ends, its first and last point are shown.

    Args:
        values: All values of the series, not finite where they are no numbers.
        count: How many points at most, ``LEAST`` or more.
    """
    if len(values) <= count:
        return np.arange(len(values))
    finite = np.isfinite(values)
    if finite.all():
        return _shape(np.arange(len(values)), values, count)
    borders = _borders(finite, count // _GAPS)
    places = np.flatnonzero(finite)
    return np.union1d(borders, _shape(places, values[places], count - len(borders)))


def _shape(places: Array, values: Array, count: int) -> Array:
    """Those of ``places`` that show the shape of the finite ``values`` there."""
    from tsdownsample import MinMaxLTTBDownsampler

    if len(places) <= count:
        return places
    sampler: Any = MinMaxLTTBDownsampler
    chosen: Array = places[sampler().downsample(places, values, n_out=count)]
    return chosen


def _borders(finite: Array, count: int) -> Array:
    """First and last place of each stretch that is not finite; of too many, some all along."""
    is_border = ~finite
    inner = is_border[1:-1] & is_border[:-2] & is_border[2:]
    is_border[1:-1] &= ~inner
    found: Array = np.flatnonzero(is_border)
    return found if len(found) <= count else found[np.linspace(0, len(found) - 1, count).astype(int)]
