from __future__ import annotations

import contextlib
import math
import os
import uuid

import mlflow
import numpy as np
import pytest
from mlflow import MlflowClient
from mlflow.entities import Metric

from dbnd import dbnd_tracking, task
from dbnd_mlflow import build_composite_uri


@task
def train(fail=False, nested=0, further=0):
    with mlflow.start_run(run_name="first") as run:
        mlflow.log_param("lr", "1e-3")
        mlflow.log_metric("loss", 0.5, step=3)
        for number in range(nested):
            with mlflow.start_run(run_name=f"nested{number}", nested=True):
                mlflow.log_metric("x", number)
        if fail:
            raise ValueError("boom")
    for number in range(further):
        with mlflow.start_run(run_name=f"further{number}"):
            mlflow.log_metric("y", number)
    return run.info.run_id


@pytest.fixture
def events(journalled):
    class Events:
        def __call__(self):
            return journalled()

        def task_runs(self):
            infos = [
                body["init_args"]["task_runs_info"] if call == "init_run" else body["task_runs_info"]
                for call, body in self()
                if call in {"init_run", "add_task_runs"}
            ]
            return {t["task_run_attempt_uid"]: t for info in infos for t in info["task_runs"]}

        def parents(self):
            infos = [body["task_runs_info"] for call, body in self() if call == "add_task_runs"]
            names = {t["task_run_uid"]: t["name"] for t in self.task_runs().values()}
            return {names[child]: names[parent] for info in infos for parent, child in info["parent_child_map"]}

        def metrics(self, source="mlflow"):
            names = {uid: t["name"] for uid, t in self.task_runs().items()}
            return [
                (
                    names.get(e["task_run_attempt_uid"]),
                    e["metric"]["key"],
                    e["metric"]["value"],
                    e["metric"].get("step"),
                )
                for call, body in self()
                if call == "log_metrics"
                for e in body["metrics_info"]
                if e["source"] == source
            ]

        def states(self):
            names = {uid: t["name"] for uid, t in self.task_runs().items()}
            updates = [
                u
                for call, body in self()
                if call == "update_task_run_attempts"
                for u in body["task_run_attempt_updates"]
            ]
            return [(names[u["task_run_attempt_uid"]], u["state"]) for u in updates]

    return Events()


def test_a_nested_run_has_mlflows_name_and_experiment(conf, events):
    with dbnd_tracking("job", project_name="cellar", conf=conf):
        mlflow.set_experiment("wine")
        with mlflow.start_run(), mlflow.start_run(nested=True, run_name="fold") as run:
            pass
        MlflowClient().update_run(run.info.run_id, name="first fold")
    names = {(t["name"], t["task_af_id"]) for t in events.task_runs().values()}
    assert ("first fold", "first fold") in names
    experiments = [metric[2] for metric in events.metrics("mlflow.tag") if metric[1] == "dbnd.experiment"]
    assert experiments == ["wine", "wine"]


def test_the_first_run_of_a_task_is_the_tasks_own(conf, events):
    with dbnd_tracking("job", conf=conf):
        run_id = train()
        run = MlflowClient().get_run(run_id)
    assert [t["name"] for t in events.task_runs().values()] == ["job", "train"]
    assert events.metrics() == [("train", "loss", 0.5, 3)]
    assert events.metrics("mlflow.param") == [("train", "lr", "1e-3", None)]
    assert ("train", "mlflow.runName", "first", None) in events.metrics("mlflow.tag")
    assert run.data.metrics == {"loss": 0.5}
    by_name = {t["name"]: t for t in events.task_runs().values()}
    assert run.data.tags["dbnd.task_run_uid"] == by_name["train"]["task_run_uid"]
    assert run.data.tags["dbnd.task_run_attempt_uid"] == by_name["train"]["task_run_attempt_uid"]
    assert run.data.tags["dbnd.run_uid"] == by_name["train"]["run_uid"]
    assert run.data.tags["dbnd.run_url"].endswith(f"/app/jobs/job/{by_name['train']['run_uid']}")
    (links,) = [body for call, body in events() if call == "save_external_links"]
    assert links["task_run_attempt_uid"] == by_name["train"]["task_run_attempt_uid"]
    assert links["external_links_dict"]["mlflow"].endswith(f"/runs/{run_id}")


def test_nested_and_further_runs_are_child_task_runs_with_their_own_state(conf, events):
    with dbnd_tracking("job", conf=conf):
        train(nested=2, further=1)
    assert events.parents() == {"train": "job", "nested0": "train", "nested1": "train", "further0": "train"}
    assert events.metrics() == [
        ("train", "loss", 0.5, 3),
        ("nested0", "x", 0.0, 0),
        ("nested1", "x", 1.0, 0),
        ("further0", "y", 0.0, 0),
    ]
    assert [name for name, state in events.states() if state == "SUCCESS"] == [
        "nested0",
        "nested1",
        "further0",
        "train",
        "job",
    ]


def test_tasks_do_not_take_each_others_runs(conf, events):
    with dbnd_tracking("job", conf=conf):
        train()
        train()
    assert [name for name, *_ in events.metrics()] == ["train", "train"]
    assert len({t["task_run_uid"] for t in events.task_runs().values()}) == 3


def test_a_failed_run_ends_its_task_run_with_the_error(conf, events, inner_uri):
    @task
    def two():
        with mlflow.start_run(run_name="own"):
            pass
        with mlflow.start_run(run_name="child"):
            raise ValueError("boom password=hunter2")

    with pytest.raises(ValueError, match="boom"), dbnd_tracking("job", conf=conf):
        two()
    assert ("child", "FAILED") in events.states()
    updates = [
        u for c, b in events() if c == "update_task_run_attempts" for u in b["task_run_attempt_updates"] if u["error"]
    ]
    assert updates[0]["error"]["msg"] == "boom password=***"
    stored = MlflowClient(tracking_uri=inner_uri).search_runs(["0"])
    assert sorted(run.info.status for run in stored) == ["FAILED", "FINISHED"]


@pytest.mark.parametrize(("error", "status", "state"), [(None, "FINISHED", "SUCCESS"), (KeyError, "FAILED", "FAILED")])
def test_a_run_left_open_ends_with_the_context_in_both_places(conf, events, inner_uri, error, status, state):
    @task
    def leaves_open():
        with mlflow.start_run(run_name="own"):
            pass
        mlflow.start_run(run_name="open")

    with contextlib.suppress(KeyError), dbnd_tracking("job", conf=conf):
        leaves_open()
        mlflow.log_metric("still", 1)
        if error:
            raise error
    assert mlflow.active_run() is None
    assert ("open", state) in events.states()
    assert ("open", "still", 1.0, 0) in events.metrics()
    (run,) = MlflowClient(tracking_uri=inner_uri).search_runs(["0"], "attributes.run_name = 'open'")
    assert run.info.status == status


def test_a_run_of_before_the_context_is_left_alone(conf, inner_uri):
    mlflow.set_tracking_uri(inner_uri)
    with mlflow.start_run() as before:
        with dbnd_tracking("job", conf=conf):
            pass
        assert mlflow.active_run().info.run_id == before.info.run_id


def test_points_land_on_their_own_run_whichever_task_is_current(conf, events):
    @task
    def writes_into(run_ids):
        client = MlflowClient()
        for number, run_id in enumerate(run_ids):
            client.log_metric(run_id, "w", number)

    with dbnd_tracking("job", conf=conf):
        client = MlflowClient()
        runs = [client.create_run("0", run_name=name) for name in ("a", "b", "c")]
        writes_into([run.info.run_id for run in runs])
    assert events.metrics() == [("job", "w", 0.0, 0), ("b", "w", 1.0, 0), ("c", "w", 2.0, 0)]


def test_outside_of_any_task_a_run_is_a_dbnd_run_of_its_own(tracker_url, inner_uri, events):
    mlflow.set_tracking_uri(build_composite_uri(tracker_url, inner_uri))
    mlflow.set_experiment("my experiment")
    with mlflow.start_run(run_name="alone") as run:
        mlflow.log_metric("m", 1, step=5)
        with mlflow.start_run(run_name="child", nested=True):
            mlflow.log_metric("n", 2)
    (init,) = [body["init_args"] for call, body in events() if call == "init_run"]
    info = init["new_run_info"]
    assert uuid.UUID(info["run_uid"]).hex == run.info.run_id
    assert (info["name"], info["project_name"]) == ("alone", "my experiment")
    assert events.metrics() == [("alone", "m", 1.0, 5), ("child", "n", 2.0, 0)]
    assert events.parents() == {"child": "alone"}
    assert events.states() == [("alone", "RUNNING"), ("child", "RUNNING"), ("child", "SUCCESS"), ("alone", "SUCCESS")]
    assert [body["state"] for call, body in events() if call == "set_run_state"] == ["SUCCESS"]
    assert not any(key.startswith("dbnd.") for key in MlflowClient().get_run(run.info.run_id).data.tags)


def test_a_script_that_leaves_its_run_open_is_reported_to_the_end(python, tracker_url, inner_uri, events):
    uri = build_composite_uri(tracker_url, inner_uri)
    done = python(
        "import mlflow; mlflow.start_run(run_name='open'); mlflow.log_metric('m', 1)", MLFLOW_TRACKING_URI=uri
    )
    assert done.returncode == 0, done.stderr
    assert events.states() == [("open", "RUNNING"), ("open", "SUCCESS")]


@pytest.fixture
def log_in_another_process(python):
    def log(run_id):
        code = f"import mlflow\nwith mlflow.start_run(run_id={run_id!r}): mlflow.log_metric('other', 1)"
        # Newer MLflows put the URI into the environment by themselves.
        done = python(code, MLFLOW_TRACKING_URI=mlflow.get_tracking_uri())
        assert done.returncode == 0, done.stderr

    return log


def test_another_process_writes_into_the_same_task_run(log_in_another_process, tracker_url, inner_uri, events):
    uri = build_composite_uri(tracker_url, inner_uri)
    mlflow.set_tracking_uri(uri)
    with mlflow.start_run(run_name="shared") as run:
        log_in_another_process(run.info.run_id)
    assert events.metrics() == [("shared", "other", 1.0, 0)]
    # The other process cannot know whether the tracker has heard of the run: it says the same of it once more.
    infos = [body["init_args"]["new_run_info"] for call, body in events() if call == "init_run"]
    assert [(info["run_uid"], info["name"], info["job_name"]) for info in infos] == [
        (str(uuid.UUID(run.info.run_id)), "shared", infos[0]["job_name"])
    ] * 2


def test_another_process_finds_the_task_run_of_a_run_of_a_task(log_in_another_process, conf, events):
    with dbnd_tracking("job", conf=conf):
        run_id = train()
        log_in_another_process(run_id)
    assert sorted(events.metrics()) == [("train", "loss", 0.5, 3), ("train", "other", 1.0, 0)]


def test_another_process_that_only_knows_the_id_finds_it_too(python, conf, events):
    @task
    def starts_a_child():
        with mlflow.start_run(run_name="own") as own, mlflow.start_run(run_name="child", nested=True) as child:
            code = (
                "from mlflow import MlflowClient\n"
                f"MlflowClient().log_metric({own.info.run_id!r}, 'to own', 1)\n"
                f"MlflowClient().log_metric({child.info.run_id!r}, 'to child', 2)\n"
            )
            done = python(code, MLFLOW_TRACKING_URI=mlflow.get_tracking_uri())
            assert done.returncode == 0, done.stderr

    with dbnd_tracking("job", conf=conf):
        starts_a_child()
    assert events.metrics() == [("starts_a_child", "to own", 1.0, 0), ("child", "to child", 2.0, 0)]
    assert "DBND_PARENT_TASK_RUN_UID" not in os.environ


def test_datasets_are_read_operations_once_each(conf, events):
    with dbnd_tracking("job", conf=conf), mlflow.start_run():
        dataset = mlflow.data.from_numpy(np.ones((4, 3)), source="s3://bucket/data.npy", name="numbers")
        mlflow.log_input(dataset, context="training")
        mlflow.log_input(dataset, context="training")
    (operation,) = [body["datasets_info"][0] for call, body in events() if call == "log_datasets"]
    assert operation["operation_path"] == "s3://bucket/data.npy"
    assert (operation["operation_type"], operation["operation_status"]) == ("read", "OK")
    assert operation["operation_source"] == "mlflow"
    facts = [operation[fact] for fact in ("name", "digest", "context")]
    assert facts == ["numbers", dataset.digest, "training"]


def test_artifacts_are_reported_by_name_and_place_at_the_end(conf, events, tmp_path):
    with dbnd_tracking("job", conf=conf), mlflow.start_run():
        mlflow.log_text("hello", "notes/hello.txt")
        mlflow.log_dict({"a": 1}, "a.json")
    artifacts = {body["name"]: body["path"] for call, body in events() if call == "log_artifact"}
    assert sorted(artifacts) == ["a.json", "notes/hello.txt"]
    assert artifacts["a.json"].endswith("/artifacts/a.json")


@pytest.mark.parametrize("root", ["s3://bucket/runs", "mlflow-artifacts:/runs"])
def test_a_run_without_artifacts_has_none_wherever_they_would_stand(tracker_url, inner_uri, events, root):
    """Nobody asks a server for them: without one that was logged from here, there is nothing to say."""
    mlflow.set_tracking_uri(build_composite_uri(tracker_url, inner_uri))
    mlflow.set_experiment(experiment_id=mlflow.create_experiment("far", artifact_location=root))
    with mlflow.start_run():
        mlflow.log_metric("m", 1)
    assert "log_artifact" not in {call for call, _ in events()}


def test_of_artifacts_in_a_far_place_the_root_is_reported(tracker_url, inner_uri, events, tmp_path, monkeypatch):
    """MLflow sends them there past us."""
    from mlflow.store.artifact import artifact_repository_registry
    from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository

    registry = artifact_repository_registry._artifact_repository_registry
    place = tmp_path / "far"
    place.mkdir()
    far = {**registry._registry, "far": lambda *_, **__: LocalArtifactRepository(str(place))}
    monkeypatch.setattr(registry, "_registry", far)
    mlflow.set_tracking_uri(build_composite_uri(tracker_url, inner_uri))
    mlflow.set_experiment(experiment_id=mlflow.create_experiment("far", artifact_location="far://bucket/runs"))
    with mlflow.start_run() as run:
        mlflow.log_text("hello", "hello.txt")
    found = [(body["name"], body["path"]) for call, body in events() if call == "log_artifact"]
    assert found == [("artifacts", f"far://bucket/runs/{run.info.run_id}/artifacts")]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_values_that_are_no_numbers(conf, events, value):
    with dbnd_tracking("job", conf=conf), mlflow.start_run():
        mlflow.log_metric("odd", value)
    ((_, _, reported, _),) = events.metrics()
    assert str(reported) == str(value)


def test_credentials_reach_neither_journal_nor_tags(conf, events, home, inner_uri, capfd):
    conf["core"]["databand_url"] = conf["core"]["databand_url"].replace("http://", "http://user:hunter2@")
    with dbnd_tracking("job", conf=conf), mlflow.start_run() as run:
        mlflow.set_tag("remote", "https://user:hunter2@git/repo")
    journal = b"".join(path.read_bytes() for path in (home / "dbnd/journal").iterdir())
    assert b"hunter2" not in journal
    assert b"https://***@git/repo" in journal
    stored = MlflowClient(tracking_uri=inner_uri).get_run(run.info.run_id)
    assert "hunter2" not in str({k: v for k, v in stored.data.tags.items() if k != "remote"})
    captured = capfd.readouterr()
    assert "hunter2" not in captured.out + captured.err


def test_times_and_steps_of_any_kind_of_number(events, tracker_url, inner_uri):
    """MLflow takes them; the tracker has their whole part, and nothing else of the batch is lost."""
    mlflow.set_tracking_uri(build_composite_uri(tracker_url, inner_uri))
    client = MlflowClient()
    with mlflow.start_run() as run:
        client.log_metric(run.info.run_id, "time", 1.0, timestamp=1_700_000_000_123.75, step=2.0)
        mlflow.log_metric("numpy", np.float32(0.5), step=np.int64(3))
        batch = [Metric("odd", 1.0, 1_700_000_000_123.75, 4.5), Metric("even", 2, np.int64(1_700_000_000_000), 5)]
        client.log_batch(run.info.run_id, batch)
    assert {(key, value, step) for _, key, value, step in events.metrics()} == {
        ("time", 1.0, 2),
        ("numpy", 0.5, 3),
        ("odd", 1.0, 4),
        ("even", 2.0, 5),
    }
    assert all(type(step) is int for *_, step in events.metrics())
