"""Points in our own client's form (see ``dbnd._tracking.points``): checked by hand, for there are many of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from dbnd._tracking.points import DELETED, EARLIEST, JSON, LATEST, TEXT
from dbnd_tracker._errors import PayloadError
from dbnd_tracker._ingest.points import TEXT_SOURCES, Points, Text, source_of
from dbnd_tracker._schemas.fields import canonical_uid, cut
from dbnd_tracker._schemas.logged import MAX_STEP
from dbnd_tracker._values import clean

if TYPE_CHECKING:
    from collections.abc import Callable

_STRINGS: Final = frozenset({TEXT, DELETED})
_FORM: Final = "a point is [key, value, time in µs], with step and mark (s, j or d) after them where it has them"


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
    return canonical_uid(uid), source_of(source), members


def _gather(points: Points, uid: str, source: str | None, members: list[Any]) -> None:
    """Add the points of one group.

    Raises:
        TypeError: One is not of the form of a point.
        ValueError: A step is too large.
    """
    if source in TEXT_SOURCES:
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
