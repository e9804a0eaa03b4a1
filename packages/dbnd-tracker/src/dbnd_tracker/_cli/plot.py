"""A series as a line of braille dots with its axes: the chart of a terminal."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Final

from dbnd.plugins import cut, number, pad, plain, width

# Bits of the dots of a braille character, by row and column.
_DOTS: Final = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
_BRAILLE: Final = 0x2800
# Positive values whose largest is so many times the smallest stand on a logarithmic axis.
_SPAN: Final = 100

Point = tuple[float, float]


def chart(title: str, points: Sequence[Point], columns: int, lines: int, *, x_labels: tuple[str, str]) -> list[str]:
    """``lines`` lines, 4 or more, of ``columns`` columns: a title, the series, and the ends of the axis below it.

    Points rise in x; the line has a gap where y is no finite number.
    """
    finite = [y for _, y in points if math.isfinite(y)]
    low, high = min(finite, default=0.0), max(finite, default=0.0)
    is_log = low > 0 and high / _SPAN >= low
    top, bottom = number(high), number(low)
    label = max(width(top), width(bottom))
    rows = lines - 2
    drawn = _draw([(x, _scaled(y, is_log=is_log)) for x, y in points], max(columns - label - 2, 1), rows)
    labels = {0: top, rows - 1: bottom} if high > low else {rows // 2: top}
    if is_log and rows > 2:
        labels[rows // 2] = "log"
    left, right = x_labels
    axis = left + " " * (columns - label - 2 - width(left) - width(right)) + right
    return [
        pad(cut(plain(title), columns), columns),
        *(f"{labels.get(i, ''):>{label}} {'┤' if i in labels else '│'}{line}" for i, line in enumerate(drawn)),
        pad(cut(" " * (label + 2) + axis, columns), columns),
    ]


def _scaled(y: float, *, is_log: bool) -> float:
    # Halves, because the difference of the largest floats is none.
    return math.log10(y) if is_log and math.isfinite(y) else y / 2


def _draw(points: Sequence[Point], columns: int, lines: int) -> list[str]:
    cells = [[_BRAILLE] * columns for _ in range(lines)]
    finite = [point for point in points if math.isfinite(point[1])]
    xs, ys = [x for x, _ in finite], [y for _, y in finite]

    def place(value: float, values: list[float], size: int) -> int:
        low, high = min(values), max(values)
        return round((value - low) / (high - low) * (size - 1)) if high > low else (size - 1) // 2

    def dot(x: int, y: int) -> None:
        row = 4 * lines - 1 - y
        cells[row // 4][x // 2] |= _DOTS[row % 4][x % 2]

    placed = [(place(x, xs, 2 * columns), place(y, ys, 4 * lines)) if math.isfinite(y) else None for x, y in points]
    for point in filter(None, placed):
        dot(*point)
    for start, end in itertools.pairwise(placed):
        if start is not None and end is not None:
            count = max(abs(end[0] - start[0]), abs(end[1] - start[1]), 1)
            for i in range(1, count):
                dot(*(round(a + (b - a) * i / count) for a, b in zip(start, end, strict=True)))
    # Some fonts show the places of dots that are not set; a blank has none.
    return ["".join(map(chr, row)).replace(chr(_BRAILLE), " ") for row in cells]
