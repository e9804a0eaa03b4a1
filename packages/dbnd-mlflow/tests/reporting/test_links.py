"""Whose link tags are whose, and which tags are the user's: copies of runs, and tags that begin as ours do."""

from __future__ import annotations

from unittest import mock

import mlflow
import pytest
from kit.reports import attempts_of_points, bodies
from mlflow import MlflowClient
from mlflow.entities import Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.tracking._tracking_service.utils import _get_store

from dbnd import dbnd_tracking
from dbnd_mlflow import build_composite_uri
from dbnd_mlflow._reporting import derived
from dbnd_mlflow._reporting import runs as mlflow_runs

LINKS = sorted(mlflow_runs.LINK_TAGS)


@pytest.fixture
def original(conf, uri):
    """A run of a task, as the store has it; the task is over."""
    with dbnd_tracking("original", conf=conf):
        run_id = MlflowClient().create_run("0", run_name="original").info.run_id
    return MlflowClient(tracking_uri=uri).get_run(run_id)


def own_attempt(run_id):
    return derived.attempt_uid(derived.uid_of(run_id))


def test_a_run_of_a_task_says_for_which_run_its_links_were_made(original, inner_uri):
    assert original.data.tags["dbnd.mlflow_run_id"] == original.info.run_id
    stored = MlflowClient(tracking_uri=inner_uri).get_run(original.info.run_id)
    assert {name for name in stored.data.tags if name.startswith("dbnd.")} == set(LINKS)


@pytest.mark.parametrize("is_new", [False, True], ids=["same process", "another process"])
@pytest.mark.parametrize("tags", ["all", "of 2.0"])
def test_a_copy_outside_of_tasks_is_a_run_of_its_own(original, uri, journalled, seen_nothing, is_new, tags):
    copied = dict(original.data.tags)
    if tags == "of 2.0":  # it did not say for which run the links were made
        del copied["dbnd.mlflow_run_id"]
    client = MlflowClient(tracking_uri=uri)
    copy = client.create_run("0", start_time=original.info.start_time, tags=copied).info.run_id
    if is_new:
        seen_nothing()
    before = len(journalled())
    mlflow.set_tracking_uri(uri)
    with mlflow.start_run(run_id=copy):
        mlflow.log_metric("m", 1)
    client.log_param(copy, "p", 1)
    events = journalled()[before:]
    assert set(attempts_of_points(events)) == {own_attempt(copy)}
    assert {body["run_uid"] for body in bodies(events, "set_run_state")} == {derived.uid_of(copy)}


def test_a_copy_made_in_a_task_is_a_run_of_that_task(original, conf, uri, journalled, seen_nothing):
    with dbnd_tracking("job", conf=conf):
        client = MlflowClient()
        first = client.create_run("0", start_time=original.info.start_time, tags=original.data.tags).info.run_id
        second = client.create_run("0", tags=client.get_run(first).data.tags).info.run_id
    (root,) = {
        body["init_args"]["driver_task_uid"]
        for body in bodies(journalled(), "init_run")
        if body["init_args"]["new_run_info"]["job_name"] == "job"
    }
    tags = [client.get_run(run_id).data.tags for run_id in (original.info.run_id, first, second)]
    assert tags[1]["dbnd.task_run_uid"] == root
    for name in ("dbnd.task_run_uid", "dbnd.task_run_attempt_uid", "dbnd.mlflow_run_id"):
        assert len({each[name] for each in tags}) == 3
    seen_nothing()
    before = len(journalled())
    for run_id in (first, second):
        MlflowClient(tracking_uri=uri).log_metric(run_id, "m", 1)
    assert attempts_of_points(journalled()[before:]) == [each["dbnd.task_run_attempt_uid"] for each in tags[1:]]


def test_tags_copied_onto_a_run_of_a_task_leave_its_links(original, conf, uri, seen_nothing):
    with dbnd_tracking("job", conf=conf):
        run_id = MlflowClient().create_run("0").info.run_id
    client = MlflowClient(tracking_uri=uri)
    before = client.get_run(run_id).data.tags
    for name in LINKS:
        client.set_tag(run_id, name, original.data.tags[name])
    between = client.get_run(run_id).data.tags
    seen_nothing()
    mlflow.set_tracking_uri(uri)
    with mlflow.start_run(run_id=run_id):
        mlflow.set_tags({**original.data.tags, "copied": "yes"})
    after = client.get_run(run_id).data.tags
    assert after["copied"] == "yes"
    for tags in (between, after):
        assert {name: tags[name] for name in LINKS} == {name: before[name] for name in LINKS}


def test_tags_copied_onto_a_run_outside_of_tasks_change_nothing(original, uri, seen_nothing, journalled):
    client = MlflowClient(tracking_uri=uri)
    run_id = client.create_run("0").info.run_id
    for name, value in original.data.tags.items():
        client.set_tag(run_id, name, value)
    assert client.get_run(run_id).data.tags["dbnd.run_uid"] == original.data.tags["dbnd.run_uid"]
    seen_nothing()
    client.log_metric(run_id, "m", 1)
    assert attempts_of_points(journalled())[-1] == own_attempt(run_id)


@pytest.mark.parametrize("name", ["dbnd.run_uid", "dbnd.task_run_uid", "dbnd.task_run_attempt_uid"])
def test_links_that_are_no_uids_are_none(original, uri, inner_uri, seen_nothing, journalled, name):
    MlflowClient(tracking_uri=inner_uri).set_tag(original.info.run_id, name, "mine")
    seen_nothing()
    MlflowClient(tracking_uri=uri).log_metric(original.info.run_id, "m", 1)
    assert attempts_of_points(journalled())[-1] == own_attempt(original.info.run_id)


def test_a_run_that_is_read_before_its_links_are_whole_is_found_later(conf, uri, inner_uri, journalled, seen_nothing):
    with dbnd_tracking("job", conf=conf):
        run = MlflowClient().create_run("0")
    run_id = run.info.run_id
    native = MlflowClient(tracking_uri=inner_uri)
    native.delete_tag(run_id, "dbnd.mlflow_run_id")
    seen_nothing()
    client = MlflowClient(tracking_uri=uri)
    client.get_run(run_id)
    native.set_tag(run_id, "dbnd.mlflow_run_id", run_id)
    client.get_run(run_id)
    client.log_metric(run_id, "m", 1)
    assert attempts_of_points(journalled())[-1] == run.data.tags["dbnd.task_run_attempt_uid"]


def test_a_store_that_takes_no_tag_creates_runs_all_the_same(conf, journalled, capfd):
    with dbnd_tracking("job", conf=conf):
        store = _get_store()
        refusing = mock.patch.object(store.__class__, "set_tag", side_effect=MlflowException("no tags today"))
        with refusing:
            run = MlflowClient().create_run("0", run_name="r")
        MlflowClient().log_metric(run.info.run_id, "m", 1)
    assert attempts_of_points(journalled())[-1] == run.data.tags["dbnd.task_run_attempt_uid"]
    assert "no tags today" in capfd.readouterr().err


def test_outside_of_tasks_a_run_is_created_by_one_request(mlflow_server, tracker_url, requests_to):
    client = MlflowClient(tracking_uri=build_composite_uri(tracker_url, mlflow_server))
    sent = requests_to(mlflow_server)
    client.create_run("0", tags={"dbnd.task_run_uid": "copied", "dbnd.team": "x"})
    assert len(sent) == 1


def test_tags_that_only_begin_as_ours_are_the_users(uri, conf, journalled):
    given = {f"dbnd.{name}": "x" for name in ("team", "run", "run_uid.note", "", "mlflow", "imported.by")}
    mlflow.set_tracking_uri(uri)
    client = MlflowClient()
    client.create_run("0", tags={f"{name}.1": "x" for name in given})
    with mlflow.start_run(tags={f"{name}.2": "x" for name in given}) as run:
        mlflow.set_tags({f"{name}.3": "x" for name in given})
        for name in given:
            client.set_tag(run.info.run_id, f"{name}.4", "x")
        client.log_batch(run.info.run_id, params=[Param("p", "1")], tags=[RunTag(f"{n}.5", "x") for n in given])
        client.delete_tag(run.info.run_id, "dbnd.team.5")
    reported = [e["metric"]["key"] for b in bodies(journalled(), "log_metrics") for e in b["metrics_info"]]
    found = sorted(name for name in reported if name.startswith("dbnd."))
    assert found == sorted([*(f"{name}.{n}" for name in given for n in range(1, 6)), "dbnd.team.5"])
