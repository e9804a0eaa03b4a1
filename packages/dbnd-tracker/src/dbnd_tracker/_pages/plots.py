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


def make_scatter(points: Sequence[tuple[int, Any, Any, str]]) -> Scatter | None:
    """The scatter plot of some runs, or None when none has both values.

    Args:
        points: Place of the run, x, y and a title.
    """
    if not points:
        return None
    xs, x_ticks = _axis([x for _, x, _, _ in points])
    ys, y_ticks = _axis([y for _, _, y, _ in points])
    return Scatter(
        [(run, _x(_inner(x)), _y(_inner(y)), title) for (run, _, _, title), x, y in zip(points, xs, ys, strict=True)],
        [(_x(_inner(at)), label) for at, label in x_ticks],
        [(_y(_inner(at)), label) for at, label in y_ticks],
    )


def make_parallel(names: Sequence[str], lines: Sequence[tuple[int, Sequence[Any], str]]) -> Parallel | None:
    """Parallel coordinates of some runs, or None when there are too few axes or lines to see anything.

    Args:
        names: What the axes show.
        lines: Place of the run, its value on each axis, and a title.
    """
    if len(names) < 2 or len(lines) < 2:
        return None
    axes, columns = [], []
    for number, name in enumerate(names):
        places, ticks = _axis([values[number] for _, values, _ in lines])
        x = _x(number / (len(names) - 1))
        axes.append((x, _cut(name), [(_y(at), label) for at, label in ticks]))
        columns.append([f"{x} {_y(place)}" for place in places])
    paths = zip(*columns, strict=True)
    return Parallel(
        axes, [(run, f"M{'L'.join(path)}", title) for (run, _, title), path in zip(lines, paths, strict=True)]
    )


def _axis(values: Sequence[Any]) -> tuple[list[float], Ticks]:
    """Places of values on an axis from 0 to 1, and its labels: numbers by their size, anything else by its order."""
    numbers = [as_number(value) for value in values]
    finite = [number for number in numbers if number is not None and math.isfinite(number)]
    if len(finite) < len(values):
        order = sorted({str(value) for value in values})
        places = {text: place / (len(order) - 1) if len(order) > 1 else 0.5 for place, text in enumerate(order)}
        every = -(-len(order) // _MAX_LABELS)
        return [places[str(value)] for value in values], [(places[text], _cut(text)) for text in order[::every]]
    low, high = min(finite), max(finite)
    half = high / 2 - low / 2  # the difference of the largest floats is none

    def place(number: float) -> float:
        return (number / 2 - low / 2) / half if half else 0.5

    marks = sorted(set(finite))  # the values themselves where they are few and apart, else some at equal distances
    if any(place(b) - place(a) < _CLOSEST for a, b in pairwise(marks)):
        marks = [low + 2 * (half * i / (_TICKS - 1)) for i in range(_TICKS)]
    return [place(number) for number in finite], [(place(mark), f"{mark:.4g}") for mark in marks]


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def _inner(place: float) -> float:
    return _AIR + place * (1 - 2 * _AIR)


def _x(place: float) -> float:
    return round(_LEFT + place * (_WIDTH - _LEFT - _RIGHT), 1)


def _y(place: float) -> float:
    return round(_HEIGHT - _BOTTOM - place * (_HEIGHT - _TOP - _BOTTOM), 1)
