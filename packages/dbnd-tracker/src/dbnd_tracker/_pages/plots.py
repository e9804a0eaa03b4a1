"""Pictures of runs as points and lines, made in the server: a scatter plot and parallel coordinates."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Final, NamedTuple

from dbnd_tracker._queries.expressions import as_number

_WIDTH: Final = 760
_HEIGHT: Final = 340
_LEFT: Final = 70
_RIGHT: Final = 40
_TOP: Final = 34
_BOTTOM: Final = 40
_TICKS: Final = 5
_CLOSEST: Final = 0.1
# Room around the dots, so that none lies on an axis or its labels.
_AIR: Final = 0.04
_MAX_LABELS: Final = 12
_LONGEST: Final = 18

Ticks = list[tuple[float, str]]
"""Places on an axis with their labels."""


class Scatter(NamedTuple):
    """A scatter plot, in pixels."""

    dots: list[tuple[int, float, float, str]]
    """Place of the run among those compared, x, y and title."""
    x_ticks: Ticks
    y_ticks: Ticks


class Parallel(NamedTuple):
    """Parallel coordinates, in pixels."""

    axes: list[tuple[float, str, Ticks]]
    """Its x, title and labels."""
    paths: list[tuple[int, str, str]]
    """Place of the run among those compared, its line and title."""


class _Axis:
    """Places on an axis from 0 to 1: of numbers by their size, of anything else by their order.

    Args:
        values: All values that will be placed.
    """

    def __init__(self, values: Sequence[Any]) -> None:
        numbers = [as_number(value) for value in values]
        finite = [number for number in numbers if number is not None and math.isfinite(number)]
        self._is_numeric = len(finite) == len(values)
        if self._is_numeric:
            self._low, self._high = min(finite), max(finite)
            self.ticks = [(self.place(value), f"{value:.4g}") for value in self._marked(finite)]
        else:
            self._order = sorted({str(value) for value in values})
            every = -(-len(self._order) // _MAX_LABELS)
            self.ticks = [(self.place(value), _cut(value)) for value in self._order[::every]]

    def _marked(self, values: Sequence[float]) -> list[float]:
        """The values themselves where they are few and apart, else some at equal distances."""
        distinct = sorted(set(values))
        places = [self.place(value) for value in distinct]
        if all(b - a >= _CLOSEST for a, b in pairwise(places)):
            return distinct
        half = self._high / 2 - self._low / 2  # the difference of the largest floats is none
        return [self._low + 2 * (half * i / (_TICKS - 1)) for i in range(_TICKS)]

    def place(self, value: object) -> float:
        if not self._is_numeric:
            last = len(self._order) - 1
            return self._order.index(str(value)) / last if last else 0.5
        span = self._high / 2 - self._low / 2
        return ((as_number(value) or 0.0) / 2 - self._low / 2) / span if span else 0.5


def make_scatter(points: Sequence[tuple[int, Any, Any, str]]) -> Scatter | None:
    """The scatter plot of some runs, or None when none has both values.

    Args:
        points: Place of the run, x, y and a title.
    """
    if not points:
        return None
    x_axis, y_axis = _Axis([x for _, x, _, _ in points]), _Axis([y for _, _, y, _ in points])
    return Scatter(
        [(run, _x(_inner(x_axis.place(x))), _y(_inner(y_axis.place(y))), title) for run, x, y, title in points],
        [(_x(_inner(at)), label) for at, label in x_axis.ticks],
        [(_y(_inner(at)), label) for at, label in y_axis.ticks],
    )


def make_parallel(names: Sequence[str], lines: Sequence[tuple[int, Sequence[Any], str]]) -> Parallel | None:
    """Parallel coordinates of some runs, or None when there are too few axes or lines to see anything.

    Args:
        names: What the axes show.
        lines: Place of the run, its value on each axis, and a title.
    """
    if len(names) < 2 or len(lines) < 2:
        return None
    scales = [_Axis(column) for column in zip(*(values for _, values, _ in lines), strict=True)]
    xs = [_x(i / (len(names) - 1)) for i in range(len(names))]
    axes = [
        (x, _cut(name), [(_y(at), label) for at, label in scale.ticks])
        for x, name, scale in zip(xs, names, scales, strict=True)
    ]
    paths = []
    for run, values, title in lines:
        ys = [_y(scale.place(value)) for scale, value in zip(scales, values, strict=True)]
        paths.append((run, "M" + "L".join(f"{x} {y}" for x, y in zip(xs, ys, strict=True)), title))
    return Parallel(axes, paths)


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def _inner(place: float) -> float:
    return _AIR + place * (1 - 2 * _AIR)


def _x(place: float) -> float:
    return round(_LEFT + place * (_WIDTH - _LEFT - _RIGHT), 1)


def _y(place: float) -> float:
    return round(_HEIGHT - _BOTTOM - place * (_HEIGHT - _TOP - _BOTTOM), 1)
