"""Points in our own client's form (see ``dbnd._model.points``): checked by columns, for there are many of them."""

from __future__ import annotations

from typing import Any, Final

from dbnd.tracking import DELETED, EARLIEST, JSON, LARGEST_STEP, LATEST, SIZE, TEXT, storable
from dbnd_tracker._errors import PayloadError
from dbnd_tracker._ingest.points import TEXT_SOURCES, Points, Text, source_of
from dbnd_tracker._schemas.fields import canonical_uid, cut

_STRINGS: Final = frozenset({TEXT, DELETED})
_NUMBERS: Final = frozenset({int, float})
_KEYS: Final = frozenset({str})
_TIMES: Final = frozenset({int})
_STEPS: Final = frozenset({int, type(None)})
_MARKS: Final = frozenset({str, type(None)})
_FORM: Final = "a point is key, value, time in µs, step or null, and mark (s, j or d) or null"


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
    if points.times and (min(points.times) < EARLIEST or max(points.times) > LATEST):
        points.times = [min(max(time_us, EARLIEST), LATEST) for time_us in points.times]
    return points


def _group(group: object) -> tuple[str, str | None, list[Any]]:
    if not isinstance(group, list) or len(group) != 3:
        msg = "a group is [attempt uid, source, points]"
        raise TypeError(msg)
    uid, source, members = group
    if not isinstance(uid, str) or not isinstance(members, list) or not isinstance(source, (str, type(None))):
        msg = "a group is [attempt uid, source, points]"
        raise TypeError(msg)
    return canonical_uid(uid), source_of(source), members


def _gather(points: Points, uid: str, source: str | None, members: list[Any]) -> None:
    """Add the points of one group.

    Raises:
        TypeError: One is not of the form of a point.
        ValueError: A step is too large.
    """
    if len(members) % SIZE:
        raise TypeError(_FORM)
    keys, values, times, steps, marks = (members[part::SIZE] for part in range(SIZE))
    _check(keys, values, times, steps, marks)
    if source in TEXT_SOURCES:
        for key, value, time_us, step, mark in zip(keys, values, times, steps, marks, strict=True):
            if mark == DELETED:
                points.texts.append(Text(uid, str(source), cut(storable(key)), None))
            else:
                points.add(uid, source, cut(storable(key)), value, time_us, step)
        return
    places = {key: points.place(uid, cut(storable(key)), source) for key in dict.fromkeys(keys)}
    points.members += map(places.__getitem__, keys)
    points.times += times
    points.steps += steps
    points.values += values


def _check(keys: list[Any], values: list[Any], times: list[Any], steps: list[Any], marks: list[Any]) -> None:
    """See that the columns of a group are of the form of points; whole columns at once, for there are many points.

    Raises:
        TypeError: They are not.
        ValueError: A step is too large.
    """
    for column, kinds in ((keys, _KEYS), (times, _TIMES), (steps, _STEPS), (marks, _MARKS)):
        if not kinds.issuperset(map(type, column)):
            raise TypeError(_FORM)
    is_numbers = marks.count(None) == len(marks) and _NUMBERS.issuperset(map(type, values))
    if not (is_numbers or all(map(_is_value, values, marks))):
        raise TypeError(_FORM)
    known = [step for step in steps if step is not None]
    if known and (min(known) < -LARGEST_STEP - 1 or max(known) > LARGEST_STEP):
        number = next(
            n for n, step in enumerate(steps) if step is not None and not -LARGEST_STEP - 1 <= step <= LARGEST_STEP
        )
        msg = f"the step {steps[number]} of {keys[number][:80]!r} has more than 64 bits"
        raise ValueError(msg)


def _is_value(value: object, mark: str | None) -> bool:
    if mark is None:
        return type(value) in _NUMBERS
    return mark == JSON or (mark in _STRINGS and type(value) is str)
