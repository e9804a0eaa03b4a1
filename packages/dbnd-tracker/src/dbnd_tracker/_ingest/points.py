"""What one call adds: points of metrics in columns, and params and tags."""

from __future__ import annotations

import functools
import json
import time
from dataclasses import dataclass
from typing import Any, Final

from dbnd_tracker._values import clean

PARAM_SOURCE: Final = "mlflow.param"
TAG_SOURCE: Final = "mlflow.tag"
SOURCE_LENGTH: Final = 64
"""Longest source that is kept, in characters."""

TEXT_SOURCES: Final = frozenset({PARAM_SOURCE, TAG_SOURCE})
"""Sources whose points are params and tags."""


@dataclass(frozen=True, slots=True)
class Text:
    """A param or a tag.

    Args:
        attempt_uid: The attempt that it belongs to.
        source: ``PARAM_SOURCE`` or ``TAG_SOURCE``.
        name: Its name.
        value: Its text, or None for a tag that is taken back.
    """

    attempt_uid: str
    source: str
    name: str
    value: str | None


class Points:
    """What one call adds: points of metrics, and params and tags, in the order in which they came.

    Points stand in columns, not in an object each: the embedded tracker works in the process of a training, and every
    object that Python's garbage collector has to look at makes the training slower, too.

    Attributes:
        now_us: The time of points that say none: that of receipt, in µs since the epoch.
        series: Places in ``sources`` by attempt uid and key: the series that points are added to.
        sources: Who says so, such as ``user``, for each series.
        members: For each point the place of its series; this column and the next three are of one length.
        times: For each point its time in µs since the epoch.
        steps: For each point its training step, of 64 bits.
        values: For each point its value, any JSON value.
        texts: Params and tags.
    """

    def __init__(self) -> None:
        self.now_us = time.time_ns() // 1000
        self.series: dict[tuple[str, str], int] = {}
        self.sources: list[str | None] = []
        self.members: list[int] = []
        self.times: list[int] = []
        self.steps: list[int | None] = []
        self.values: list[Any] = []
        self.texts: list[Text] = []

    def place(self, attempt_uid: str, key: str, source: str | None) -> int:
        """The place of the series of ``key``; the source is that of its first point."""
        found = self.series.setdefault((attempt_uid, key), len(self.sources))
        if found == len(self.sources):
            self.sources.append(source)
        return found

    def add(
        self, attempt_uid: str, source: str | None, key: str, value: object, time_us: int, step: int | None
    ) -> None:
        """Add one point, param or tag."""
        if source in TEXT_SOURCES:
            text = clean(value if isinstance(value, str) else json.dumps(value))
            self.texts.append(Text(attempt_uid, str(source), key, text))
            return
        self.members.append(self.place(attempt_uid, key, source))
        self.times.append(time_us)
        self.steps.append(step)
        self.values.append(value)


@functools.lru_cache(maxsize=256)
def source_of(text: str | None) -> str | None:
    """A source as it is kept."""
    return None if text is None else clean(text)[:SOURCE_LENGTH]
