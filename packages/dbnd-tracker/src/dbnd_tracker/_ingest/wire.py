"""Points in the protocol's form, some 300 bytes each.

A schema decides what is right. It takes longer than storing the points does, so that what nearly all bodies look like
is first tried with types that are checked while the JSON is read; what is not wholly of those goes through the schema.
"""

from __future__ import annotations

import functools
import re
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, Final

import msgspec

from dbnd.tracking import LARGEST_STEP, storable
from dbnd_tracker._ingest.points import TEXT_SOURCES, Points, Text, source_of
from dbnd_tracker._schemas.fields import canonical_uid, cut
from dbnd_tracker._schemas.logged import LogMetrics, MetricInfo
from dbnd_tracker._schemas.validation import validated

if TYPE_CHECKING:
    from dbnd_tracker._schemas.logged import Metric

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=timezone.utc)
_SECOND_TEXT: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", re.ASCII)


class _Metric(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """A metric whose value is a number; there is no field for the text of params and tags."""

    key: str
    timestamp: str
    value: Any = None
    value_int: int | None = None
    value_float: float | None = None
    value_str: None = None
    value_json: None = None
    source: str | None = None
    step: int | None = None


class _Info(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """A metric and the attempt that logged it."""

    task_run_attempt_uid: str
    metric: _Metric
    source: str | None = None
    target_meta_uid: None = None


class _Body(msgspec.Struct, forbid_unknown_fields=True):
    metrics_info: list[_Info]


_DECODER: Final = msgspec.json.Decoder(_Body)


def plain(raw: bytes) -> Points | None:
    """Points of the body of ``log_metrics`` if each is a number, a time in UTC and nothing unusual; else None."""
    try:
        infos = _DECODER.decode(raw).metrics_info
    except (msgspec.MsgspecError, RecursionError):
        return None
    points = Points()
    # By uid, key and source as they came, of which there are few.
    known: dict[tuple[str, str, str | None], int | None] = {}
    for info in infos:
        metric = info.metric
        value = metric.value_int if metric.value_float is None else metric.value_float
        step = metric.step
        time_us = _time_us(metric.timestamp)
        if value is None or time_us is None or not (step is None or -LARGEST_STEP - 1 <= step <= LARGEST_STEP):
            return None
        name = (info.task_run_attempt_uid, metric.key, info.source or metric.source)
        place = known.get(name)
        if place is None:
            place = known[name] = _place(points, *name)
            if place is None:
                return None
        points.members.append(place)
        points.times.append(time_us)
        points.steps.append(step)
        points.values.append(value)
    return points


def _place(points: Points, uid: str, key: str, source: str | None) -> int | None:
    """The place of the series of numbers that these name, if they do."""
    if source in TEXT_SOURCES:
        return None
    try:
        return points.place(canonical_uid(uid), cut(storable(key)), source_of(source))
    except ValueError:
        return None


def from_wire(body: object) -> Points:
    """Points of the body of ``log_metrics``, as parsed from JSON.

    Raises:
        PayloadError: The body is not of that form.
    """
    points = Points()
    for info in validated("log_metrics", LogMetrics, body).metrics_info:
        _add(points, info)
    return points


def from_wire_metric(body: object) -> Points:
    """The point of the body of ``log_metric``, as parsed from JSON.

    Raises:
        PayloadError: The body is not of that form.
    """
    points = Points()
    _add(points, validated("log_metric", MetricInfo, body))
    return points


def _micros(time: datetime) -> int:
    """``time`` in µs since the epoch."""
    return (time - _EPOCH) // timedelta(microseconds=1)


def _time_us(text: str) -> int | None:
    """A time in UTC as our own and the original client write it, in µs since the epoch; None for every other form."""
    if len(text) == 25:
        return _second(text[:19]) if text.endswith("+00:00") else None
    fraction = text[20:26]
    if text[26:] != "+00:00" or text[19] != "." or not (fraction.isdecimal() and fraction.isascii()):
        return None
    second = _second(text[:19])
    return None if second is None else second + int(fraction)


@functools.lru_cache(maxsize=1024)
def _second(text: str) -> int | None:
    if not _SECOND_TEXT.fullmatch(text):
        return None
    try:
        return _micros(datetime.fromisoformat(text).replace(tzinfo=timezone.utc))
    except ValueError:
        return None


def _add(points: Points, info: MetricInfo) -> None:
    metric = info.metric
    source = source_of(info.source or metric.source)
    time_us = points.now_us if metric.timestamp is None else _micros(metric.timestamp)
    uid = info.task_run_attempt_uid
    if source in TEXT_SOURCES and metric.deleted:
        points.texts.append(Text(uid, str(source), metric.key, None))
    else:
        value = _text(metric) if source in TEXT_SOURCES else metric.chosen()
        points.add(uid, source, metric.key, value, time_us, metric.step)


def _text(metric: Metric) -> object:
    """The value of a param or tag: its text as it was logged where that is known."""
    for value in (metric.text, metric.value_str, metric.value):
        if isinstance(value, str):
            return value
    return metric.chosen()
