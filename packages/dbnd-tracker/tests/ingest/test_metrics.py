from __future__ import annotations

import contextlib
import json
import math
import random
import time
from dataclasses import asdict
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select

from dbnd._model.points import group
from dbnd_tracker._ingest import apply_points
from dbnd_tracker._queries.listing import metric_list
from dbnd_tracker._storage.database import open_database
from dbnd_tracker._storage.encoding import Kind, encode, readable
from dbnd_tracker._storage.models import Attempt, MetricKey, MetricSeries
from dbnd_tracker._storage.points import repeats

if TYPE_CHECKING:
    from pathlib import Path

    from dbnd_tracker._storage.writer import Writer


_KINDS: list[tuple[dict[str, Any], Any, str]] = [
    ({"value": 1, "value_int": 1}, 1, "int"),
    ({"value": -7, "value_int": -7}, -7, "int"),
    ({"value": 3.0, "value_float": 3.0}, 3.0, "float"),
    ({"value_float": math.nan}, "NaN", "float"),
    ({"value_float": math.inf}, "Infinity", "float"),
    ({"value_float": -math.inf}, "-Infinity", "float"),
    ({"value_json": 10**15 + 1}, 10**15 + 1, "int"),
    ({"value_json": 2**60 + 1}, 2**60 + 1, "json"),
    ({"value_int": 10**30}, 10**30, "json"),
    ({"value": True}, True, "json"),
    ({"value_json": False}, False, "json"),
    ({"value_str": "hello\r\nworld"}, "hello\r\nworld", "str"),
    ({"value_str": ""}, "", "str"),
    ({"value_json": [1, "a", None, {"b": math.nan}]}, [1, "a", None, {"b": "NaN"}], "json"),
    ({}, None, "json"),
    # Several at once, as Java sends them: float over int over JSON over text.
    ({"value": "5", "value_str": "5", "value_int": 5}, 5, "int"),
    ({"value_str": "5", "value_int": 5, "value_float": 5.0}, 5.0, "float"),
    ({"value_str": "[1]", "value_json": [1]}, [1], "json"),
]


def test_every_kind_of_value_comes_back(tracker: Any) -> None:
    _, task = tracker.started()
    for number, (members, _, _) in enumerate(_KINDS):
        tracker.call("log_metric", task.metric(f"m{number:02}", **members))

    points = [point for number in range(len(_KINDS)) for point in tracker.history(task, f"m{number:02}")]
    metrics = tracker.task(task).metrics

    wanted = [(value, type(value), kind) for _, value, kind in _KINDS]
    assert [(point.value, type(point.value), point.type) for point in points] == wanted
    assert [(metric.last_value, type(metric.last_value), metric.type) for metric in metrics] == wanted
    for point in points:
        json.dumps(asdict(point), allow_nan=False)


# Lone surrogates and NUL included: clients send what a task printed.
_ANY_TEXT = st.characters(codec=None, categories=None)


def _kept(text: str) -> str:
    return "".join("?" if "\ud800" <= c <= "\udfff" else "\ufffd" if c == "\0" else c for c in text)


@given(
    values=st.lists(st.one_of(st.floats(), st.integers(-(2**70), 2**70), st.text(_ANY_TEXT), st.booleans()), min_size=1)
)
def test_any_list_of_values_comes_back_in_order(tracker: Any, values: list[Any]) -> None:
    _, task = tracker.started()
    tracker.call("log_metrics", task.metrics(*(task.metric("m", value=value) for value in values)))

    found = [point.value for point in tracker.history(task, "m")]

    names = {"inf": "Infinity", "-inf": "-Infinity", "nan": "NaN"}
    wanted = [names.get(repr(value), value) if isinstance(value, float) else value for value in values]
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        assert type(one) is type(other)
        assert one == (_kept(other) if isinstance(other, str) else other)


def test_points_keep_step_and_time(tracker: Any) -> None:
    _, task = tracker.started()
    first = task.metric("loss", value_float=0.5, step=-3, timestamp="1969-12-31T23:59:59.999+00:00")
    second = task.metric("loss", value_float=0.25, step=2**63 - 1, timestamp="2026-03-04T07:06:07.123456+02:00")
    tracker.call("log_metrics", task.metrics(first, second))

    points = [(point.step, point.timestamp, point.value) for point in tracker.history(task, "loss")]

    assert points == [(-3, -1, 0.5), (2**63 - 1, 1772600767123, 0.25)]


@pytest.mark.alike
def test_a_missing_time_is_that_of_receipt(tracker: Any) -> None:
    _, task = tracker.started()
    before = int(time.time() * 1000)
    tracker.call("log_metric", task.metric("m", value_int=1, timestamp=None))

    [point] = tracker.history(task, "m")
    assert before <= point.timestamp <= int(time.time() * 1000)


def test_sums_follow_the_points(tracker: Any) -> None:
    _, task = tracker.started()
    for values in ([3.5, math.nan], [-1.0, 9.0]):
        infos = [task.metric("m", value_float=v, step=i) for i, v in enumerate(values)]
        tracker.call("log_metrics", task.metrics(*infos))
    tracker.call("log_metric", task.metric("m", value_float=5.0, step=7, timestamp="2020-01-01T00:00:00+00:00"))
    tracker.call("log_metric", task.metric("m", value_float=6.0, step=5))

    [metric] = tracker.task(task).metrics

    # The last point is that of the highest step, not the one that came last.
    assert (metric.points, metric.last_value, metric.last_step) == (6, 5.0, 7)
    assert (metric.min, metric.max) == (-1.0, 9.0)


_ADDED = st.tuples(
    st.sampled_from("abc"),
    st.one_of(st.floats(), st.integers(-(2**60), 2**60), st.sampled_from(["", "text"])),
    st.integers(0, 3),
    st.one_of(st.none(), st.integers(-5, 5)),
)


@given(batches=st.lists(st.lists(_ADDED, min_size=1, max_size=6), min_size=1, max_size=4))
def test_sums_are_those_of_all_points(tracker: Any, batches: list[list[tuple[str, Any, int, int | None]]]) -> None:
    _, task = tracker.started()
    for number, batch in enumerate(batches):
        points = [
            (key, value, time_us, step, "s" if isinstance(value, str) else None) for key, value, time_us, step in batch
        ]
        apply_points(tracker.database, [group(task.attempt, f"source {number}", points)])

    with tracker.database.read() as session:
        rows = session.execute(
            select(MetricKey.name, MetricSeries)
            .join(MetricKey, MetricKey.id == MetricSeries.key_id)
            .join(Attempt, Attempt.id == MetricSeries.attempt_id)
            .where(Attempt.uid == task.attempt)
        )
        found = {row.name: row.MetricSeries for row in rows}
    assert found.keys() == {key for batch in batches for key, *_ in batch}
    for key, series in found.items():
        mine = [(*point[1:], number) for number, batch in enumerate(batches) for point in batch if point[0] == key]
        latest = _last(mine)
        stored = [encode(value) for value, *_ in mine]
        numbers = [number for _, number, _ in stored if number is not None]
        assert series.points == len(mine)
        assert (series.last_kind, series.last_value, series.last_text) == encode(latest[0])
        assert (series.last_timestamp_us, series.last_step) == latest[1:3]
        assert (series.min_value, series.max_value) == (min(numbers, default=None), max(numbers, default=None))
        assert series.only_ints == all(kind == Kind.INT for kind, _, _ in stored)
        assert series.source == f"source {mine[-1][3]}"
        values = [readable(value) for value, *_ in mine]
        assert [point.value for point in tracker.history(task, key)] == values


def _last(points: list[Any]) -> Any:
    """The last of points (value, time, step), folded one by one in the order in which they came."""

    def rank(point: Any) -> tuple[int, int, float]:
        _, number, _ = encode(point[0])
        return point[2] or 0, point[1], number or 0.0

    last = points[0]
    for point in points[1:]:
        if rank(point) > rank(last) or (rank(point) == rank(last) and encode(point[0])[0] >= Kind.STR):
            last = point
    return last


@pytest.mark.parametrize("is_one_batch", [True, False])
def test_the_last_value_is_mlflows(tracker: Any, is_one_batch: bool) -> None:
    """The highest step, then the latest time, then the greatest value; no step is the step 0, NaN counts as 0."""
    _, task = tracker.started()
    series = {
        "step": [(0.1, 5, 10), (0.9, 6, 5)],
        "time": [(0.1, 6, 1), (0.9, 5, 1)],
        "value": [(0.9, 5, 1), (0.1, 5, 1)],
        "none": [(0.1, 6, None), (0.9, 5, 0)],
        "negative": [(0.1, 5, None), (0.9, 6, -1)],
        "nan": [(math.nan, 5, 1), (-1.0, 5, 1)],
    }
    for batch in (
        [series] if is_one_batch else [{k: v[:1] for k, v in series.items()}, {k: v[1:] for k, v in series.items()}]
    ):
        points = [(key, *point, None) for key, some in batch.items() for point in some]
        apply_points(tracker.database, [group(task.attempt, "mlflow", points)])

    last = {metric.key: metric.last_value for metric in tracker.task(task).metrics}

    assert last == {"step": 0.1, "time": 0.1, "value": 0.9, "none": 0.1, "negative": 0.1, "nan": "NaN"}


_LOGGED = st.tuples(
    st.sampled_from("ab"),
    st.sampled_from([0.0, 1.0, -1.0, math.nan, math.inf, 7]),
    st.integers(0, 8),
    st.one_of(st.none(), st.integers(0, 3)),
)


@given(batches=st.lists(st.lists(_LOGGED, min_size=1, max_size=20), min_size=1, max_size=5))
def test_a_point_of_mlflow_that_is_logged_twice_is_kept_once(tracker: Any, batches: Any) -> None:
    """Whatever the order, and also across the blocks of points that are looked through."""
    _, task = tracker.started()
    expected: dict[str, dict[Any, None]] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(repeats, "_BLOCK", 3)
        for batch in batches:
            apply_points(
                tracker.database, [group(task.attempt, "mlflow", [(k, v, 1000 * ms, s, None) for k, v, ms, s in batch])]
            )
            for key, value, ms, step in batch:
                expected.setdefault(key, {})[ms, step or 0, str(float(value))] = None

    found = {
        key: [(p.timestamp, p.step or 0, str(float(p.value))) for p in tracker.history(task, key)] for key in expected
    }
    assert found == {key: list(points) for key, points in expected.items()}
    assert {m.key: m.points for m in tracker.task(task).metrics} == {k: len(points) for k, points in expected.items()}


def test_points_in_any_order_take_no_more_work_the_more_there_are(tmp_path: Path, make_run: Any) -> None:
    """Counted in steps of SQLite's machine, which are the same each time."""
    uid, size = make_run().task().attempt, 500
    times = random.Random(1).sample(range(30 * size), 30 * size)
    steps = [0]
    with contextlib.closing(open_database(f"sqlite:///{tmp_path / 'tracker.db'}")) as database:
        for first in range(0, len(times), size):
            points = [("loss", time / 7, 1000 * time, None, None) for time in times[first : first + size]]
            apply_points(database, [group(uid, "mlflow", points)])
            if not first:
                database.write(partial(_count_steps, steps))
            steps.append(steps[0])

    taken = [after - before for before, after in pairwise(steps)]
    assert max(taken[-5:]) < 1.5 * max(taken[2:7])


def _count_steps(steps: list[int], writer: Writer) -> None:
    def count() -> None:
        steps[0] += 1

    driver: Any = writer.session.connection().connection.dbapi_connection
    driver.set_progress_handler(count, 100)


def test_points_of_other_sources_stay_as_they_were_logged(tracker: Any) -> None:
    _, task = tracker.started()
    points = [("m", 1.0, 5, 1, None)] * 2
    both = [group(task.attempt, "user", points), group(task.attempt, "mlflow", [*points, ("m", 2.0, 6, 2, None)] * 2)]

    apply_points(tracker.database, both)

    [metric] = tracker.task(task).metrics
    assert sorted(p.value for p in tracker.history(task, "m")) == [1.0, 1.0, 2.0]
    assert metric.points == 3


def test_bounds_of_ints_are_ints_and_text_has_none(tracker: Any) -> None:
    _, task = tracker.started()
    infos = [task.metric("n", value_int=i) for i in (4, 2)]
    tracker.call("log_metrics", task.metrics(*infos, task.metric("s", value_str="x")))

    numbers, text = tracker.task(task).metrics

    assert (numbers.min, numbers.max) == (2, 4)
    assert isinstance(numbers.min, int)
    assert (text.min, text.max) == (None, None)


def test_params_and_tags_are_no_metrics(tracker: Any) -> None:
    _, task = tracker.started()
    for value in ("0.10", "0.20"):
        param = task.metric("lr", "mlflow.param", value=float(value), value_str=value, value_json=float(value))
        tag = task.metric("team", "mlflow.tag", value=value, value_str=value)
        tracker.call("log_metrics", task.metrics(param, tag, task.metric("deep", "mlflow.param", value_json=[1, 2])))

    view = tracker.task(task)

    assert view.metrics == []
    # An argument of the task may bear the name of a param that was logged.
    assert sorted((p.source, p.name, p.value) for p in view.params) == [
        ("mlflow.param", "deep", "[1, 2]"),
        ("mlflow.param", "lr", "0.20"),
        ("task", "lr", "0.1"),
    ]
    assert [(t.name, t.value) for t in view.tags] == [("team", "0.20")]


def test_a_long_param_comes_back_whole(tracker: Any) -> None:
    _, task = tracker.started()
    cut, whole = "x" * 5_000, "x" * 6_000
    tracker.call("log_metrics", task.metrics(task.metric("long", "mlflow.param", value=cut, value_str=cut, text=whole)))

    assert [p.value for p in tracker.task(task).params if p.name == "long"] == [whole]


@pytest.mark.alike
def test_ten_thousand_points_in_one_call(tracker: Any) -> None:
    _, task = tracker.started()
    tracker.call("log_metrics", task.floats("loss", 10_000))

    points = tracker.history(task, "loss", limit=10_000)

    assert [point.step for point in points] == list(range(10_000))
    assert tracker.task(task).metrics[0].points == 10_000


@pytest.mark.alike
def test_many_keys_and_attempts_in_one_call(tracker: Any, make_run: Any) -> None:
    run = make_run()
    tasks = [run.task(f"t{i}") for i in range(30)]
    infos = [task.metric(f"k{i:02}", value_int=i) for task in tasks for i in range(50)]
    tracker.call("log_metrics", {"metrics_info": infos})

    for task in tasks:
        tracker.call("update_task_run_attempts", task.update("RUNNING"))
    with tracker.database.read() as session:
        found = [metric_list(session, task.uid).data for task in tasks]
    assert [[metric.last_value for metric in metrics] for metrics in found] == [list(range(50))] * 30


@pytest.mark.alike
def test_histories_are_read_in_pages(tracker: Any, server: Any) -> None:
    _, task = tracker.started()
    tracker.call("log_metrics", task.floats("loss", 25))

    steps, after = [], 0
    while after is not None:
        page = server.get(
            f"/api/v1/task-runs/{task.uid}/metrics/history", params={"key": "loss", "limit": 10, "after": after}
        ).json()
        steps.append([point["step"] for point in page["data"]])
        after = page["after"]

    assert steps == [list(range(10)), list(range(10, 20)), list(range(20, 25))]


def test_names_longer_than_an_index_takes_are_cut(tracker: Any) -> None:
    _, task = tracker.started()
    tracker.call("log_metric", task.metric("é" * 5000, value_int=1))

    assert tracker.task(task).metrics[0].key == "é" * 500


def test_text_that_no_database_keeps_is_mended(tracker: Any) -> None:
    _, task = tracker.started()
    tracker.call("log_metric", task.metric("k\0", value_str="half \ud83d of a pair"))

    [metric] = tracker.task(task).metrics
    assert (metric.key, metric.last_value) == ("k\ufffd", "half ? of a pair")
