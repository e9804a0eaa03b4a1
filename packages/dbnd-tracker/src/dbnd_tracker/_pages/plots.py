"""Pictures of runs as points and lines, made in the server: a scatter plot and parallel coordinates."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

from dbnd_tracker._queries.expressions import as_number

WIDTH: Final = 760
HEIGHT: Final = 340
LEFT: Final = 70
RIGHT: Final = 40
TOP: Final = 34
BOTTOM: Final = 40

_TICKS: Final = 5
_CLOSEST: Final = 0.1
_AIR: Final = 0.04
_MAX_LABELS: Final = 12
_LONGEST: Final = 18


class Axis:
    """Places on an axis from 0 to 1: of numbers by their size, of anything else by their order.

    Args:
        values: All values that will be placed.
    """

    def __init__(self, values: Sequence[Any]) -> None:
        numbers = [as_number(value) for value in values]
        finite = [number for number in numbers if number is not None and math.isfinite(number)]
        self._is_numeric = len(finite) == len(values)
        if self._is_numeric:
            self._low, self._high = min(finite, default=0.0), max(finite, default=1.0)
            self.ticks: list[tuple[float, str]] = [(self.place(v), f"{v:.4g}") for v in self._marked(finite)]
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
        half = self._high / 2 - self._low / 2
        return [self._low + 2 * (half * i / (_TICKS - 1)) for i in range(_TICKS)]

    def place(self, value: object) -> float:
        """Where a value stands."""
        if not self._is_numeric:
            last = len(self._order) - 1
            return self._order.index(str(value)) / last if last else 0.5
        number = as_number(value)
        assert number is not None
        span = self._high / 2 - self._low / 2
        return (number / 2 - self._low / 2) / span if span else 0.5


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


@dataclass(frozen=True, slots=True)
class Tick:
    """A labelled place, in pixels."""

    at: float
    label: str


@dataclass(frozen=True, slots=True)
class Dot:
    """A run as a point, in pixels; ``run`` is its place among the runs compared."""

    run: int
    x: float
    y: float
    title: str


@dataclass(frozen=True, slots=True)
class Scatter:
    """A scatter plot, in pixels."""

    dots: list[Dot]
    x_ticks: list[Tick]
    y_ticks: list[Tick]


def make_scatter(points: Sequence[tuple[int, Any, Any, str]]) -> Scatter | None:
    """The scatter plot of some runs, or None when none has both values.

    Args:
        points: Place of the run, x, y and a title.
    """
    if not points:
        return None
    x_axis, y_axis = Axis([x for _, x, _, _ in points]), Axis([y for _, _, y, _ in points])
    dots = [Dot(run, _x(_inner(x_axis.place(x))), _y(_inner(y_axis.place(y))), title) for run, x, y, title in points]
    x_ticks = [Tick(_x(_inner(at)), label) for at, label in x_axis.ticks]
    return Scatter(dots, x_ticks, [Tick(_y(_inner(at)), label) for at, label in y_axis.ticks])


def _inner(place: float) -> float:
    """A place with some air around, so that no dot lies on an axis or its labels."""
    return _AIR + place * (1 - 2 * _AIR)


@dataclass(frozen=True, slots=True)
class VerticalAxis:
    """An axis of parallel coordinates, in pixels."""

    x: float
    title: str
    ticks: list[Tick]


@dataclass(frozen=True, slots=True)
class Path:
    """A run as a line through all axes; ``run`` is its place among the runs compared."""

    run: int
    path: str
    title: str


@dataclass(frozen=True, slots=True)
class Parallel:
    """Parallel coordinates, in pixels."""

    axes: list[VerticalAxis]
    paths: list[Path]


def make_parallel(names: Sequence[str], lines: Sequence[tuple[int, Sequence[Any], str]]) -> Parallel | None:
    """Parallel coordinates of some runs, or None when there are too few axes or lines to see anything.

    Args:
        names: What the axes show.
        lines: Place of the run, its value on each axis, and a title.
    """
    if len(names) < 2 or len(lines) < 2:
        return None
    scales = [Axis([values[i] for _, values, _ in lines]) for i in range(len(names))]
    xs = [round(LEFT + i * (WIDTH - LEFT - RIGHT) / (len(names) - 1), 1) for i in range(len(names))]
    axes = [
        VerticalAxis(x, _cut(name), [Tick(_y(at), label) for at, label in scale.ticks])
        for x, name, scale in zip(xs, names, scales, strict=True)
    ]
    paths = []
    for run, values, title in lines:
        ys = [_y(scale.place(value)) for scale, value in zip(scales, values, strict=True)]
        paths.append(Path(run, "M" + "L".join(f"{x} {y}" for x, y in zip(xs, ys, strict=True)), title))
    return Parallel(axes, paths)


def _x(place: float) -> float:
    return round(LEFT + place * (WIDTH - LEFT - RIGHT), 1)


def _y(place: float) -> float:
    return round(HEIGHT - BOTTOM - place * (HEIGHT - TOP - BOTTOM), 1)
