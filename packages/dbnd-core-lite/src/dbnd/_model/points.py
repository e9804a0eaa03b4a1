"""Points: metrics, params and tags as the journal keeps them, and as the wire takes them.

The protocol's form of a metric is some 300 bytes, of which 40 are news. The journal keeps the news, because a log call
waits for it; the sender's thread writes it out in full, and the embedded tracker takes it as it is.

A point is five values: key, value, time, step and mark. The time is in µs since the epoch, UTC; step and mark may be
None. A number without a mark is an int or a float, as JSON has it. A group is ``[attempt uid, source, points]``, where
the values of all points stand in one list, one point after the other: Python's garbage collector looks at each list
there is, and a list for each point would make the whole training pay for its passes.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Iterator
from typing import Any, Final

from dbnd._base.clock import EARLIEST, LATEST, time_of
from dbnd._model.values import MAX_TEXT, metric_value, shorten, whole_step

Point = tuple[str, Any, int, int | None, str | None]
Group = list[Any]

SIZE: Final = 5
"""How many values a point has."""

VERIFIED_TAG: Final = "dbnd.mlflow.verified"
"""Tag of a task run: when it was compared with its MLflow run, and how many differences there were: ``TIME N``."""

EDITED_TAG: Final = "dbnd.edited"
"""Tag of a task run: what people have changed of its run in the tracker, a JSON list: name, description, tags.NAME."""

LARGEST_STEP: Final = (1 << 63) - 1
"""The largest training step; the least is one further from 0."""
_LEAST_STEP: Final = -LARGEST_STEP - 1

MAX_POINTS: Final = 5_000
"""How many points an event has at most, and a batch of events."""


class Source:
    """Sources of groups whose points MLflow has logged."""

    METRIC: Final = "mlflow"
    PARAM: Final = "mlflow.param"
    TAG: Final = "mlflow.tag"


class Mark:
    """What the value of a point is that is no number."""

    TEXT: Final = "s"
    JSON: Final = "j"
    DELETED: Final = "d"
    """A tag that was taken back."""


_MARKS: Final = {"value_str": Mark.TEXT, "value_json": Mark.JSON}
_TEXTS: Final = frozenset({Mark.TEXT, Mark.DELETED})
_SECOND: Final = 1_000_000
_encode: Final = json.JSONEncoder().encode


def point(key: str, value: object, time_us: int, step: int | None = None) -> Point:
    """A value of a metric (see ``metric_value``), with its time in µs since the epoch and its training step."""
    if type(step) is not int or not _LEAST_STEP <= step <= LARGEST_STEP:
        step = whole_step(step)
    if type(value) is not float:
        member, value = metric_value(value)
        mark = _MARKS.get(member)
        if mark is not None:
            return key, value, time_us, step, mark
    return key, value, time_us, step, None


def text_point(key: str, text: str, time_us: int) -> Point:
    """A param or a tag: text, kept as it is and whole."""
    return key, text, time_us, None, Mark.TEXT


def deleted_point(key: str, time_us: int) -> Point:
    """A tag that is taken back; a foreign server sees it become empty."""
    return key, "", time_us, None, Mark.DELETED


def group(attempt_uid: str, source: str | None, points: Iterable[Point]) -> Group:
    """Points of one attempt and source, as they are logged."""
    values: list[Any] = []
    for each in points:
        values += each
    return [attempt_uid, source, values]


def points_of(group: Group) -> Iterator[Point]:
    """The points of a group, one by one."""
    return zip(*[iter(group[2])] * SIZE, strict=True)


def comes_after(new: Point, old: Point) -> bool:
    """Whether ``new``, logged after ``old``, is the last value of the two.

    MLflow's is that of the highest step, then of the latest time, then the greatest. No step is the step 0; NaN, and
    what is no number, count as 0. Of texts of one step and time the one that came last counts.
    """
    left, right = _rank(new), _rank(old)
    return left > right or (left == right and new[4] is not None)


def _rank(point: Point) -> tuple[int, int, float]:
    _, value, time_us, step, mark = point
    return step or 0, time_us, value if mark is None and value == value else 0  # noqa: PLR0124  NaN


def wire_text(groups: Iterable[Group]) -> str:
    """The body of ``log_metrics`` for ``groups``, as JSON.

    It is put together from text: as objects it would take the sender several times as long, and with it the interpreter
    from the training. Beyond the protocol are "step", and for params and tags "text" (the whole of a text that is cut
    for foreign servers) and "deleted".
    """
    return f'{{"metrics_info": [{", ".join(_elements(groups))}]}}'


def _elements(groups: Iterable[Group]) -> Iterable[str]:
    for group in groups:
        attempt, source, _ = group
        origin = _encode(source)
        for key, value, time_us, step, mark in points_of(group):
            extra = "" if step is None else f', "step": {_encode(step)}'
            if mark in _TEXTS:
                if len(value) > MAX_TEXT:
                    extra += f', "text": {_encode(value)}'
                if mark == Mark.DELETED:
                    extra += ', "deleted": true'
                text = _encode(shorten(value, MAX_TEXT))
            else:
                text = _encode(value)
            yield (
                f'{{"task_run_attempt_uid": "{attempt}", "metric": {{"key": {_encode(key)}, '
                f'"timestamp": "{time_text(time_us)}", "value": {text}, '
                f'"value_int": {text if mark is None and type(value) is int else "null"}, '
                f'"value_float": {text if mark is None and type(value) is float else "null"}, '
                f'"value_str": {text if mark in _TEXTS else "null"}, '
                f'"value_json": {text if mark == Mark.JSON else "null"}, '
                f'"source": {origin}{extra}}}, "source": {origin}}}'
            )


def time_text(time_us: int) -> str:
    """A time in µs since the epoch as the protocol writes it; one beyond the calendar becomes its nearest day."""
    seconds, rest = divmod(min(max(time_us, EARLIEST), LATEST), _SECOND)
    return f"{_second_text(seconds)}.{rest:06d}+00:00" if rest else f"{_second_text(seconds)}+00:00"


@functools.lru_cache(maxsize=1024)
def _second_text(seconds: int) -> str:
    return time_of(seconds * _SECOND).isoformat()[:19]
