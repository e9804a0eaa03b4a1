"""What one call adds: points of metrics gathered by series, and params and tags."""

from __future__ import annotations

import functools
import json
import time
from dataclasses import dataclass, field
from typing import Any, Final

from dbnd_tracker._values import clean

PARAM_SOURCE: Final = "mlflow.param"
TAG_SOURCE: Final = "mlflow.tag"
SOURCE_LENGTH: Final = 64
"""Longest source that is kept, in characters."""

TEXT_SOURCES: Final = frozenset({PARAM_SOURCE, TAG_SOURCE})
"""Sources whose points are params and tags."""


@dataclass(slots=True)
class Series:
    """Points of one key of one attempt, in the order in which they came; the lists are of one length.

    Args:
        source: Who says so, such as ``user``.
        times: µs since the epoch.
        steps: Training steps, of 64 bits.
        values: Any JSON values.
    """

    source: str | None
    times: list[int] = field(default_factory=list)
    steps: list[int | None] = field(default_factory=list)
    values: list[Any] = field(default_factory=list)


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
    """What one call adds: points by attempt and key, and params and tags in the order in which they came."""

    def __init__(self) -> None:
        self.now_us = time.time_ns() // 1000
        """The time of points that say none: that of receipt, in µs since the epoch."""
        self.series: dict[tuple[str, str], Series] = {}
        self.texts: list[Text] = []

    def get(self, attempt_uid: str, key: str, source: str | None) -> Series:
        """The series of ``key``; the source is that of its first point."""
        found = self.series.get((attempt_uid, key))
        if found is None:
            found = self.series[attempt_uid, key] = Series(source)
        return found

    def add(
        self, attempt_uid: str, source: str | None, key: str, value: object, time_us: int, step: int | None
    ) -> None:
        """Add one point, param or tag."""
        if source in TEXT_SOURCES:
            text = clean(value if isinstance(value, str) else json.dumps(value))
            self.texts.append(Text(attempt_uid, str(source), key, text))
            return
        series = self.get(attempt_uid, key, source)
        series.times.append(time_us)
        series.steps.append(step)
        series.values.append(value)


@functools.lru_cache(maxsize=256)
def source_of(text: str | None) -> str | None:
    """A source as it is kept."""
    return None if text is None else clean(text)[:SOURCE_LENGTH]
