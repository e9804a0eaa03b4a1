"""Down-sampling: which points of a long history show its shape.

MinMaxLTTB keeps the extremes of each stretch, and of them those that a line through few points needs most.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from dbnd_tracker._queries.arrays import Array

LEAST: Final = 10
"""Fewest points that a history is sampled to."""

# Of the points that are shown, at most every fourth marks where numbers end or begin.
_GAPS: Final = 4


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
