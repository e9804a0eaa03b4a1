"""What one call adds: points of metrics in columns, and params and tags."""

from __future__ import annotations

import functools
import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from dbnd.tracking import PARAM_SOURCE, TAG_SOURCE, storable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

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
        series: Places by attempt uid, key and source (who says so, such as ``user``): what points are added to.
        members: For each point the place of its series; this column and the next three are of one length.
        times: For each point its time in µs since the epoch.
        steps: For each point its training step, of 64 bits.
        values: For each point its value, any JSON value.
        texts: Params and tags.
    """

    def __init__(self) -> None:
        self.now_us = time.time_ns() // 1000
        self.series: dict[tuple[str, str, str | None], int] = {}
        self.members: list[int] = []
        self.times: list[int] = []
        self.steps: list[int | None] = []
        self.values: list[Any] = []
        self.texts: list[Text] = []

    def place(self, attempt_uid: str, key: str, source: str | None) -> int:
        """The place of the series of ``key``."""
        return self.series.setdefault((attempt_uid, key, source), len(self.series))

    def add(
        self, attempt_uid: str, source: str | None, key: str, value: object, time_us: int, step: int | None
    ) -> None:
        """Add one point, param or tag."""
        if source in TEXT_SOURCES:
            text = storable(value if isinstance(value, str) else json.dumps(value))
            self.texts.append(Text(attempt_uid, str(source), key, text))
            return
        self.members.append(self.place(attempt_uid, key, source))
        self.times.append(time_us)
        self.steps.append(step)
        self.values.append(value)

    def only(self, is_wanted: Callable[[str, str | None], bool]) -> Points:
        """Those points, params and tags of whose attempt uid and source ``is_wanted`` is true."""
        part = Points()
        names = [name if is_wanted(name[0], name[2]) else None for name in self.series]
        for member, time_us, step, value in zip(self.members, self.times, self.steps, self.values, strict=True):
            name = names[member]
            if name is not None:
                part.members.append(part.place(*name))
                part.times.append(time_us)
                part.steps.append(step)
                part.values.append(value)
        part.texts = [text for text in self.texts if is_wanted(text.attempt_uid, text.source)]
        return part

    def by_source(self) -> Iterable[Points]:
        """Points in parts, none of which has two sources for one series; nearly always one part."""
        if len({name[:2] for name in self.series}) == len(self.series):
            return [self]
        sources = dict.fromkeys(source for _, _, source in self.series)

        def has(wanted: str | None) -> Callable[[str, str | None], bool]:
            return lambda _, source: source == wanted

        return [self.only(has(source)) for source in sources]


@functools.lru_cache(maxsize=256)
def source_of(text: str | None) -> str | None:
    """A source as it is kept."""
    return None if text is None else storable(text)[:SOURCE_LENGTH]
