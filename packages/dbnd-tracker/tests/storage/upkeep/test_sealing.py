"""Points that were sealed are the points that were logged."""

from __future__ import annotations

import json
import threading
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import event, func, select, text

from dbnd_tracker._errors import PayloadError, StorageError
from dbnd_tracker._storage.encoding import readable
from dbnd_tracker._storage.models import MetricSeries, Run
from dbnd_tracker._storage.points.models import Metric, Segment
from dbnd_tracker._storage.upkeep import sealing
from dbnd_tracker._storage.upkeep.deletion import delete_runs
from dbnd_tracker._storage.upkeep.sealing import fresh_points, seal_all, seal_ended, seal_full

START = datetime(2026, 3, 4, tzinfo=timezone.utc)
# Numbers that doubles, JSON and SQL treat apart, and values that are no numbers.
_VALUES = st.one_of(
    st.floats().map(lambda value: value + 0.0),  # SQLite has no -0.0
    st.integers(-(2**70), 2**70),
    st.sampled_from([2**53, 2**53 + 1, 5e-324, True, None, "text", "é\n\U0001f600", [1, "a"]]),
    st.text(max_size=5),
)
_POINTS = st.lists(
    st.tuples(_VALUES, st.none() | st.integers(-(2**63), 2**63 - 1), st.integers(0, 10**9)), min_size=1, max_size=25
)
_DOINGS = st.lists(_POINTS | st.sampled_from(["end", "seal", "delete another"]), max_size=12)


def _log(tracker: Any, task: Any, key: str, points: list[tuple[Any, int | None, int]]) -> None:
    infos = [task.metric(key, value_json=value, step=step) | {"source": "user"} for value, step, _ in points]
    for info, (_, _, seconds) in zip(infos, points, strict=True):
        info["metric"]["timestamp"] = (START + timedelta(seconds=seconds)).isoformat()
    tracker.call("log_metrics", task.metrics(*infos))


def _counts(tracker: Any) -> tuple[int, int]:
    """How many points are rows, and how many are in segments."""
    with tracker.database.read() as session:
        rows = session.scalar(select(func.count()).select_from(Metric))
        return rows, int(session.scalar(select(func.sum(Segment.points))) or 0)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(doings=_DOINGS)
def test_whatever_is_done_a_history_is_the_list_of_what_was_logged(
    tracker: Any, small_segments: None, doings: list[Any]
) -> None:
    run, task = tracker.started()
    logged: list[tuple[Any, int | None, int]] = []
    for doing in doings:
        if doing == "end":
            tracker.call("set_run_state", run.state("SUCCESS"))
        elif doing == "seal":
            seal_all(tracker.database)
        elif doing == "delete another":
            other, its = tracker.started()
            _log(tracker, its, "m", [(1.5, 1, 1)] * 5)
            seal_all(tracker.database)
            tracker.database.write(lambda writer, uid=other.uid: delete_runs(writer.session, [uid]))
        else:
            _log(tracker, task, "m", doing)
            logged += doing
        found = [(point.value, point.step, point.timestamp) for point in tracker.history(task, "m")]
        wanted = [(readable(value), step, int((START.timestamp() + s) * 1000)) for value, step, s in logged]
        assert repr(found) == repr(wanted)  # where 1 is not True
        part = tracker.history(task, "m", limit=7, after=3)
        assert [(point.value, point.step, point.timestamp) for point in part] == found[3:10]


@pytest.mark.alike
def test_whole_stretches_are_sealed_while_a_run_goes_on_and_the_rest_when_it_has_ended(
    tracker: Any, small_segments: None
) -> None:
    run, task = tracker.started()
    tracker.call("log_metrics", task.floats("m", 21))
    tracker.call("log_metrics", task.floats("few", 1))
    assert seal_full(tracker.database) == 16
    assert seal_full(tracker.database) == 0
    assert seal_ended(tracker.database, timedelta()) is None
    assert _counts(tracker) == (6, 16)

    tracker.call("set_run_state", run.state("SUCCESS"))
    assert seal_ended(tracker.database, timedelta(days=10_000)) is None
    assert seal_ended(tracker.database, timedelta()) == 5
    assert seal_ended(tracker.database, timedelta()) is None
    assert _counts(tracker) == (1, 21)  # one point is no smaller as a segment

    tracker.call("set_run_state", run.state("RUNNING", "2026-03-05T05:06:07+00:00"))
    tracker.call("log_metrics", task.metrics(*(task.metric("m", value=i, step=i) for i in range(100, 105))))
    assert _counts(tracker) == (6, 21)
    tracker.call("set_run_state", run.state("SUCCESS", "2026-03-06T05:06:07+00:00"))
    assert seal_ended(tracker.database, timedelta()) == 5
    assert len(tracker.history(task, "m")) == 26


def test_what_comes_when_its_run_is_sealed_is_sealed_later(tracker: Any, small_segments: None) -> None:
    run, task = tracker.started()
    tracker.call("log_metrics", task.floats("m", 5))
    tracker.call("set_run_state", run.state("SUCCESS"))
    assert seal_all(tracker.database) == 5
    tracker.call("log_metrics", task.floats("m", 3))
    tracker.call("log_metrics", task.floats("late", 4))
    assert seal_all(tracker.database) == 7
    assert _counts(tracker) == (0, 12)
    assert seal_all(tracker.database) == 0


def test_many_runs_are_sealed_a_few_at_a_time(tracker: Any, small_segments: None) -> None:
    tasks = []
    for _ in range(30):
        run, task = tracker.started()
        tracker.call("log_metrics", task.floats("m", 3))
        tracker.call("set_run_state", run.state("FAILED"))
        tasks.append(task)
    told: list[int] = []
    assert fresh_points(tracker.database) == 90
    assert seal_all(tracker.database, told.append) == 90
    assert told == sorted(told)
    assert len(told) > 2
    assert fresh_points(tracker.database) == 0
    assert all(len(tracker.history(task, "m")) == 3 for task in tasks)


@pytest.mark.alike
def test_the_command_seals_what_it_can(tracker: Any, database_url: str, dbnd: Any) -> None:
    run, task = tracker.started()
    tracker.call("log_metrics", task.floats("m", 5_000))
    command = ("tracker", "seal", "--database", database_url)

    first = dbnd(*command)
    assert (first.returncode, "4096 points compressed in" in first.stderr) == (0, True), first
    tracker.call("set_run_state", run.state("SUCCESS"))
    second = dbnd(*command, "--vacuum", "--json")
    assert (second.returncode, json.loads(second.stdout)["points"]) == (0, 904), second
    assert "0 points compressed in" in dbnd(*command).stderr
    assert [point.value for point in tracker.history(task, "m")] == list(map(float, range(5_000)))


def test_a_point_that_was_sealed_is_known_when_it_comes_again(tracker: Any, small_segments: None) -> None:
    _, task = tracker.started()
    points = [task.metric("m", "mlflow", value=i % 3, step=i % 7) for i in range(20)]
    tracker.call("log_metrics", task.metrics(*points))
    found = tracker.history(task, "m")
    assert len(found) == 20
    seal_all(tracker.database)
    tracker.database.close()
    tracker.call("log_metrics", task.metrics(*points, task.metric("m", "mlflow", value=5, step=3)))
    assert tracker.history(task, "m")[:20] == found
    assert len(tracker.history(task, "m")) == 21


def test_sealers_and_writers_at_once_lose_nothing(tracker: Any, small_segments: None) -> None:
    tasks = [tracker.started()[1] for _ in range(3)]
    stop = threading.Event()
    errors: list[Exception] = []

    def write(task: Any) -> None:
        for part in range(12):
            _log(tracker, task, "m", [(float(part * 10 + i), i, part) for i in range(10)])

    def keep_sealing() -> None:
        while not stop.is_set():
            try:
                seal_all(tracker.database)
            except (PayloadError, StorageError) as error:
                errors.append(error)
                return

    sealers = [threading.Thread(target=keep_sealing) for _ in range(2)]
    writers = [threading.Thread(target=write, args=(task,)) for task in tasks]
    for thread in sealers + writers:
        thread.start()
    for thread in writers:
        thread.join()
    stop.set()
    for thread in sealers:
        thread.join()
    assert not errors
    for task in tasks:
        assert [point.value for point in tracker.history(task, "m")] == list(map(float, range(120)))
    seal_all(tracker.database)
    assert _counts(tracker)[1] == 3 * 120


@pytest.mark.parametrize("statement", ["UPDATE metric_series", "INSERT INTO segments", "DELETE FROM metrics"])
def test_what_fails_in_between_changes_nothing(tracker: Any, small_segments: None, statement: str) -> None:
    _, task = tracker.started()
    tracker.call("log_metrics", task.floats("m", 20))
    before = tracker.history(task, "m"), _counts(tracker)

    def fail(*arguments: Any) -> None:
        if arguments[2].startswith(statement):
            raise OSError("the power is gone")

    event.listen(tracker.database._engine, "before_cursor_execute", fail)
    with pytest.raises(StorageError, match="the power is gone"):
        seal_full(tracker.database)
    event.remove(tracker.database._engine, "before_cursor_execute", fail)
    assert (tracker.history(task, "m"), _counts(tracker)) == before
    assert seal_all(tracker.database) == 20 - 20 % 8
    assert tracker.history(task, "m") == before[0]


def test_rows_that_somebody_deleted_by_hand_stop_nobody(tracker: Any, small_segments: None) -> None:
    run, task = tracker.started()
    tracker.call("log_metrics", task.floats("m", 20))
    tracker.call("set_run_state", run.state("SUCCESS"))
    tracker.database.write(lambda writer: writer.session.execute(text("DELETE FROM metrics WHERE number = 3")))
    assert seal_all(tracker.database) == 0
    with tracker.database.read() as session:
        assert session.scalar(select(Run.is_sealed))
        assert session.scalar(select(MetricSeries.sealed).where(MetricSeries.points == 20)) == 0


@pytest.mark.alike
def test_the_thread_of_a_server_seals(tracker: Any, small_segments: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealing, "_IDLE", 0.01)
    monkeypatch.setattr(sealing, "_SETTLED", timedelta())
    sealed = threading.Event()
    seal = sealing._seal  # returns when it is committed
    monkeypatch.setattr(sealing, "_seal", lambda *work: (seal(*work), sealed.set())[0])
    _, task = tracker.started()
    tracker.call("log_metrics", task.floats("m", 21))
    with sealing.sealing(tracker.database):
        assert sealed.wait(60)
    assert _counts(tracker) == (5, 16)
