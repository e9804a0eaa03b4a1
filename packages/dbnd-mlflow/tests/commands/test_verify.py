"""What ``dbnd mlflow verify`` sees: points as often as they are there, last values, and facts of runs."""

from __future__ import annotations

import contextlib
import json
import math
import sqlite3

import numpy as np
import pytest
from click.testing import CliRunner
from kit.reports import deliver
from mlflow import MlflowClient
from mlflow.entities import Metric, RunTag
from mlflow.tracking._tracking_service.utils import _get_store

from dbnd._context.registry import create_reader, load_config
from dbnd_mlflow import build_composite_uri
from dbnd_mlflow._commands import cli
from dbnd_mlflow._reporting import derived

pytest.importorskip("dbnd_tracker")
FIRST = 1_600_000_000_000  # ms


@pytest.fixture
def inner(request, inner_uri, tmp_path):
    """A store by its kind."""
    if getattr(request, "param", "sqlite") == "sqlite":
        return inner_uri
    (tmp_path / "runs").mkdir()
    return (tmp_path / "runs").as_uri()


@pytest.fixture
def database(home):
    """Runs a statement in the embedded tracker's database."""

    def execute(statement, *values):
        with contextlib.closing(sqlite3.connect(home / "dbnd/tracker.db")) as connection, connection:
            return connection.execute(statement, values).fetchall()

    return execute


@pytest.fixture
def own(inner):
    return MlflowClient(tracking_uri=inner)


@pytest.fixture
def tracked(home, monkeypatch, inner, own):
    """Id of a run that was tracked live, with a child of its own."""
    url = f"sqlite:///{home / 'dbnd/tracker.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", inner)
    monkeypatch.setenv("DBND__CORE__DATABAND_URL", url)
    client = MlflowClient(tracking_uri=build_composite_uri(url, inner))
    experiment = client.create_experiment("e")
    run_id = client.create_run(experiment, run_name="r", tags={"mlflow.note.content": "n"}).info.run_id
    client.log_batch(run_id, [Metric("loss", value, FIRST + n, n) for n, value in enumerate((0.5, 0.3, 0.2))])
    child = client.create_run(experiment, run_name="child", tags={"mlflow.parentRunId": run_id}).info.run_id
    for each in (child, run_id):
        client.set_terminated(each)
    deliver()
    return run_id


def verify(*args):
    done = CliRunner().invoke(cli.mlflow, ["verify", "--json", *args], catch_exceptions=False)
    return [(d["what"], d["name"], d["mlflow"], d["tracker"]) for d in json.loads(done.stdout)]


@pytest.mark.parametrize("inner", ["sqlite", "file"], indirect=True)
def test_points_that_are_logged_twice_are_equal_on_both_sides(tracked, own, home, inner):
    client = MlflowClient(tracking_uri=build_composite_uri(f"sqlite:///{home / 'dbnd/tracker.db'}", inner))
    for _ in range(3):
        client.log_metric(tracked, "loss", 0.3, timestamp=FIRST + 1, step=1)
    client.log_batch(tracked, [Metric("twice", 1.0, FIRST, 1)] * 2)
    deliver()
    assert verify() == []


def test_a_point_that_the_tracker_has_twice_is_a_difference(tracked, database):
    database("INSERT INTO metrics SELECT series_id, number + 3, step, timestamp_us, value, kind, text FROM metrics")
    database("UPDATE metric_series SET points = 2 * points")  # as many are read
    again = f"0.5 at step 0, {FIRST} ms once more and 2 more"
    assert verify() == [("metric", "loss", "all of the other's", again)]


@pytest.mark.parametrize(
    ("column", "value"), [("last_value", 0.9), ("last_step", 7), ("last_timestamp_us", FIRST * 1000 + 5_000)]
)
def test_another_last_value_is_a_difference(tracked, database, column, value):
    database(f"UPDATE metric_series SET {column} = ?", value)
    ((what, name, left, right),) = verify()
    assert (what, name, left) == ("last value", "loss", f"0.2 at step 2, {FIRST + 2} ms")
    assert right != left


def test_last_values_go_by_step_then_time_then_value(tracked, own, home, inner):
    client = MlflowClient(tracking_uri=build_composite_uri(f"sqlite:///{home / 'dbnd/tracker.db'}", inner))
    for value, timestamp, step in [(0.1, 5, 10), (0.9, 9, 5), (0.4, 6, 10), (0.3, 6, 10), (math.nan, 6, 10)]:
        client.log_metric(tracked, "m", value, timestamp=FIRST + timestamp, step=step)
    deliver()
    assert verify() == []


def test_each_fact_of_a_run_that_differs_is_named(tracked, own, database):
    own.set_tag(tracked, "mlflow.note.content", "other")
    own.rename_experiment(own.get_run(tracked).info.experiment_id, "renamed")
    database("UPDATE runs SET user_name = 'nobody', name = 'x', state = 'failed'")
    database("UPDATE attempts SET start_time = datetime(start_time, '-1 day'), end_time = datetime(end_time, '+1 day')")
    database("DELETE FROM task_relations")
    database(
        "INSERT INTO tags (attempt_id, name, value) SELECT id, 'dbnd.lifecycle_stage', 'deleted' FROM attempts "
        "WHERE task_run_uid = ?",
        derived.uid_of(tracked),
    )
    found = {(what, name) for what, name, *_ in verify(tracked)}
    assert found == {
        ("status", "of the run"),
        *((what, "") for what in ("start", "end", "name", "user", "experiment", "description", "stage")),
        ("tag", "mlflow.note.content"),
    }
    experiment = own.get_run(tracked).info.experiment_id
    (child,) = [run.info.run_id for run in own.search_runs([experiment]) if run.info.run_id != tracked]
    assert ("parent", "") in {(what, name) for what, name, *_ in verify(child)}


def test_what_people_have_changed_in_the_tracker_stays_and_is_no_difference(tracked, own, home, inner):
    """Whatever MLflow says of it later, live or by an import; all else is compared and brought over as ever."""
    own.set_tag(tracked, "stage", "raw")
    from dbnd_tracker._ingest import edit_run
    from dbnd_tracker._storage.database import open_database

    uid, tags = derived.uid_of(tracked), {"stage": "good"}
    with contextlib.closing(open_database(f"sqlite:///{home / 'dbnd/tracker.db'}")) as opened:
        opened.write(lambda writer: edit_run(writer, uid, name="mine", description=None, tags=tags))
    assert verify() == []
    own.set_tag(tracked, "stage", "cooked")
    live = MlflowClient(tracking_uri=build_composite_uri(f"sqlite:///{home / 'dbnd/tracker.db'}", inner))
    live.update_run(tracked, name="theirs")
    live.set_tag(tracked, "mlflow.note.content", "later")
    deliver()
    own.set_tag(tracked, "other", "1")
    assert verify() == [("tag", "other", "1", "(none)")]
    done = CliRunner().invoke(cli.mlflow, ["import", "--from", inner], catch_exceptions=False)
    assert done.exit_code == 0
    assert verify() == []
    with contextlib.closing(create_reader(load_config())) as reader:
        run, task_run = reader.run_summary(uid), reader.task_run(uid)
    assert (run["name"], run["mlflow_run_name"], run["description"]) == ("mine", "theirs", "later")
    assert {tag["name"]: tag["value"] for tag in task_run["tags"]}["stage"] == "good"


def test_a_run_of_databand_2_0_is_found_by_what_the_tracker_says(tracked, own, database):
    """It said by four tags which task run a run is, and not for which run they were made."""
    uid = derived.uid_of(tracked)
    other = "00000000-0000-4000-8000-000000000001"
    attempt = derived.attempt_uid(uid)
    database("UPDATE task_runs SET uid = ? WHERE uid = ?", other, uid)
    database("UPDATE attempts SET task_run_uid = ? WHERE task_run_uid = ?", other, uid)
    database("UPDATE task_relations SET from_uid = ?", other)
    assert ("run", "r", "exists", "(none)") in verify()
    for name, value in (("run_uid", uid), ("task_run_uid", other), ("task_run_attempt_uid", attempt)):
        own.set_tag(tracked, f"dbnd.{name}", value)
    assert verify() == []
    # A copy carries the same tags, and is another run.
    copy = own.create_run("0", tags=own.get_run(tracked).data.tags).info.run_id
    assert verify() == [("run", "r", "exists", "(none)")]
    assert verify(copy) == verify()


def test_a_step_of_numpy_which_sqlite_keeps_as_bytes_is_imported_and_compared(tracked, own, inner):
    own.log_metric(tracked, "m", 1.0, timestamp=np.int64(FIRST), step=np.int32(-3))
    assert own.get_metric_history(tracked, "m")[0].step == np.int32(-3).tobytes()
    missing = f"1.0 at step -3, {FIRST} ms"
    assert verify() == [("metric", "m", missing, "all of the other's")]
    CliRunner().invoke(cli.mlflow, ["import", "--from", inner], catch_exceptions=False)
    assert verify() == []


def test_a_value_that_is_no_number_is_a_difference_and_no_error(tracked, database):
    database("UPDATE metrics SET value = NULL, kind = 2, text = 'much' WHERE step = 1")
    ((what, name, left, right),) = verify()
    assert (what, name, left) == ("metric", "loss", f"0.3 at step 1, {FIRST + 1} ms")
    assert right == f"'much' at step 1, {FIRST + 1} ms"


def test_what_sqlite_stores_of_values_that_are_no_text_and_no_whole_numbers_is_no_difference(tracked, own, home, inner):
    client = MlflowClient(tracking_uri=build_composite_uri(f"sqlite:///{home / 'dbnd/tracker.db'}", inner))
    tags = {"fold": 3, "mlflow.note.content": 5, "word": "w"}
    run_id = client.create_run(own.get_run(tracked).info.experiment_id, tags=tags).info.run_id
    client.log_batch(run_id, tags=[RunTag("raw", b"1")])
    client.log_metric(run_id, "loss", 0.1, timestamp=FIRST, step=math.inf)
    client.log_metric(run_id, "loss", 0.2, timestamp=math.inf)
    client.log_metric(run_id, "late", 0.3, timestamp=2**63 - 1)
    deliver()
    assert verify(run_id) == []
    client.update_run(run_id, name=7)
    deliver()
    assert own.get_run(run_id).info.run_name == "7"
    assert verify(run_id) == []


def test_what_sqlite_stores_of_times_of_runs_is_no_difference(tracked, own, home, inner):
    client = MlflowClient(tracking_uri=build_composite_uri(f"sqlite:///{home / 'dbnd/tracker.db'}", inner))
    run_id = client.create_run(own.get_run(tracked).info.experiment_id, start_time="7").info.run_id
    deliver()
    assert (own.get_run(run_id).info.start_time, verify(run_id)) == (7, [])
    for end in ("x", 1.5, math.inf):
        client.set_terminated(run_id, end_time=end)
        deliver()
        assert (own.get_run(run_id).info.end_time, verify(run_id)) == (end, [])


@pytest.mark.parametrize("inner", ["sqlite", "file"], indirect=True)
def test_a_tag_of_nothing_is_no_difference(tracked, home, inner):
    store = _get_store(build_composite_uri(f"sqlite:///{home / 'dbnd/tracker.db'}", inner))
    store.set_tag(tracked, RunTag("nothing", None))
    store.log_batch(tracked, [], [], [RunTag("nothing either", None)])
    deliver()
    assert verify(tracked) == []


def test_an_empty_name_that_a_database_passes_over_is_no_difference(tracked, own, home, inner):
    store = _get_store(build_composite_uri(f"sqlite:///{home / 'dbnd/tracker.db'}", inner))
    store.set_tag(tracked, RunTag("mlflow.runName", ""))
    store.log_batch(tracked, [], [], [RunTag("mlflow.runName", ""), RunTag("t", "v")])
    deliver()
    assert own.get_run(tracked).data.tags["mlflow.runName"] == "r"
    assert verify(tracked) == []
