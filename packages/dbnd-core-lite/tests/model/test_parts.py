from __future__ import annotations

import pytest

from dbnd._model.encoding import encode
from dbnd._model.parts import MAX_EVENT, parts_of
from dbnd._model.points import MAX_POINTS, group, points_of, text_point


def parts(groups):
    """The events that one becomes: halves that are too large are taken apart once more."""
    found = parts_of("log_metrics", groups, len(encode(groups)))
    return [part for half in found for part in (parts(half) if len(points(half)) > 1 else []) or [half]]


def points(groups):
    return [(attempt, source, *p) for attempt, source, members in groups for p in points_of([attempt, source, members])]


def made(count, attempt="a", source="user", text=""):
    return group(attempt, source, (text_point(f"k{n}", text, n) for n in range(count)))


@pytest.mark.parametrize("call", ["log_metrics", "init_run"])
def test_what_is_small_stays_as_it_is(call):
    assert parts_of(call, [made(MAX_POINTS)], 70_000) == []
    assert parts_of(call, {}, 1 << 30) == []


@pytest.mark.parametrize(
    "groups",
    [
        [made(MAX_POINTS + 1)],
        [made(3, "a"), made(MAX_POINTS * 2, "b"), made(0, "c"), made(7, "d", None)],
        [made(40, text="x" * 100_000)],
        [made(1, text="x" * MAX_EVENT), made(1)],
    ],
)
def test_points_are_kept_in_their_order_in_several_events(groups):
    found = parts(groups)
    assert [p for part in found for p in points(part)] == points(groups)
    assert len(found) > 1
    assert max(len(points(part)) for part in found) <= MAX_POINTS
    assert all(len(points(part)) == 1 or len(encode(part)) <= MAX_EVENT for part in found)


def test_a_single_point_that_is_too_long_is_cut_once():
    huge = [group("a", "mlflow.tag", [text_point("k" * 2_000_000, "x" * 2_000_000, 0)])]
    (part,) = parts(huge)
    ((_, _, key, text, *_),) = points(part)
    assert (len(key), len(text) <= 100_000) == (5_000, True)
    assert text.endswith("of 2000000)")
    assert parts(part) == []
