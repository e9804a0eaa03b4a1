"""The format of a segment: the columns of its points, compressed by zlib.

What is compressed is, for ``n`` points, one after the other:

- ``n`` bytes of flags: the kind of each value (``Kind``), plus ``NO_STEP`` and ``NO_VALUE`` where they hold;
- the steps, as differences to the step before (the first to 0), 64-bit integers; no step is the step 0;
- the times in microseconds since the epoch, likewise;
- the values, 64-bit floats; NaN where there is none;
- the texts of the values that are text or JSON, in their order, as a JSON list in UTF-8, if there are any.

Of a column of 64-bit numbers all lowest bytes come first, then all second ones, and so on up to the highest (little
endian), because bytes that are alike compress well side by side. Differences wrap around at 64 bits.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import numpy as np

from dbnd_tracker._storage.encoding import Kind

Array = np.ndarray[Any, Any]

VERSION: Final = 1

NO_STEP: Final = 8
"""Bit of ``flags``: the point has no step."""
NO_VALUE: Final = 16
"""Bit of ``flags``: the value is NULL, which is NaN or, by the point's kind, no number."""
KIND: Final = NO_STEP - 1
"""Bits of ``flags``: the kind of the value."""

TYPES: Final = {"step": "<i8", "timestamp_us": "<i8", "value": "<f8", "flags": "u1"}
# Of one point, uncompressed and without its text.
_BYTES: Final = 25
# Higher levels of zlib make a segment some 2 % smaller and take twice as long.
_LEVEL: Final = 1


class Points(NamedTuple):
    """Points of a series in the order in which they came, in arrays of one length."""

    step: Array
    """0 where there is none."""
    timestamp_us: Array
    value: Array
    """NaN where there is no number."""
    flags: Array
    """The kind of each value and, of ``NO_STEP`` and ``NO_VALUE``, what holds."""
    texts: dict[int, str]
    """The texts of values that are no doubles, by place."""

    @property
    def size(self) -> int:
        return len(self.flags)

    def part(self, start: int, stop: int) -> Points:
        """Those from the place ``start`` up to, and without, ``stop``."""
        if start <= 0 and stop >= self.size:
            return self
        texts = {place - start: text for place, text in self.texts.items() if start <= place < stop}
        return self._each(lambda column: column[start:stop], texts)

    def at(self, places: Array) -> Points:
        """Those at these places."""
        texts = {new: self.texts[old] for new, old in enumerate(places.tolist()) if old in self.texts}
        return self._each(lambda column: column[places], texts)

    def _each(self, change: Callable[[Array], Array], texts: dict[int, str]) -> Points:
        return Points(change(self.step), change(self.timestamp_us), change(self.value), change(self.flags), texts)

    def columns(self) -> Columns:
        """Step, time, kind, number and text of each, as the columns of ``Metric`` have them."""
        steps, numbers = self.step.tolist(), self.value.tolist()
        texts: list[str | None] = [None] * self.size
        for place, text in self.texts.items():
            texts[place] = text
        for column, bit in ((steps, NO_STEP), (numbers, NO_VALUE)):
            for place in np.flatnonzero(self.flags & bit).tolist():
                column[place] = None
        return Columns(steps, self.timestamp_us.tolist(), (self.flags & KIND).tolist(), numbers, texts)


class Columns(NamedTuple):
    """Points as Python's own objects, in lists of one length."""

    steps: list[int | None]
    times_us: list[int]
    kinds: list[int]
    numbers: list[float | None]
    texts: list[str | None]


def room(count: int) -> Points:
    """Arrays for so many points, in which anything stands."""
    return Points(**{name: np.empty(count, kind) for name, kind in TYPES.items()}, texts={})


NONE: Final = room(0)
"""No points."""


def join(parts: Sequence[Points]) -> Points:
    if len(parts) <= 1:
        return parts[0] if parts else NONE
    texts: dict[int, str] = {}
    start = 0
    for part in parts:
        texts.update((start + place, text) for place, text in part.texts.items())
        start += part.size
    columns = {name: np.concatenate([getattr(part, name) for part in parts]) for name in TYPES}
    return Points(**columns, texts=texts)


def pack(points: Points) -> bytes:
    """The data of a segment of these points."""
    columns = np.diff(points.step, prepend=0), np.diff(points.timestamp_us, prepend=0), points.value
    body = [points.flags.tobytes(), *(_planes(column) for column in columns)]
    texts = [points.texts.get(place) for place in _text_places(points.flags)]
    if texts:
        body.append(json.dumps(texts).encode())
    return zlib.compress(b"".join(body), _LEVEL)


def unpack(data: bytes, points: Points, start: int, count: int) -> None:
    """Put the points of a segment, of which there are ``count``, at the place ``start``."""
    body = zlib.decompress(data)
    table = np.frombuffer(body, np.uint8, _BYTES * count).reshape(_BYTES, count)
    columns = points.step, points.timestamp_us, points.value, points.flags
    step, timestamp_us, value, flags = (column[start : start + count] for column in columns)
    flags[:] = table[0]
    for first, column in ((1, step), (9, timestamp_us), (17, value)):
        planes = column.view(np.uint8).reshape(count, 8)
        for place in range(8):  # quicker than a transposition, which makes a copy
            planes[:, place] = table[first + place]
    for column in (step, timestamp_us):
        column.cumsum(out=column)
    if len(body) > _BYTES * count:
        texts = zip(_text_places(flags), json.loads(body[_BYTES * count :]), strict=True)
        points.texts.update((start + place, text) for place, text in texts if text is not None)


def _text_places(flags: Array) -> list[int]:
    """Places of the values that are no doubles."""
    places: list[int] = np.flatnonzero((flags & KIND) >= Kind.STR).tolist()
    return places


def _planes(column: Array) -> bytes:
    return np.ascontiguousarray(column.view(np.uint8).reshape(-1, 8).T).tobytes()


def head(points: Points) -> dict[str, Any]:
    """What the columns of ``Segment`` say of these points, of which there is at least one."""
    numbers = points.value[(points.flags & KIND) <= Kind.INT]
    finite = numbers[np.isfinite(numbers)]
    return {
        "low_step": int(points.step.min()),
        "high_step": int(points.step.max()),
        "low_us": int(points.timestamp_us.min()),
        "high_us": int(points.timestamp_us.max()),
        "stepless": int(np.count_nonzero(points.flags & NO_STEP)),
        "texts": points.size - len(numbers),
        "finite": len(finite),
        "low_value": float(finite.min()) if len(finite) else None,
        "high_value": float(finite.max()) if len(finite) else None,
        "mean": float((finite / len(finite)).sum()) if len(finite) else None,  # their sum may be beyond any double
    }
