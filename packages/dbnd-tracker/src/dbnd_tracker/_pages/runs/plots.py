"""Pictures of runs as points and lines, made in the server: a scatter plot and parallel coordinates."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Final, Literal, NamedTuple

from dbnd_tracker._queries.language.expressions import as_number

HEIGHT: Final = 340
_WIDTHS: Final = {"scatter": 460, "parallel": 980}
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
_PIXELS_OF_A_CHARACTER: Final = 7
_ORDERS: Final = 1_000
_STEPS: Final = (1, 2, 2.5, 5, 10)

Ticks = list[tuple[float, str]]
"""Places on an axis with their labels."""


class Axis(NamedTuple):
    """An axis from 0 to 1: numbers by their size, or its logarithm, and anything else by its order."""

    scale: Literal["linear", "log", "order"]
    low: float
    high: float
    order: list[str]
    """What stands on it where it is no number, from 0 to 1."""
    ticks: Ticks

    def place(self, value: Any) -> float | None:
        """Where a value stands; None where there is no value."""
        if value is None:
            return None
        if self.scale == "order":
            text = str(value)
            return self.order.index(text) / max(len(self.order) - 1, 1) if text in self.order else None
        number = as_number(value)
        return None if number is None else _share(number, self.low, self.high, self.scale)


class Scatter(NamedTuple):
    """A scatter plot, in pixels."""

    dots: list[tuple[float, float] | None]
    """x and y of each run; None where it lacks a value."""
    x_ticks: Ticks
    y_ticks: Ticks


class DrawnAxis(NamedTuple):
    """An axis of parallel coordinates, in pixels."""

    x: float
    title: str
    ticks: Ticks
    axis: Axis
    brush: tuple[float, float] | None
    """Upper end and height of what is selected on it."""


class Parallel(NamedTuple):
    """Parallel coordinates, in pixels."""

    axes: list[DrawnAxis]
    paths: list[str]
    """The line of each run; empty where fewer than two of its values follow each other."""


def make_axis(values: Sequence[Any]) -> Axis:
    """The axis of these values; None is none, and NaN among numbers has no place."""
    given = [value for value in values if value is not None]
    numbers = [as_number(value) for value in given]
    finite = [number for number in numbers if number is not None and math.isfinite(number)]
    is_text = any(n is None and str(value).lower() != "nan" for n, value in zip(numbers, given, strict=True))
    if is_text or not finite:
        order = sorted({str(value) for value in given})
        every = -(-len(order) // _MAX_LABELS) or 1
        ticks = [(place / max(len(order) - 1, 1), _cut(text)) for place, text in enumerate(order)]
        return Axis("order", 0, 1, order, ticks[::every])
    low, high = min(finite), max(finite)
    scale: Literal["linear", "log"] = "log" if 0 < low <= high / _ORDERS else "linear"
    marks = sorted(set(finite))  # the values themselves where they are few and apart, else round ones
    places = [_share(mark, low, high, scale) for mark in marks]
    if any(b - a < _CLOSEST for a, b in pairwise(places)):
        marks = _decades(low, high) if scale == "log" else _round_marks(low, high)
    return Axis(scale, low, high, [], [(_share(mark, low, high, scale), f"{mark:.4g}") for mark in marks])


def make_scatter(x: Axis, y: Axis, points: Sequence[tuple[Any, Any]]) -> Scatter:
    """The scatter plot of some runs, each with its values on two axes."""
    width = _WIDTHS["scatter"]
    dots: list[tuple[float, float] | None] = []
    for values in points:
        across, up = x.place(values[0]), y.place(values[1])
        dots.append(None if across is None or up is None else (_x(_inner(across), width), _y(_inner(up))))
    return Scatter(
        dots,
        [(_x(_inner(at), width), label) for at, label in x.ticks],
        [(_y(_inner(at)), label) for at, label in y.ticks],
    )


def make_parallel(
    axes: Sequence[tuple[str, Axis, tuple[float, float] | None]], lines: Sequence[Sequence[Any]]
) -> Parallel | None:
    """Parallel coordinates of some runs, or None when there are too few axes or lines to see anything.

    Each axis has a title, and the places between which it is brushed; each line a value for each of them.
    """
    if len(axes) < 2 or len(lines) < 2:
        return None
    width = _WIDTHS["parallel"]
    xs = [_x(number / (len(axes) - 1), width) for number in range(len(axes))]
    longest = int((xs[1] - xs[0]) / _PIXELS_OF_A_CHARACTER)
    drawn = []
    for x, (title, axis, brush) in zip(xs, axes, strict=True):
        ticks = [(_y(at), _cut(label, longest - 2)) for at, label in axis.ticks]
        ends = None if brush is None else (_y(brush[1]) - 2, round(_y(brush[0]) - _y(brush[1]) + 4, 1))
        drawn.append(DrawnAxis(x, _cut(title, longest), ticks, axis, ends))
    paths = []
    for values in lines:
        path, is_open = "", False
        for one, value in zip(drawn, values, strict=True):
            place = one.axis.place(value)
            if place is not None:
                path += f"{'L' if is_open else 'M'}{one.x:g} {_y(place):g}"
            is_open = place is not None
        paths.append(path if "L" in path else "")
    return Parallel(drawn, paths)


def _share(number: float, low: float, high: float, scale: str) -> float:
    if scale == "log":
        first, last = math.log(low), math.log(high)
        return min(max((math.log(number) - first) / (last - first), 0), 1) if number > 0 else 0
    half = high / 2 - low / 2  # the difference of the largest floats is none
    return min(max((number / 2 - low / 2) / half, 0), 1) if half else 0.5


def _decades(low: float, high: float) -> list[float]:
    first, last = math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9)
    every = -(-(last - first + 1) // (_TICKS + 1))
    return [float(f"1e{power}") for power in range(first, last + 1, every)]


def _round_marks(low: float, high: float) -> list[float]:
    least = (high / 2 - low / 2) / _TICKS * 2
    power = math.floor(math.log10(least)) if least else 0
    unit = float(f"1e{power}")
    step = next((part * unit for part in _STEPS if part * unit >= least * 0.999), 0.0)
    if not step or math.isinf(step) or math.isinf(low / step) or math.isinf(high / step):
        return [low, high]
    marks = [number * step for number in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]
    # Of numbers that hardly differ, the ends say more than marks that round to one text.
    return marks if len({f"{mark:.4g}" for mark in marks}) == len(marks) > 1 else [low, high]


def _cut(text: str, longest: int = _LONGEST) -> str:
    return text if len(text) <= longest else f"{text[: max(longest - 1, 1)]}…"


def _inner(place: float) -> float:
    return _AIR + place * (1 - 2 * _AIR)


def _x(place: float, width: int) -> float:
    return round(_LEFT + place * (width - _LEFT - _RIGHT), 1)


def _y(place: float) -> float:
    return round(HEIGHT - _BOTTOM - place * (HEIGHT - _TOP - _BOTTOM), 1)
