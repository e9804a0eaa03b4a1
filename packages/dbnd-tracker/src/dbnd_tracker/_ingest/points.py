"""Points in our own client's form (see ``dbnd._model.points``): checked by columns, for there are many of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from dbnd.tracking import EARLIEST, LARGEST_STEP, LATEST, Mark, Source, storable
from dbnd_tracker._errors import PayloadError
from dbnd_tracker._schemas.fields import canonical_uid, cut, stored_source

TEXT_SOURCES: Final = frozenset({Source.PARAM, Source.TAG})
"""Sources whose points are params and tags."""

_STRINGS: Final = frozenset({Mark.TEXT, Mark.DELETED})
_NUMBERS: Final = frozenset({int, float})
# Types of the keys, times, steps and marks.
_TYPES: Final = (frozenset({str}), frozenset({int}), frozenset({int, type(None)}), frozenset({str, type(None)}))
_GROUP_FORM: Final = "a group is [attempt uid, source, points]"
_POINT_FORM: Final = "a point is key, value, time in µs, step or null, and mark (s, j or d) or null"


@dataclass(frozen=True, slots=True)
class Group:
    """Points of one attempt and source, in columns of one length.

    The embedded tracker works in the process of a training: an object for each point, which Python's garbage collector
    would have to look at, would make the training slower, too.
    """

    attempt_uid: str
    source: str | None
    keys: list[str]
    """Names of metrics; those of params or tags when the source is one of ``TEXT_SOURCES``."""
    values: list[Any]
    times: list[int]
    """In µs since the epoch."""
    steps: list[int | None]
    marks: list[str | None]
    """What values are that are no numbers: a ``Mark`` each."""
    names: set[str]
    """Each of ``keys`` once."""


def from_groups(groups: object) -> list[Group]:
    """Points as our own client sends them: a list of groups; PayloadError where ``groups`` is not of that form."""
    if not isinstance(groups, list):
        raise PayloadError(f"The points are no list of groups: {_GROUP_FORM}.")
    found = []
    for number, group in enumerate(groups):
        try:
            found.append(_group(group))
        except (TypeError, ValueError) as error:
            raise PayloadError(f"The group {number} of points is wrong: {error}.") from None
    return [group for group in found if group.keys]


def _group(group: object) -> Group:
    """A group, checked by whole columns; TypeError or ValueError when it is none."""
    if not isinstance(group, list) or len(group) != 3:
        raise TypeError(_GROUP_FORM)
    uid, source, members = group
    if not isinstance(uid, str) or not isinstance(source, (str, type(None))) or not isinstance(members, list):
        raise TypeError(_GROUP_FORM)
    if len(members) % 5:
        raise TypeError(_POINT_FORM)
    keys, values, times, steps, marks = (members[part::5] for part in range(5))
    for column, types in zip((keys, times, steps, marks), _TYPES, strict=True):
        if not types.issuperset(map(type, column)):
            raise TypeError(_POINT_FORM)
    is_numbers = marks.count(None) == len(marks) and _NUMBERS.issuperset(map(type, values))
    if not (is_numbers or all(map(_is_value, values, marks))):
        raise TypeError(_POINT_FORM)
    known = [step for step in steps if step is not None]
    if known and (min(known) < -LARGEST_STEP - 1 or max(known) > LARGEST_STEP):
        raise ValueError("a step has more than 64 bits")
    if times and (min(times) < EARLIEST or max(times) > LATEST):
        times = [min(max(time_us, EARLIEST), LATEST) for time_us in times]
    names = {key: cut(storable(key)) for key in dict.fromkeys(keys)}
    keys = list(map(names.__getitem__, keys))
    return Group(canonical_uid(uid), stored_source(source), keys, values, times, steps, marks, set(names.values()))


def _is_value(value: object, mark: str | None) -> bool:
    if mark is None:
        return type(value) in _NUMBERS
    return mark == Mark.JSON or (mark in _STRINGS and type(value) is str)
