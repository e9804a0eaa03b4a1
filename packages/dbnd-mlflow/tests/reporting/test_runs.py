"""Which task run an MLflow run is reported as: runs that fail to start, end elsewhere, go on, or were never seen."""

from __future__ import annotations

import math
import os
import threading
from unittest import mock

import mlflow
import pytest
from kit.reports import attempts_of_points, bodies
from mlflow import MlflowClient
from mlflow.entities import Metric, Param
from mlflow.exceptions import MlflowException
from mlflow.tracking._tracking_service.utils import _get_store

from dbnd import dbnd_tracking, get_databand_context
from dbnd_mlflow import build_composite_uri
from dbnd_mlflow._reporting import derived
from dbnd_mlflow._reporting import runs as mlflow_runs
from dbnd_mlflow._reporting.runs import _maps
from dbnd_mlflow._reporting.tags import TASK_RUN_UID


def states(events):
    return [
        (u["task_run_uid"].replace("-", ""), u["state"])
        for b in bodies(events, "update_task_run_attempts")
        for u in b["task_run_attempt_updates"]
    ]


def test_a_run_that_could_not_be_created_leaves_its_place_to_the_next(conf, inner_uri, journalled):
    with dbnd_tracking("job", conf=conf):
        store = _get_store()
        with pytest.raises(MlflowException, match="No Experiment with id=77"):
            store.create_run("77", "u", 1, [], "failed")
        first = MlflowClient().create_run("0", run_name="first")
        second = MlflowClient().create_run("0", run_name="second")
    (root,) = {b["init_args"]["driver_task_uid"] for b in bodies(journalled(), "init_run")}
    assert first.data.tags["dbnd.task_run_uid"] == root
    assert second.data.tags["dbnd.task_run_uid"] != root


def test_an_interrupt_gives_the_place_back_too(conf):
    with dbnd_tracking("job", conf=conf):
        store = _get_store()
        inner_class = store.__class__
        with (
            mock.patch.object(inner_class, "create_run", autospec=True, side_effect=KeyboardInterrupt),
            pytest.raises(KeyboardInterrupt),
        ):
            store.create_run("0", "u", 1, [], "interrupted")
        first = store.create_run("0", "u", 1, [], "first")
        root = mlflow.MlflowClient().get_run(first.info.run_id).data.tags
    assert root["dbnd.task_run_attempt_uid"] != derived.attempt_uid(root["dbnd.task_run_uid"])


def test_a_reopened_run_is_running_again(uri, journalled):
    mlflow.set_tracking_uri(uri)
    with mlflow.start_run(run_name="r") as run:
        pass
    with mlflow.start_run(run_id=run.info.run_id):
        mlflow.log_metric("again", 1)
    events = journalled()
    assert [state for _, state in states(events)] == ["RUNNING", "SUCCESS", "RUNNING", "SUCCESS"]
    assert [b["state"] for b in bodies(events, "set_run_state")] == ["SUCCESS", "RUNNING", "SUCCESS"]
    assert len(bodies(events, "init_run")) == 1


def test_a_run_that_no_tracker_knows_has_its_name_when_it_is_reopened(uri, inner_uri, journalled):
    mlflow.set_tracking_uri(inner_uri)
    with mlflow.start_run(run_name="untracked") as run:
        pass
    mlflow.set_tracking_uri(uri)
    for _ in range(2):
        with mlflow.start_run(run_id=run.info.run_id):
            pass
    events = journalled()
    (init,) = bodies(events, "init_run")
    assert init["init_args"]["new_run_info"]["name"] == "untracked"
    assert [b["state"] for b in bodies(events, "set_run_state")] == ["RUNNING", "SUCCESS"] * 2


def test_a_nested_run_that_no_tracker_knows_has_its_name_and_place_when_it_is_reopened(uri, inner_uri, journalled):
    mlflow.set_tracking_uri(inner_uri)
    with (
        mlflow.start_run(run_name="sweep") as sweep,
        mlflow.start_run(run_name="fold", nested=True) as fold,
        mlflow.start_run(run_name="trial", nested=True) as trial,
    ):
        pass
    mlflow.set_tracking_uri(uri)
    for _ in range(2):
        with mlflow.start_run(run_id=trial.info.run_id):
            mlflow.log_metric("m", 1)
    events = journalled()
    (init,) = bodies(events, "init_run")
    assert init["init_args"]["new_run_info"]["name"] == "sweep"
    assert init["init_args"]["new_run_info"]["sends_heartbeat"] is False
    added = [b["task_runs_info"] for b in bodies(events, "add_task_runs")]
    assert [info["task_runs"][0]["name"] for info in added] == ["fold", "trial"]
    pairs = [[uid.replace("-", "") for uid in pair] for info in added for pair in info["parent_child_map"]]
    ids = [run.info.run_id for run in (sweep, fold, trial)]
    assert pairs == [ids[:2], ids[1:]]
    assert states(events) == [(ids[0], "SUCCESS"), (ids[1], "SUCCESS"), *[(ids[2], "RUNNING"), (ids[2], "SUCCESS")] * 2]
    assert [b["state"] for b in bodies(events, "set_run_state")] == ["SUCCESS"]


def test_a_new_name_is_a_tag_and_the_name_of_the_run(store, journalled):
    run_id = store.create_run("0", "u", 1, [], "old").info.run_id
    store.update_run_info(run_id, None, None, "new")
    events = journalled()
    assert [b["init_args"]["new_run_info"]["name"] for b in bodies(events, "init_run")] == ["old", "new"]
    tags = [
        e["metric"]["value"]
        for b in bodies(events, "log_metrics")
        for e in b["metrics_info"]
        if e["metric"]["key"] == "mlflow.runName"
    ]
    assert tags == ["old", "new"]
    assert bodies(events, "set_run_state") == []


def test_a_nested_run_that_another_process_ends_ends_no_run(uri, journalled, seen_nothing):
    mlflow.set_tracking_uri(uri)
    with mlflow.start_run(run_name="parent"), mlflow.start_run(run_name="child", nested=True) as child:
        before = len(journalled())
        seen_nothing()
        MlflowClient().set_terminated(child.info.run_id, "KILLED")
        events = journalled()[before:]
    # Of a run that is read only now nobody knows whether it had ended before, which would bar it from being cancelled.
    assert states(events)[-1] == (child.info.run_id, "CANCELLED")
    assert {run_id for run_id, _ in states(events)} == {child.info.run_id}
    assert bodies(events, "set_run_state") == []


def test_a_run_of_a_task_that_another_process_ends_does_not_end_the_tasks_run(conf, journalled, seen_nothing, uri):
    with dbnd_tracking("job", conf=conf):
        mlflow.start_run(run_name="own")
        mlflow.end_run()
        further = MlflowClient().create_run("0", run_name="further")
    before = len(journalled())
    seen_nothing()
    MlflowClient(tracking_uri=uri).set_terminated(further.info.run_id, "FAILED")
    events = journalled()[before:]
    assert states(events) == [(further.data.tags["dbnd.task_run_uid"].replace("-", ""), "FAILED")]
    assert bodies(events, "set_run_state") == []


def test_points_for_a_run_of_a_task_find_it_in_a_process_outside_of_any_task(conf, journalled, seen_nothing, uri):
    with dbnd_tracking("job", conf=conf):
        MlflowClient().create_run("0", run_name="own")
        further = MlflowClient().create_run("0", run_name="further")
    before = len(journalled())
    seen_nothing()
    client = MlflowClient(tracking_uri=uri)
    client.log_metric(further.info.run_id, "m", 1)
    client.log_param(further.info.run_id, "p", 1)
    assert attempts_of_points(journalled()[before:]) == [further.data.tags["dbnd.task_run_attempt_uid"]] * 2


def test_a_nested_run_of_an_unseen_parent_hangs_below_it(uri, journalled, seen_nothing):
    client = MlflowClient(tracking_uri=uri)
    parent = client.create_run("0", run_name="parent").info.run_id
    seen_nothing()
    child = client.create_run("0", run_name="child", tags={"mlflow.parentRunId": parent}).info.run_id
    (infos,) = [b["task_runs_info"] for b in bodies(journalled(), "add_task_runs")]
    assert [[uid.replace("-", "") for uid in pair] for pair in infos["parent_child_map"]] == [[parent, child]]
    assert infos["run_uid"].replace("-", "") == parent


def test_no_write_over_http_makes_a_request_of_ours(mlflow_server, tracker_url, seen_nothing, journalled, requests_to):
    store = _get_store(build_composite_uri(tracker_url, mlflow_server))
    client = MlflowClient(tracking_uri=mlflow_server)
    run_id = client.create_run("0").info.run_id
    seen_nothing()
    sent = requests_to(mlflow_server)
    store.log_metric(run_id, Metric("m", 1, 5, 1))
    store.log_param(run_id, Param("p", "1"))
    store.log_batch(run_id, [Metric("m", 2, 6, 2)], [], [])
    store.set_tag(run_id, mlflow.entities.RunTag("t", "1"))
    store.update_run_info(run_id, mlflow.entities.RunStatus.FINISHED, 1_700_000_000_000, None)
    store.delete_run(run_id)
    store.restore_run(run_id)
    assert len(sent) == 7
    assert len(set(attempts_of_points(journalled()))) == 1


@pytest.fixture
def in_a_file_store(tracker_url, tmp_path):
    """The URI of a file store, a client of it and the tracker, and a run."""
    (tmp_path / "runs").mkdir()
    inner = (tmp_path / "runs").as_uri()
    client = MlflowClient(tracking_uri=build_composite_uri(tracker_url, inner))
    return inner, client, client.create_run(client.create_experiment("e")).info.run_id


def test_params_that_a_failing_batch_leaves_in_a_file_store_are_reported(in_a_file_store, journalled):
    inner, client, run_id = in_a_file_store
    client.log_param(run_id, "b", "1")
    before = len(journalled())
    with pytest.raises(MlflowException, match="Changing param values is not allowed"):
        client.log_batch(run_id, params=[Param("a", "1"), Param("b", "2"), Param("c", "3")])
    kept = MlflowClient(tracking_uri=inner).get_run(run_id).data.params
    assert kept == {"a": "1", "b": "1"}
    reported = [e["metric"]["key"] for b in bodies(journalled()[before:], "log_metrics") for e in b["metrics_info"]]
    assert reported == ["a"]


def test_metrics_that_a_failing_batch_leaves_in_a_file_store_are_reported(in_a_file_store, journalled):
    inner, client, run_id = in_a_file_store
    client.log_metric(run_id, "a", 1.0)
    before = len(journalled())
    points = [Metric("a", math.nan, 2, 1), Metric("a", 3.0, 2, 1), Metric("a/b", 1.0, 2, 1), Metric("c", 1.0, 2, 1)]
    with pytest.raises(MlflowException, match="a/b"):  # "a" is a file, and no folder
        client.log_batch(run_id, points)
    assert len(MlflowClient(tracking_uri=inner).get_metric_history(run_id, "a")) == 3
    reported = [e["metric"] for b in bodies(journalled()[before:], "log_metrics") for e in b["metrics_info"]]
    assert [(metric["key"], str(metric["value"])) for metric in reported] == [("a", "nan"), ("a", "3.0")]


def test_runs_that_have_ended_are_forgotten_in_time(store, monkeypatch, journalled):
    monkeypatch.setattr(mlflow_runs, "MAX_IDLE", 5)
    (runs,) = [found for found in _maps.values() if found._client is store._databand_with._client]
    going_on = store.create_run("0", "u", 1, [], "going on").info.run_id
    ids = []
    for number in range(12):
        ids.append(store.create_run("0", "u", 1, [], f"r{number}").info.run_id)
        store.update_run_info(ids[-1], mlflow.entities.RunStatus.FINISHED, 2, None)
    assert set(runs._runs) == {going_on, *ids[-5:]}
    store.log_metric(ids[0], Metric("late", 1, 5, 1))
    late = attempts_of_points(journalled())[-1]
    assert late == derived.attempt_uid(derived.uid_of(ids[0]))
    assert len(runs._runs) == 6


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_of_the_forks_of_a_task_none_takes_the_tasks_own_run(conf):
    with dbnd_tracking("job", conf=conf) as run:
        runs = mlflow_runs.map_of(get_databand_context().client)
        pid = os.fork()
        if pid == 0:  # the child: any way out but this one would run pytest twice
            status = 2
            try:
                status = runs.plan({})[TASK_RUN_UID] == run.root.uid
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert runs.plan({})[TASK_RUN_UID] == run.root.uid


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_fork_while_another_thread_holds_our_locks_leaves_the_child_working(store, uri, tmp_path):
    """The child logs into a run of its parent's, with every lock of ours held by a thread that it does not have."""
    from dbnd_mlflow._store import builders

    run_id = store.create_run("0", "u", 1, [], "r").info.run_id
    (runs,) = [found for found in _maps.values() if found._client is store._databand_with._client]
    held, done = threading.Event(), threading.Event()

    def hold():
        with builders._lock, runs._lock:
            held.set()
            done.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(60)
    pid = os.fork()
    if pid == 0:  # the child: any way out but this one would run pytest twice
        status = 1
        try:
            builders.tracking_store(uri, "child")
            store._databand_with.logged("0" * 32, metrics=[Metric("m", 1, 5, 1)])
            store._databand_with.logged(run_id, metrics=[Metric("m", 1, 5, 1)])
            status = 0
        finally:
            os._exit(status)
    for _ in range(600):
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            break
        threading.Event().wait(0.1)
    else:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
        status = -1
    done.set()
    thread.join()
    assert status == 0
