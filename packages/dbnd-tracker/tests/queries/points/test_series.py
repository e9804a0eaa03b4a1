from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kit.scale import scaled

from dbnd_tracker._queries.points.arrays import SeriesCache
from dbnd_tracker._queries.points.lines import Line, Sample, line_of, sample_line
from dbnd_tracker._queries.points.metrics import find_series
from dbnd_tracker._queries.points.series import chart_sample
from dbnd_tracker._storage.points import reading
from dbnd_tracker._storage.points.reading import read_points
from dbnd_tracker._storage.points.segments import Points
from dbnd_tracker._storage.upkeep.deletion import delete_runs
from dbnd_tracker._storage.upkeep.sealing import seal_all


def _points(values: Sequence[float], steps: Sequence[int]) -> Points:
    flags = np.zeros(len(values), np.uint8)
    return Points(np.array(steps), np.arange(len(values)), np.array(values), flags, {})


def _ask(tracker: Any, cache: SeriesCache, task: Any, key: str = "m", **part: Any) -> Sample:
    with tracker.database.read() as session:
        series = find_series(session, task.uid, key)
        assert series is not None
        return chart_sample(session, cache, series, **part)


_VALUES = st.floats(width=32) | st.sampled_from([math.nan, math.inf, -math.inf])


@settings(deadline=None)
@given(
    points=st.lists(st.tuples(st.integers(-50, 50), _VALUES), min_size=1, max_size=200),
    ends=st.tuples(st.none() | st.integers(-60, 60), st.none() | st.integers(-60, 60)),
    wanted=st.integers(1, 40),
)
def test_a_sample_stands_for_each_point_of_its_part(
    points: list[tuple[int, float]], ends: tuple[int | None, int | None], wanted: int
) -> None:
    first, last = ends
    sample = sample_line(line_of(_points([y for _, y in points], [x for x, _ in points]), "step"), first, last, wanted)
    low = -math.inf if first is None else first
    high = math.inf if last is None else last
    inside = [(x, y) for x, y in points if low <= x <= high]
    finite = [(x, y) for x, y in inside if math.isfinite(y)]

    assert sample.points == len(points)
    assert sample.extent == (min(x for x, _ in points), max(x for x, _ in points))
    assert sample.x == sorted(sample.x)
    assert len(sample.x) == len(sample.y)
    assert len(sample.x) <= wanted + 2
    assert {name for _, name in sample.gaps} == {_name(y) for _, y in inside if not math.isfinite(y)}
    # All but the neighbours on either side, which let lines leave the picture.
    within = [i for i, x in enumerate(sample.x) if low <= x <= high]
    if sample.exact:
        assert sorted((sample.x[i], sample.y[i]) for i in within if sample.y[i] is not None) == sorted(finite)
    else:
        assert sum(sample.counts[i] for i in within) == len(finite)
        lows = [value for i in within if (value := sample.low[i]) is not None]
        highs = [value for i in within if (value := sample.high[i]) is not None]
        if finite:
            assert min(lows) == min(y for _, y in finite)
            assert max(highs) == max(y for _, y in finite)
        means = [(sample.low[i], sample.y[i], sample.high[i]) for i in within if sample.counts[i]]
        assert all(low is not None and low <= mean <= high for low, mean, high in means)  # type: ignore[operator]


def _name(value: float) -> str:
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def test_few_points_are_themselves_and_gaps_break_the_line(tracker: Any) -> None:
    _, task = tracker.started()
    values = [1.0, math.nan, 3, math.inf, "text", -math.inf, 2.5]
    tracker.call("log_metrics", task.metrics(*(task.metric("m", value=v, step=i) for i, v in enumerate(values))))

    sample = _ask(tracker, SeriesCache(), task)

    assert sample.exact
    assert (sample.points, sample.texts, sample.axis) == (7, 1, "step")
    assert list(zip(sample.x, sample.y, strict=True)) == [(0, 1), (1, None), (2, 3), (3, None), (5, None), (6, 2.5)]
    assert sample.gaps == [(1, "NaN"), (3, "Infinity"), (5, "-Infinity")]


@pytest.mark.alike
def test_points_without_steps_stand_in_their_order_and_time_is_in_milliseconds(tracker: Any) -> None:
    _, task = tracker.started()
    infos = [task.metric("m", value_float=float(i)) for i in range(3)]
    for i, info in enumerate(infos):
        info["metric"]["timestamp"] = f"2026-03-04T05:06:0{2 - i}.000500+00:00"
    tracker.call("log_metrics", task.metrics(*infos))

    cache = SeriesCache()
    assert _ask(tracker, cache, task).axis == "index"
    assert _ask(tracker, cache, task).x == [0, 1, 2]
    by_time = _ask(tracker, cache, task, axis="time")
    assert by_time.y == [2, 1, 0]
    assert by_time.x[1] - by_time.x[0] == 1000
    assert by_time.x[0] % 1000 == 0.5


@pytest.mark.alike
def test_what_comes_later_is_seen_and_old_series_are_let_go(tracker: Any) -> None:
    _, task = tracker.started()
    cache = SeriesCache(max_points=10)
    for total in (8, 16):
        tracker.call("log_metrics", task.floats("m", 8))
        assert _ask(tracker, cache, task).points == total
    tracker.call("log_metrics", task.floats("other", 8))
    assert _ask(tracker, cache, task, "other").points == 8
    assert len(cache._kept) == 1
    assert _ask(tracker, cache, task).points == 16


def test_nothing_of_a_file_is_shown_that_another_one_has_replaced(sqlite_tracker: Any) -> None:
    cache = SeriesCache()
    for first in (0, 100):
        _, task = sqlite_tracker.started()
        infos = [task.metric("m", value_float=float(first + i), step=i) for i in range(5 + first)]
        sqlite_tracker.call("log_metrics", task.metrics(*infos))
        sample = _ask(sqlite_tracker, cache, task)
        assert (sample.y[0], sample.points) == (first, 5 + first)
        sqlite_tracker.database.path.unlink()


@pytest.mark.alike
def test_read_api_and_page_share_what_was_read(tracker: Any, server: Any) -> None:
    """One of them reads less than the other, and each has read when points are added."""
    _, task = tracker.started()
    values: list[Any] = []
    for more in ([1.0, "text", math.nan, 4], [5.5, math.inf] * 10, [-3.0]):
        new = [task.metric("m", value=value, step=len(values) + i) for i, value in enumerate(more)]
        tracker.call("log_metrics", task.metrics(*new))
        values += more
        if len(values) != 24:  # the page then reads two parts at once
            chart = server.get(f"/app/series?task={task.uid}&key=m&axis=step&values=1000").json()[0]
            shown = [(x, y) for x, y in zip(chart["x"], chart["y"], strict=True) if y is not None]
            numbers = [(i, v) for i, v in enumerate(values) if v != "text" and math.isfinite(v)]
            assert shown == numbers
            assert (chart["points"], chart["texts"]) == (len(values), 1)
        path = f"/api/v1/task-runs/{task.uid}/metrics/history"
        history = server.get(path, params={"key": "m", "samples": 1000}).json()
        assert [point["step"] for point in history["data"]] == list(range(len(values)))


def test_a_series_is_read_in_parts(tracker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "_ARRAY_LENGTH", 7)
    _, task = tracker.started()
    tracker.call("log_metrics", task.floats("m", 24))
    sample = _ask(tracker, SeriesCache(), task)
    assert (len(sample.x), sample.y) == (24, sorted(y for y in sample.y if y is not None))
    assert len(set(sample.y)) == 24


@pytest.mark.alike
def test_a_series_that_was_deleted_is_not_taken_for_its_successor(tracker: Any, server: Any) -> None:
    for second, value in enumerate((1.0, 2.0)):
        run, task = tracker.started()
        infos = [task.metric("m", value=value, step=i) for i in range(3)]
        for info in infos:
            info["metric"]["timestamp"] = f"2026-03-04T05:06:0{second}+00:00"
        tracker.call("log_metrics", task.metrics(*infos))
        assert set(server.get(f"/app/series?task={task.uid}&key=m").json()[0]["y"]) == {value}
        assert tracker.database.write(lambda writer, uid=run.uid: delete_runs(writer.session, [uid])) == 1


@pytest.mark.parametrize("values", [1, 7, 1000])
@pytest.mark.alike
def test_a_long_history_is_a_short_answer(tracker: Any, server: Any, values: int) -> None:
    _, task = tracker.started()
    tracker.call("log_metrics", task.floats("m", 3_000))
    answer = server.get(f"/app/series?task={task.uid}&key=m&values={values}&from=100&to=2099").json()[0]
    assert len(answer["x"]) <= values + 2
    assert sum(answer["counts"]) == 2_002
    assert (min(answer["low"]), max(answer["high"])) == (99, 2_100)


_ENDS = st.tuples(st.none() | st.integers(-5, 320), st.none() | st.integers(-5, 320))
_KINDS = ["steps", "no steps", "back and forth", "texts"]


@pytest.mark.alike
@pytest.mark.parametrize("kind", _KINDS)
@settings(deadline=None, max_examples=scaled(15, 200), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    values=st.lists(_VALUES, min_size=40, max_size=90),
    sealed=st.integers(8, 90),
    asked=st.lists(st.tuples(_ENDS, st.integers(1, 30), st.sampled_from(["step", "time"])), max_size=6),
)
def test_a_chart_of_segments_is_that_of_their_points(
    tracker: Any, small_segments: None, kind: str, values: list[float], sealed: int, asked: Any
) -> None:
    _check_chart(tracker, kind, values, sealed, asked)


@pytest.mark.parametrize("kind", _KINDS)
def test_a_chart_of_segments_is_that_of_their_points_on_each_database(
    tracker: Any, small_segments: None, kind: str
) -> None:
    asked = [((first, last), 6, axis) for first, last in ((None, None), (20, 110)) for axis in ("step", "time")]
    _check_chart(tracker, kind, [math.nan, 1.5, -2.0, math.inf, *map(float, range(66))], 64, asked)


def _check_chart(tracker: Any, kind: str, values: list[float], sealed: int, asked: Any) -> None:
    _, task = tracker.started()
    infos = [task.metric("m", value_float=value, step=2 * place) for place, value in enumerate(values)]
    for place, info in enumerate(infos):
        info["metric"]["timestamp"] = f"2026-03-04T05:{place // 60:02}:{place % 60:02}+00:00"
        if kind == "no steps" or (kind == "back and forth" and place % 50 == 30):
            info["metric"]["step"] = None if kind == "no steps" else 1
    if kind == "texts":
        infos[20]["metric"] |= {"value_str": "text", "value_float": None}
    tracker.call("log_metrics", task.metrics(*infos[:sealed]))
    seal_all(tracker.database)
    tracker.call("log_metrics", task.metrics(*infos[sealed:], task.metric("other", value=1)))
    with tracker.database.read() as session:
        series = find_series(session, task.uid, "m")
        assert series is not None
        points = read_points(session.connection(), series.id, 0, series.points)
    for ends, count, axis in asked:
        if axis == "time":
            begin = int(points.timestamp_us[0]) / 1000
            ends = [None if end is None else begin + 500 * end for end in ends]  # noqa: PLW2901  steps rise by two
        line = line_of(points, axis)
        wanted = sample_line(line, *ends, count)
        found = _ask(tracker, SeriesCache(), task, axis=axis, values=count, first=ends[0], last=ends[1])
        assert (found.axis, found.points, found.texts) == (wanted.axis, wanted.points, wanted.texts)
        assert (found.extent, found.last) == (wanted.extent, wanted.last)
        if found.exact:
            assert (found.x, found.y, found.gaps) == (wanted.x, wanted.y, wanted.gaps)
        else:
            _check_buckets(found, line, ends, count)


def _check_buckets(found: Sample, line: Line, ends: Sequence[float | None], count: int) -> None:
    """Buckets may be those of whole segments: of the points of a part those of two segments may be missing, or more."""
    assert found.x == sorted(found.x)
    assert len(found.x) <= count + 2
    rows = zip(found.low, found.y, found.high, strict=True)
    assert all(low is None or low <= mean <= high for low, mean, high in rows)  # type: ignore[operator]
    unit = 1000 if line.axis == "time" else 1
    low, high = (None if end is None else end * unit for end in ends)
    inside = (line.x >= (-math.inf if low is None else low)) & (line.x <= (math.inf if high is None else high))
    assert sum(found.counts) >= np.count_nonzero(inside) - 16
    if low is None and high is None:
        assert sum(found.counts) == len(line.x)
        assert min((x for x in found.low if x is not None), default=None) == min(line.y.tolist(), default=None)
        assert max((x for x in found.high if x is not None), default=None) == max(line.y.tolist(), default=None)
        assert {name for _, name in found.gaps} == set(np.array(["NaN", "Infinity", "-Infinity"])[line.gap_names])
