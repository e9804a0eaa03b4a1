"""Facts of a run that travel as tags, and changes of runs that come with those of their experiment."""

from __future__ import annotations

import mlflow
import pytest
from mlflow.entities import RunTag
from mlflow.tracking._tracking_service.utils import _get_store

from dbnd import dbnd_tracking, task
from dbnd_mlflow import build_composite_uri


@pytest.fixture
def said(journalled):
    """What was said of runs, in order: the bodies of ``init_run``, and of ``add_task_runs`` parents by child."""

    class Said:
        def runs(self, since=0):
            return [body["init_args"] for call, body in journalled()[since:] if call == "init_run"]

        def new(self, fact, since=0):
            return [each["new_run_info"][fact] for each in self.runs(since)]

        def places(self, since=0):
            infos = [body["task_runs_info"] for call, body in journalled()[since:] if call == "add_task_runs"]
            return [
                (plain(child), plain(parent), plain(info["run_uid"]))
                for info in infos
                for parent, child in info["parent_child_map"]
            ]

        def stages(self):
            return [
                (plain(each["task_run_attempt_uid"]), each["metric"]["value"])
                for call, body in journalled()
                if call == "log_metrics"
                for each in body["metrics_info"]
                if each["metric"]["key"] == "dbnd.lifecycle_stage"
            ]

        def count(self):
            return len(journalled())

    return Said()


def plain(uid):
    return uid.replace("-", "")


WAYS = {
    "set_tag": lambda store, run_id, key, value: store.set_tag(run_id, RunTag(key, value)),
    "log_batch": lambda store, run_id, key, value: store.log_batch(run_id, [], [], [RunTag(key, value)]),
}


@pytest.mark.parametrize("way", sorted(WAYS))
@pytest.mark.parametrize(
    ("tag", "value", "fact", "shown"),
    [
        ("mlflow.runName", "sweep", "name", "sweep"),
        ("mlflow.note.content", "what it is about", "description", "what it is about"),
        ("mlflow.note.content", "see https://u:hunter2@h", "description", "see https://***@h"),
        ("mlflow.user", "ada", "user", "ada"),
        ("mlflow.source.name", "/code/train.py", "job_name", "train.py"),
        ("mlflow.source.name", "https://u:hunter2@h", "job_name", "***@h"),
        ("mlflow.runName", "https://u:hunter2@h", "name", "https://***@h"),
    ],
)
def test_a_tag_that_is_a_fact_changes_the_run(uri, said, way, tag, value, fact, shown):
    store = _get_store(uri)
    run_id = store.create_run("0", "u", 1, [], "first").info.run_id
    WAYS[way](store, run_id, tag, value)
    before, after = said.new(fact)
    assert (before == shown, after) == (False, shown)
    others = {"name", "description", "user", "job_name"} - {fact}
    assert all(len(set(said.new(other))) == 1 for other in others)
    WAYS[way](store, run_id, tag, value)
    WAYS[way](store, run_id, "mine", "1")
    assert len(said.runs()) == 2


def test_tags_at_creation_are_facts_from_the_start(client, said):
    tags = {"mlflow.runName": "n", "mlflow.note.content": "d", "mlflow.user": "u", "mlflow.source.name": "/a/b.py"}
    client.create_run("0", tags=tags)
    (info,) = [each["new_run_info"] for each in said.runs()]
    assert [info[fact] for fact in ("name", "description", "user", "job_name")] == ["n", "d", "u", "b.py"]


@pytest.mark.parametrize("name", ["Default", "e"])
def test_the_experiment_is_the_project_from_the_start_where_nobody_has_named_it(client, said, seen_nothing, name):
    experiment_id = "0" if name == "Default" else client.create_experiment(name)
    seen_nothing()
    client.create_run(experiment_id)
    assert said.new("project_name") == [name]


def test_a_note_that_is_taken_back_is_gone_and_a_name_stays_as_in_mlflow(client, said):
    run_id = client.create_run("0", run_name="n", tags={"mlflow.note.content": "d"}).info.run_id
    client.delete_tag(run_id, "mlflow.note.content")
    client.delete_tag(run_id, "mlflow.runName")
    assert said.new("description") == ["d", ""]
    assert set(said.new("name")) == {client.get_run(run_id).info.run_name} == {"n"}


def test_a_run_that_is_given_a_parent_moves_below_it_with_its_own_children(client, said):
    top, middle = (client.create_run("0", run_name=name).info.run_id for name in ("top", "middle"))
    leaf = client.create_run("0", tags={"mlflow.parentRunId": middle}).info.run_id
    before = said.count()
    client.set_tag(middle, "mlflow.parentRunId", top)
    assert said.places(before) == [(middle, top, top)]
    client.set_terminated(middle)
    client.create_run("0", tags={"mlflow.parentRunId": leaf})
    assert said.places(before)[1][1:] == (leaf, top)
    assert said.runs(before) == []


@pytest.mark.parametrize("parent", ["itself", "a child"])
def test_runs_that_are_below_themselves_stay_where_they_are(client, said, seen_nothing, parent):
    run_id = client.create_run("0").info.run_id
    child = client.create_run("0", tags={"mlflow.parentRunId": run_id}).info.run_id
    before = said.count()
    client.set_tag(run_id, "mlflow.parentRunId", run_id if parent == "itself" else child)
    assert said.places(before) == []
    seen_nothing()
    client.log_metric(child, "m", 1)
    client.log_metric(run_id, "m", 1)


def test_another_process_changes_a_fact_and_leaves_the_runs_environment_alone(client, said, seen_nothing):
    experiment_id = client.create_experiment("e")
    run_id = client.create_run(experiment_id, run_name="n").info.run_id
    child = client.create_run(experiment_id, tags={"mlflow.parentRunId": run_id}).info.run_id
    leaf = client.create_run(experiment_id, tags={"mlflow.parentRunId": child}).info.run_id
    seen_nothing()
    before = said.count()
    client.set_tag(run_id, "mlflow.note.content", "later")
    client.set_tag(leaf, "mlflow.runName", "renamed")
    (said_again,) = said.runs(before)
    assert "task_run_env" not in said_again
    info = said_again["new_run_info"]
    assert [info[fact] for fact in ("name", "description", "job_name", "project_name")] == ["n", "later", "e", "e"]
    assert said.places(before) == [(leaf, child, run_id)]


def test_a_further_run_of_a_task_is_renamed_and_the_task_is_not(conf, said, journalled):
    @task
    def train():
        with mlflow.start_run(run_name="own"):
            mlflow.set_tag("mlflow.runName", "other")
        with mlflow.start_run(run_name="further") as run:
            mlflow.set_tag("mlflow.runName", "renamed")
        return run

    with dbnd_tracking("job", conf=conf):
        train()
    names = [
        each["name"]
        for call, body in journalled()
        if call == "add_task_runs"
        for each in body["task_runs_info"]["task_runs"]
    ]
    assert names == ["train", "further", "renamed"]


def test_the_runs_of_an_experiment_are_deleted_and_restored_with_it(tracker_url, any_inner, said):
    store = _get_store(build_composite_uri(tracker_url, any_inner))
    experiment_id = store.create_experiment("e", None, [])
    alive, dead = (store.create_run(experiment_id, "u", 1, [], name).info.run_id for name in ("a", "b"))
    store.create_run(store.create_experiment("other", None, []), "u", 1, [], "elsewhere")
    store.delete_run(dead)
    store.delete_experiment(experiment_id)
    store.restore_experiment(experiment_id)
    stages = [value for _, value in said.stages()]
    if any_inner.startswith("http"):  # nobody asks the server which runs it changes: those that are known
        assert stages == ["deleted"] * 3 + ["active"] * 2
    else:
        assert stages == ["deleted", "deleted", "active", "active"]
        assert len({uid for uid, _ in said.stages()}) == 2
    assert {store.get_run(each).info.lifecycle_stage for each in (alive, dead)} == {"active"}


def test_runs_of_another_process_are_deleted_with_their_experiment(client, said, seen_nothing):
    experiment_id = client.create_experiment("e")
    client.create_run(experiment_id)
    seen_nothing()
    client.delete_experiment(experiment_id)
    assert [value for _, value in said.stages()] == ["deleted"]


def test_a_run_that_is_deleted_for_good_is_deleted(uri, said):
    store = _get_store(uri)
    run_id = store.create_run("0", "u", 1, [], "r").info.run_id
    store._hard_delete_run(run_id)
    assert [value for _, value in said.stages()] == ["deleted"]


def test_a_new_name_of_an_experiment_is_the_project_of_its_runs(client, said, seen_nothing):
    experiment_id = client.create_experiment("old")
    client.create_run(experiment_id, run_name="a")
    seen_nothing()
    client.create_run(experiment_id, run_name="b")
    client.create_run("0", run_name="elsewhere")
    before = said.count()
    client.rename_experiment(experiment_id, "new")
    assert sorted(said.new("name", before)) == ["a", "b"]
    assert set(said.new("project_name", before)) == {"new"}
