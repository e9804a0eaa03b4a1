from __future__ import annotations

import math
import os
import threading

import click
import pytest

from dbnd import new_dbnd_context
from dbnd._cli.progress import MAX_TASKS, RunProgress, Series
from dbnd._cli.summary import summary
from dbnd._context.registry import create_transport, load_config
from dbnd._model.points import deleted_point, group, point, text_point
from dbnd._model.run import Run, TaskDefinition, TaskRunState
from dbnd._tracking.client import TrackingAPIClient


@pytest.fixture
def run():
    return Run("job", "run")


@pytest.fixture
def client(server):
    client = TrackingAPIClient(server.url, load_config(), create_transport)
    yield client
    client.close()


def test_a_series_is_summed_up():
    series = Series("loss")
    for time, value in enumerate((3, 1.0, float("nan"), 2)):
        series.add(point("loss", value, time))
    assert (series.last, series.low, series.high) == (2, 1.0, 3)
    series.add(point("loss", "text", 4))
    assert (series.last, series.low, series.high) == ("text", 1.0, 3)
    assert len(series.history) == 4


def test_a_long_series_takes_no_more_memory_than_a_short_one():
    series = Series("loss")
    for value in range(100_000):
        series.add(point("loss", value, value))
    assert len(series.history) < 128
    assert (series.low, series.high, series.last) == (0, 99_999, 99_999)
    assert series.history == sorted(series.history)
    assert series.history == list(range(0, 100_000, series.every))


def test_a_series_that_threads_log_is_drawn_by_step_and_time():
    series = Series("loss")
    for value, time, step in ((3.0, 30, 2), (1.0, 10, 1), (4.0, 20, 3), (2.0, 20, 2)):
        series.add(point("loss", value, time, step))
    assert series.history == [1.0, 2.0, 3.0, 4.0]


@pytest.mark.parametrize(
    ("points", "last"),
    [
        ([(0.1, 5, 10), (0.9, 9, 5)], 0.1),  # the highest step, whenever it comes
        ([(0.1, 5, None), (0.9, 4, 0)], 0.1),  # then the latest time; no step is the step 0
        ([(0.9, 5, 1), (0.1, 5, 1)], 0.9),  # then the greatest value
        ([(math.nan, 5, 1), (-1.0, 5, 1)], "nan"),  # NaN counts as 0
        ([(math.nan, 5, 1), (1.0, 5, 1)], 1.0),
        ([(7, 5, -1), (8, 4, None)], 8),
        ([("a", 5, 1), ("b", 5, 1)], "b"),
    ],
)
def test_the_last_value_of_a_series_is_that_of_mlflow(points, last):
    series = Series("loss")
    for value, time, step in points:
        series.add(point("loss", value, time, step))
    assert str(series.last) == str(last)


def test_a_task_run_that_is_reopened_is_counted_by_its_last_state(run):
    progress = RunProgress(run, None)
    trial = run.new_task_run(TaskDefinition("trial"), parent=None)
    trial.enter(TaskRunState.FAILED, trial.start_time)
    assert [task.task_run for task in progress.update()] == [trial]
    trial.enter(TaskRunState.RUNNING, trial.start_time)
    assert progress.update() == []
    assert click.unstyle(summary(progress)).split() == ["tasks", "1", "not", "ended"]
    trial.enter(TaskRunState.SUCCESS, trial.start_time)
    assert [task.task_run for task in progress.update()] == [trial]
    assert click.unstyle(summary(progress)).split() == ["tasks", "1", "succeeded"]


def test_points_params_and_states_arrive(run, client):
    progress = RunProgress(run, client)
    root = run.new_task_run(TaskDefinition("root"), parent=None, params={"n": "1"})
    child = run.new_task_run(TaskDefinition("child"), parent=root)
    client.log_metrics(
        [
            group(root.attempt_uid, "user", [point("loss", 0.5, 0), point("loss", 0.25, 1)]),
            group(child.attempt_uid, "mlflow.param", [text_point("depth", "3", 0)]),
            group(child.attempt_uid, "mlflow.tag", [text_point("team", "a", 0), deleted_point("gone", 0)]),
            group("unknown", "user", [point("x", 1, 0)]),
        ]
    )
    assert progress.update() == []
    root_progress, child_progress = progress.tasks.values()
    assert root_progress.series["loss"].last == 0.25
    assert root_progress.params == {"n": "1"}
    assert (child_progress.params, child_progress.series) == ({"depth": "3"}, {})
    assert progress.parent_of(child_progress) is root_progress
    child.enter(TaskRunState.SUCCESS, child.start_time)
    assert progress.update() == [child_progress]
    assert progress.update() == []
    assert progress.ended == {TaskRunState.SUCCESS: 1}
    assert progress.started == 2
    progress.close()
    client.log_metrics([group(root.attempt_uid, "user", [point("loss", 9, 0)])])
    progress.update()
    assert root_progress.series["loss"].last == 0.25


def test_a_run_of_very_many_tasks_is_counted_and_not_kept(run):
    progress = RunProgress(run, None)
    root = run.new_task_run(TaskDefinition("root"), parent=None)
    for number in range(5 * MAX_TASKS):
        task_run = run.new_task_run(TaskDefinition("t"), parent=root)
        task_run.enter(TaskRunState.FAILED if number == 7 else TaskRunState.SUCCESS, task_run.start_time)
        if number % 100 == 0:
            progress.update()
    progress.update()
    assert progress.started == 5 * MAX_TASKS + 1
    assert progress.ended == {TaskRunState.SUCCESS: 5 * MAX_TASKS - 1, TaskRunState.FAILED: 1}
    assert len(progress.tasks) <= MAX_TASKS + 1
    assert root.attempt_uid in progress.tasks


def test_threads_log_while_the_progress_is_read(run, client):
    progress = RunProgress(run, client)
    root = run.new_task_run(TaskDefinition("root"), parent=None)

    def log():
        for number in range(2_000):
            client.log_metrics([group(root.attempt_uid, "user", [point("n", number, 0)])])

    threads = [threading.Thread(target=log) for _ in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        progress.update()
    progress.update()
    series = progress.tasks[root.attempt_uid].series["n"]
    assert (series.low, series.high) == (0, 1_999)
    assert series.count == 8_000


def test_a_forked_child_is_watched_by_nobody(run, server):
    with new_dbnd_context({"core.databand_url": server.url, "core.databand_access_token": "t"}) as context:
        progress = RunProgress(run, context.client)
        child = os.fork()
        if child == 0:
            os._exit(0 if context.client.watch is None else 1)
        assert os.waitpid(child, 0)[1] == 0
        assert context.client.watch is not None
        progress.close()
