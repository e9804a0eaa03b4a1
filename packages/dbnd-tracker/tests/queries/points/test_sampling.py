from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbnd._model.points import group
from dbnd_tracker._ingest import apply_points
from dbnd_tracker._queries.points.series import sampled_places


def _log(tracker: Any, task: Any, values: list[Any]) -> None:
    marks = ["s" if isinstance(value, str) else None for value in values]
    points = [("m", value, 10**15 + i, i, marks[i]) for i, value in enumerate(values)]
    apply_points(tracker.database, [group(task.attempt, "user", points)])


def _history(server: Any, task: Any, samples: int) -> Any:
    answer = server.get(f"/api/v1/task-runs/{task.uid}/metrics/history", params={"key": "m", "samples": samples})
    assert answer.status_code == 200
    return answer.json()


@pytest.mark.alike
def test_a_long_history_is_shown_by_its_shape(tracker: Any, server: Any) -> None:
    _, task = tracker.started()
    values = [math.sin(i / 700) for i in range(20_000)]
    values[4_321], values[13_579] = 9.0, -9.0
    _log(tracker, task, values)

    found = _history(server, task, 500)

    steps = [point["step"] for point in found["data"]]
    assert found["total"] == 20_000
    assert found["after"] is None
    assert 450 < len(steps) <= 500
    assert steps == sorted(set(steps))
    assert {0, 4_321, 13_579, 19_999} <= set(steps)
    # Every point is one that was logged, and a line through them is never far from the others.
    assert all(point["value"] == values[point["step"]] for point in found["data"])
    line = np.interp(range(20_000), steps, [values[step] for step in steps])
    distances = np.abs(line - np.array(values))
    peaks = np.isin(np.arange(20_000) // 100, [41, 42, 43, 44, 45, 133, 134, 135, 136, 137])
    assert distances[~peaks].max() < 0.1


@pytest.mark.alike
def test_a_short_history_is_shown_whole(tracker: Any, server: Any) -> None:
    _, task = tracker.started()
    values = [1.5, math.nan, "text", 7, math.inf] * 5
    _log(tracker, task, values)

    found = _history(server, task, 25)

    assert [point["value"] for point in found["data"]] == [1.5, "NaN", "text", 7, "Infinity"] * 5


def test_where_numbers_end_and_begin_is_shown(tracker: Any, server: Any) -> None:
    _, task = tracker.started()
    values: list[Any] = [float(i) for i in range(3_000)]
    values[500] = math.nan
    values[1_000:1_100] = [math.nan] * 100
    values[2_000:2_003] = ["a", math.inf, math.nan]
    _log(tracker, task, values)

    found = _history(server, task, 100)

    shown = {point["step"]: point["value"] for point in found["data"]}
    assert len(shown) <= 100
    assert {step for step in shown if not isinstance(values[step], float) or not math.isfinite(values[step])} == {
        500,
        1_000,
        1_099,
        2_000,
        2_002,
    }
    assert shown[500] == shown[1_099] == "NaN"
    assert shown[2_000] == "a"


@pytest.mark.parametrize("samples", [9, 0, -1, 10_001, "x"])
@pytest.mark.alike
def test_other_numbers_of_samples_are_refused(server: Any, make_run: Any, samples: Any) -> None:
    path = f"/api/v1/task-runs/{make_run().task().uid}/metrics/history"
    assert server.get(path, params={"key": "m", "samples": samples}).status_code == 422


@pytest.mark.alike
def test_a_metric_that_is_not_known_has_no_points(server: Any, make_run: Any) -> None:
    found = _history(server, make_run().task(), 100)
    assert (found["data"], found["total"]) == ([], 0)


@given(
    values=st.lists(st.one_of(st.floats(), st.just(math.nan), st.just(0.0)), max_size=300),
    count=st.integers(10, 60),
)
def test_any_values_are_sampled(values: list[float], count: int) -> None:
    found = sampled_places(np.array(values, float), count).tolist()

    assert found == sorted(set(found))
    assert len(found) <= count
    assert set(found) <= set(range(len(values)))
    if len(values) <= count:
        assert len(found) == len(values)
    elif all(map(math.isfinite, values)):
        assert found[0] == 0
        assert found[-1] == len(values) - 1
