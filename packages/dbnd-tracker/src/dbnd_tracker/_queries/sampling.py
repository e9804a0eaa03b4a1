"""Down-sampling: which points of a long history show its shape.

MinMaxLTTB keeps the extremes of each stretch, and of them those that a line through few points needs most. Only the
values are read for it, a million in a fraction of a second, and then the points that were chosen.
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any, Final

from dbnd_tracker._drivers import driver_errors

if TYPE_CHECKING:
    import numpy as np
    from sqlalchemy import Connection

    Values = np.ndarray[tuple[int], np.dtype[np.float64]]

LEAST: Final = 10
"""Fewest points that a history is sampled to."""

# NULL, which is NaN or no number, becomes infinite: neither has a place in a shape.
_VALUES: Final = "SELECT ifnull(value, 9e999) FROM metrics WHERE series_id = %d ORDER BY number"
# One array instead of a million rows, each of which would cost the driver a message; without NULL, so that all elements
# have one length in its binary form.
_ARRAY: Final = (
    "SELECT array_agg(coalesce(value, 'NaN') ORDER BY number) FROM metrics "
    "WHERE series_id = %d AND number > %d AND number <= %d"
)
_ARRAY_HEAD: Final = 20
_ARRAY_LENGTH: Final = 2_000_000
# Of the points that are shown, at most every fourth marks where numbers end or begin.
_GAPS: Final = 4


def sampled_numbers(connection: Connection, series_id: int, count: int) -> list[int]:
    """Numbers of the points that show the shape of a series, rising.

    NaN, infinities and values that are no numbers have no place in a shape. They are not hidden by it: where a stretch
    of them begins and ends, its first and last point are shown.

    Args:
        connection: Where to read.
        series_id: The series.
        count: How many points at most, ``LEAST`` or more.
    """
    import numpy as np

    values = _read(connection, series_id)
    if len(values) <= count:
        return list(range(1, len(values) + 1))
    finite = np.isfinite(values)
    if finite.all():
        chosen = _shape(np.arange(len(values)), values, count)
    else:
        borders = _borders(finite, count // _GAPS)
        numbers = np.flatnonzero(finite)
        chosen = np.union1d(borders, _shape(numbers, values[numbers], count - len(borders)))
    return [int(place) + 1 for place in chosen]


def _read(connection: Connection, series_id: int) -> Values:
    """The values of a series in the order in which they came, not finite where they are no numbers."""
    import numpy as np

    if connection.dialect.name == "postgresql":
        return _read_arrays(connection, series_id)
    cursor: Any = connection.exec_driver_sql(_VALUES % series_id).cursor
    return np.fromiter(chain.from_iterable(cursor), np.float64)


def _read_arrays(connection: Connection, series_id: int) -> Values:
    import numpy as np

    element = np.dtype([("length", ">i4"), ("value", ">f8")])
    driver: Any = connection.connection.dbapi_connection
    parts = [np.empty(0)]
    start = 0
    with driver_errors(connection, _ARRAY), driver.cursor(binary=True) as cursor:
        while True:
            result = cursor.execute(_ARRAY % (series_id, start, start + _ARRAY_LENGTH)).pgresult
            data = result.get_value(0, 0)
            if data is None:
                return np.concatenate(parts)
            parts.append(np.frombuffer(data, element, offset=_ARRAY_HEAD)["value"].astype(np.float64))
            start += _ARRAY_LENGTH


def _shape(places: np.ndarray[Any, Any], values: Values, count: int) -> np.ndarray[Any, Any]:
    """Those of ``places`` that show the shape of the finite ``values`` there."""
    from tsdownsample import MinMaxLTTBDownsampler

    if len(places) <= count:
        return places
    sampler: Any = MinMaxLTTBDownsampler
    chosen: np.ndarray[Any, Any] = places[sampler().downsample(places, values, n_out=count)]
    return chosen


def _borders(finite: np.ndarray[Any, Any], count: int) -> np.ndarray[Any, Any]:
    """First and last place of each stretch that is not finite; of too many, some all along."""
    import numpy as np

    is_border = ~finite
    inner = is_border[1:-1] & is_border[:-2] & is_border[2:]
    is_border[1:-1] &= ~inner
    found: np.ndarray[Any, Any] = np.flatnonzero(is_border)
    return found if len(found) <= count else found[np.linspace(0, len(found) - 1, count).astype(int)]
