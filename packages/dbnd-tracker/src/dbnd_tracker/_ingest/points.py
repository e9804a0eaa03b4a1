"""Points of metrics as clients send them, checked and gathered by series.

Two forms arrive: the protocol's, some 300 bytes a point, and our own client's (see ``dbnd._tracking.points``). There
are more of them than of everything else together, so that what nearly all look like is checked by hand; every other
element of the protocol's form goes through its schema, which decides what is right.
"""

from __future__ import annotations

import functools
import json
import re
import time
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, Final

from dbnd._tracking.points import DELETED, EARLIEST, JSON, LATEST, TEXT
from dbnd_tracker._errors import PayloadError
from dbnd_tracker._schemas.fields import canonical_uid, cut
from dbnd_tracker._schemas.logged import MAX_STEP, LogMetrics, Metric, MetricInfo
from dbnd_tracker._schemas.validated import validated
from dbnd_tracker._values import clean

if TYPE_CHECKING:
    from collections.abc import Callable

PARAM_SOURCE: Final = "mlflow.param"
TAG_SOURCE: Final = "mlflow.tag"
SOURCE_LENGTH: Final = 64
"""Longest source that is kept, in characters."""

_TEXT_SOURCES: Final = frozenset({PARAM_SOURCE, TAG_SOURCE})
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=timezone.utc)
_SECOND_TEXT: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", re.ASCII)
# What the check by hand knows: a number and where it belongs. Texts, params and tags are left to the schema.
_PLAIN_INFO: Final = frozenset({"task_run_attempt_uid", "metric", "source", "target_meta_uid"})
_PLAIN_METRIC: Final = frozenset(
    {"key", "timestamp", "value", "value_int", "value_float", "value_str", "value_json", "source", "step"}
)
_STRINGS: Final = frozenset({TEXT, DELETED})
_FORM: Final = "a point is [key, value, time in µs], with step and mark (s, j or d) after them where it has them"


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
        if source in _TEXT_SOURCES:
            text = clean(value if isinstance(value, str) else json.dumps(value))
            self.texts.append(Text(attempt_uid, str(source), key, text))
            return
        series = self.get(attempt_uid, key, source)
        series.times.append(time_us)
        series.steps.append(step)
        series.values.append(value)


def micros(time: datetime) -> int:
    """``time`` in µs since the epoch."""
    return (time - _EPOCH) // timedelta(microseconds=1)


def from_groups(groups: object) -> Points:
    """Points in our own client's form: a list of groups.

    Raises:
        PayloadError: ``groups`` is not of that form.
    """
    points = Points()
    if not isinstance(groups, list):
        msg = "The points are no list of groups [attempt uid, source, points]."
        raise PayloadError(msg)
    for number, group in enumerate(groups):
        try:
            uid, source, members = _group(group)
            _gather(points, uid, source, members)
        except (TypeError, ValueError) as error:
            msg = f"The group {number} of points is wrong: {error}."
            raise PayloadError(msg) from None
    for series in points.series.values():
        if min(series.times) < EARLIEST or max(series.times) > LATEST:
            series.times = [min(max(time_us, EARLIEST), LATEST) for time_us in series.times]
    return points


def _group(group: object) -> tuple[str, str | None, list[Any]]:
    if not isinstance(group, list) or len(group) != 3:  # noqa: PLR2004  uid, source, points
        msg = "a group is [attempt uid, source, points]"
        raise TypeError(msg)
    uid, source, members = group
    if not isinstance(uid, str) or not isinstance(members, list) or not isinstance(source, (str, type(None))):
        msg = "a group is [attempt uid, source, points]"
        raise TypeError(msg)
    return canonical_uid(uid), _source(source), members


def _gather(points: Points, uid: str, source: str | None, members: list[Any]) -> None:
    """Add the points of one group.

    Raises:
        TypeError: One is not of the form of a point.
        ValueError: A step is too large.
    """
    if source in _TEXT_SOURCES:
        for point in members:
            key, value, time_us, step, mark = _parts(point)
            if mark == DELETED:
                points.texts.append(Text(uid, str(source), cut(clean(key)), None))
            else:
                points.add(uid, source, cut(clean(key)), value, time_us, step)
        return
    # By key as it came: where the time, step and value of a point go.
    adders: dict[str, tuple[Callable[[int], None], Callable[[int | None], None], Callable[[Any], None]]] = {}
    for point in members:
        key, value, time_us, step, _ = _parts(point)
        found = adders.get(key)
        if found is None:
            series = points.get(uid, cut(clean(key)), source)
            found = adders[key] = (series.times.append, series.steps.append, series.values.append)
        add_time, add_step, add_value = found
        add_time(time_us)
        add_step(step)
        add_value(value)


def _parts(point: Any) -> tuple[str, Any, int, int | None, str | None]:  # noqa: ANN401  any JSON value
    """Key, value, time, step and mark of a point.

    Raises:
        TypeError: It is not of the form of a point.
        ValueError: Its step is too large.
    """
    length = len(point) if type(point) is list else 0
    if length == 4:  # noqa: PLR2004  the forms of a point
        (key, value, time_us, step), mark = point, None
    elif length == 3:  # noqa: PLR2004
        (key, value, time_us), step, mark = point, None, None
    elif length == 5:  # noqa: PLR2004
        key, value, time_us, step, mark = point
    else:
        raise TypeError(_FORM)
    kind = type(value)
    is_value = kind is float or kind is int if mark is None else mark == JSON or (mark in _STRINGS and kind is str)
    if not is_value or type(key) is not str or type(time_us) is not int or not (step is None or type(step) is int):
        raise TypeError(_FORM)
    if step is not None and not -MAX_STEP - 1 <= step <= MAX_STEP:
        msg = f"the step {step} of {key[:80]!r} has more than 64 bits"
        raise ValueError(msg)
    return key, value, time_us, step, mark


@functools.lru_cache(maxsize=256)
def _source(text: str | None) -> str | None:
    return None if text is None else clean(text)[:SOURCE_LENGTH]


def from_wire(body: object) -> Points:
    """Points in the protocol's form: the body of ``log_metrics``, as parsed from JSON.

    Raises:
        PayloadError: The body is not of that form.
    """
    points = Points()
    infos = body.get("metrics_info") if isinstance(body, dict) else None
    if not isinstance(infos, list):
        infos = validated("log_metrics", LogMetrics, body).metrics_info
    # By uid and key as they came, of which there are few.
    known: dict[tuple[str, str], Series] = {}
    for place, info in enumerate(infos):
        if not (type(info) is dict and _add_plain(points, info, known)):
            valid = validated("log_metrics", MetricInfo, info, "metrics_info", place)
            _add_valid(points, valid)
    return points


def from_wire_metric(body: object) -> Points:
    """Points in the protocol's form: the body of ``log_metric``, which is one of them.

    Raises:
        PayloadError: The body is not of that form.
    """
    points = Points()
    _add_valid(points, validated("log_metric", MetricInfo, body))
    return points


def _add_plain(points: Points, info: dict[str, Any], known: dict[tuple[str, str], Series]) -> bool:
    """Add a number if everything about it is as the schema wants it without a change; False when it is not."""
    metric = info.get("metric")
    uid = info.get("task_run_attempt_uid")
    if type(metric) is not dict or type(uid) is not str or not _is_plain(tuple(info), tuple(metric)):
        return False
    get = metric.get
    key, stamp, step, source = get("key"), get("timestamp"), get("step"), info.get("source") or get("source")
    value, integer, text = get("value_float"), get("value_int"), get("value_str")
    if value is None:
        value = integer
    elif type(value) is not float:
        return False
    if (
        value is None
        or type(key) is not str
        or type(stamp) is not str
        or not (integer is None or type(integer) is int)
        or not (text is None or type(text) is str)
        or not (step is None or (type(step) is int and -MAX_STEP - 1 <= step <= MAX_STEP))
        or not (source is None or (type(source) is str and source not in _TEXT_SOURCES))
    ):
        return False
    time_us = _time_us(stamp)
    if time_us is None:
        return False
    series = known.get((uid, key))
    if series is None:
        if not _is_uid(uid):
            return False
        series = known[uid, key] = points.get(canonical_uid(uid), cut(clean(key)), _source(source))
    series.times.append(time_us)
    series.steps.append(step)
    series.values.append(value)
    return True


@functools.lru_cache(maxsize=8192)
def _is_uid(text: str) -> bool:
    try:
        canonical_uid(text)
    except ValueError:
        return False
    return True


@functools.lru_cache(maxsize=256)
def _is_plain(info: tuple[str, ...], metric: tuple[str, ...]) -> bool:
    return _PLAIN_INFO.issuperset(info) and _PLAIN_METRIC.issuperset(metric)


def _time_us(text: str) -> int | None:
    """A time in UTC as our own and the original client write it, in µs since the epoch; None for every other form."""
    if len(text) == 25:  # noqa: PLR2004  without a fraction
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
        return micros(datetime.fromisoformat(text).replace(tzinfo=timezone.utc))
    except ValueError:
        return None


def _add_valid(points: Points, info: MetricInfo) -> None:
    metric = info.metric
    source = _source(info.source or metric.source)
    time_us = points.now_us if metric.timestamp is None else micros(metric.timestamp)
    uid = info.task_run_attempt_uid
    if source in _TEXT_SOURCES and metric.deleted:
        points.texts.append(Text(uid, str(source), metric.key, None))
    else:
        value = _text(metric) if source in _TEXT_SOURCES else metric.chosen()
        points.add(uid, source, metric.key, value, time_us, metric.step)


def _text(metric: Metric) -> object:
    """The value of a param or tag: its text as it was logged where that is known."""
    for value in (metric.text, metric.value_str, metric.value):
        if isinstance(value, str):
            return value
    return metric.chosen()
