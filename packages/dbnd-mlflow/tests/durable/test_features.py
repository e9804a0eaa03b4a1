"""What else of MLflow a training uses, while its server is away and comes back."""

from __future__ import annotations

import time
from inspect import signature
from pathlib import Path

import mlflow
import pytest
from kit.faults import Proxy, answering, lost_answer, passing
from kit.mlflow_stores import MlflowServer
from kit.reports import log_small_model
from kit.scale import leading
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.store.tracking.abstract_store import AbstractStore

from dbnd import load_config
from dbnd.tracking import get_client
from dbnd_mlflow._durable.ids import OWN_ID, is_own
from dbnd_mlflow._durable.store import outboxes
from dbnd_mlflow._durable.target import Target

takes_traces_whole = "trace_info" in signature(getattr(AbstractStore, "start_trace", lambda: None)).parameters
has_logged_models = hasattr(MlflowClient, "get_logged_model")
# While the server is away, `keep` goes the way of `deferred` from its first write on.
in_an_outage = pytest.mark.parametrize("writes", leading(["keep", "deferred"]))


def settle() -> None:
    """Deliver everything."""
    for outbox in outboxes():
        assert outbox.flush(60), outbox.trouble
        assert (outbox.refused, outbox.dropped) == (0, 0)


@pytest.fixture(autouse=True)
def _tracked(track, proxy, writes):
    track(proxy.url, writes)


# With each model that autolog logs, a process looks for what it requires.
@in_an_outage
def test_autolog_fits_in_an_outage(proxy, server):
    model = pytest.importorskip("sklearn.linear_model").LinearRegression()
    mlflow.sklearn.autolog(silent=True)
    try:
        proxy.refuse()
        with mlflow.start_run(run_name="fit") as run:
            model.fit([[1.0], [2.0], [3.0]], [1.0, 2.0, 3.0])
    finally:
        mlflow.sklearn.autolog(disable=True)
    seen = mlflow.get_run(run.info.run_id)
    assert (seen.info.status, seen.info.run_name) == ("FINISHED", "fit")
    proxy.listen()
    settle()
    (found,) = server.search_runs(["0"])
    assert found.data.params["fit_intercept"] == "True"
    assert "training_score" in found.data.metrics
    assert (found.info.run_name, found.info.status) == ("fit", "FINISHED")
    if has_logged_models:
        (logged,) = server.search_logged_models(["0"])
        assert (logged.status, logged.source_run_id) == ("READY", found.info.run_id)


@pytest.mark.skipif(not has_logged_models, reason="this MLflow has no logged models")
@in_an_outage
@pytest.mark.parametrize("is_begun", [True, False], ids=["begun-before", "begun-in-it"])
def test_a_model_is_logged_in_an_outage(proxy, server, dbnd, is_begun, tmp_path):
    if not is_begun:
        proxy.refuse()
    with mlflow.start_run() as run:
        mlflow.log_param("alpha", "1")
        proxy.refuse()
        logged = log_small_model("mine", tags={"team": "a"})
        mlflow.log_metric("auc", 0.5, model_id=logged.model_id)
        mlflow.set_logged_model_tags(logged.model_id, {"stage": "first", "gone": "x"})
        mlflow.delete_logged_model_tag(logged.model_id, "gone")
        mlflow.log_model_params({"depth": "3"}, logged.model_id)
        seen = mlflow.get_logged_model(logged.model_id)
        assert (seen.name, seen.status, seen.source_run_id) == ("mine", "READY", run.info.run_id)
        assert (seen.tags["stage"], seen.params) == ("first", {"alpha": "1", "depth": "3"})
        assert "gone" not in seen.tags
        with pytest.raises(mlflow.MlflowException, match="No tag with key"):
            mlflow.delete_logged_model_tag(logged.model_id, "gone")
    proxy.listen()
    settle()
    (found,) = server.search_logged_models(["0"])
    (real,) = server.search_runs(["0"])
    assert (found.name, found.status, found.source_run_id) == ("mine", "READY", real.info.run_id)
    assert (found.params, found.tags["team"], found.tags["stage"]) == (seen.params, "a", "first")
    assert [metric.value for metric in found.metrics] == [0.5]
    outputs = server.get_run(real.info.run_id).outputs.model_outputs  # which older ones leave out of a search
    assert [each.model_id for each in outputs] == [found.model_id]
    # By the first id and the server's alike, through our URI and without it.
    assert mlflow.get_logged_model(logged.model_id).model_id == found.model_id
    assert mlflow.pyfunc.load_model(logged.model_uri).predict([1.5]) == [3]
    described = Path(mlflow.artifacts.download_artifacts(found.model_uri), "MLmodel").read_text()
    assert found.model_id in described
    assert real.info.run_id in described
    assert not OWN_ID.search(described)
    tracker = f"sqlite:///{tmp_path / 'tracker.db'}"
    assert get_client(tracker, load_config()).flush(60)
    verified = dbnd("mlflow", "verify", DBND__CORE__DATABAND_URL=tracker, MLFLOW_TRACKING_URI=proxy.url)
    assert verified.returncode == 0, verified.stdout


@pytest.mark.skipif(not has_logged_models, reason="this MLflow has no logged models")
def test_a_model_whose_answer_is_lost_is_created_once(proxy, server):
    with mlflow.start_run():
        proxy.otherwise = lost_answer
        first = mlflow.initialize_logged_model(name="mine")
        proxy.otherwise = passing
        settle()
    (found,) = server.search_logged_models(["0"])
    assert found.name == first.name == "mine"
    assert found.status == "PENDING"


def test_a_model_is_whole_when_it_is_said_to_be(server):
    with mlflow.start_run() as run:
        logged = log_small_model("model")
        loaded = mlflow.pyfunc.load_model(logged.model_uri)
    assert loaded.predict([1.5]) == [3]
    settle()
    if hasattr(server, "get_logged_model"):
        found = server.get_logged_model(logged.model_id)
        assert found.status == "READY"
        assert found.source_run_id == run.info.run_id
        assert [each.model_id for each in server.get_run(run.info.run_id).outputs.model_outputs] == [logged.model_id]


def test_asynchronous_logging(proxy, server):
    operations = []
    with mlflow.start_run() as run:
        for step in range(30):
            if step == 10:
                proxy.refuse()
            operations.append(mlflow.log_metric("m", step, step=step, synchronous=False))
            operations.append(mlflow.log_param(f"p{step}", step, synchronous=False))
        for operation in operations:  # not each MLflow can wait for all at once
            operation.wait()
        proxy.listen()
    settle()
    assert sorted(m.step for m in server.get_metric_history(run.info.run_id, "m")) == list(range(30))
    assert len(server.get_run(run.info.run_id).data.params) == 30


def test_system_metrics_are_logged_to_the_end(proxy, server):
    pytest.importorskip("psutil")
    with mlflow.start_run(log_system_metrics=True) as run:
        mlflow.log_metric("m", 1)
        proxy.refuse()
        time.sleep(0.1)
    proxy.listen()
    settle()
    assert server.get_run(run.info.run_id).info.status == "FINISHED"


@in_an_outage
def test_a_run_that_fails_in_an_outage_has_failed(proxy, server):
    proxy.refuse()
    with pytest.raises(ValueError, match="mine"), mlflow.start_run() as run:
        mlflow.log_metric("m", 1)
        raise ValueError("mine")
    assert mlflow.get_run(run.info.run_id).info.status == "FAILED"
    proxy.listen()
    settle()
    (found,) = server.search_runs(["0"])
    assert (found.info.status, found.data.metrics) == ("FAILED", {"m": 1})


def test_runs_are_deleted_restored_and_found_after_what_waits_for_them(proxy, server):
    client = MlflowClient()
    proxy.refuse()
    with mlflow.start_run() as run:
        mlflow.log_metric("m", 1)
    first = run.info.run_id
    assert is_own(first)
    with pytest.raises(MlflowException):
        client.delete_run(first)
    assert client.get_run(first).data.metrics == {"m": 1}
    proxy.listen()
    client.delete_run(first)
    (found,) = server.search_runs(["0"], run_view_type=2)
    assert found.data.metrics == {"m": 1}
    assert client.get_run(first).info.lifecycle_stage == "deleted"
    with pytest.raises(MlflowException, match="active"):
        client.log_metric(first, "m", 2)
        settle()
    client.restore_run(first)
    client.log_metric(first, "m", 3)
    settle()
    assert server.get_run(found.info.run_id).data.metrics == {"m": 3}
    assert [run.info.run_id for run in client.search_runs(["0"], f"attributes.run_id = '{first}'")] == [
        found.info.run_id
    ]


def test_a_run_that_another_process_has_restored_takes_points_again(server):
    client = MlflowClient()
    run_id = client.create_run("0").info.run_id
    client.delete_run(run_id)
    assert client.get_run(run_id).info.lifecycle_stage == "deleted"
    server.restore_run(run_id)
    client.log_metric(run_id, "m", 1)
    settle()
    assert server.get_run(run_id).data.metrics == {"m": 1}


@pytest.mark.skipif(not hasattr(mlflow, "trace"), reason="this MLflow has no traces")
@in_an_outage
def test_traces_in_an_outage_disturb_nothing(proxy, server, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")

    @mlflow.trace
    def answer(question: str) -> str:
        return question.upper()

    proxy.refuse()
    with mlflow.start_run() as run:
        assert answer("a") == "A"
        mlflow.log_metric("m", 1)
    proxy.listen()
    settle()
    (found,) = server.search_runs(["0"])
    assert found.data.metrics == {"m": 1}
    assert mlflow.get_run(run.info.run_id).info.run_id == found.info.run_id


@in_an_outage
def test_a_version_of_a_model_names_the_run_that_the_server_has(proxy, server):
    proxy.refuse()
    with mlflow.start_run() as run:
        mlflow.log_text("", "model/MLmodel")
    proxy.listen()
    version = mlflow.register_model(f"runs:/{run.info.run_id}/model", "of an outage")
    settle()
    assert version.run_id == mlflow.get_run(run.info.run_id).info.run_id
    (found,) = MlflowClient().search_model_versions(f"run_id = '{run.info.run_id}'")
    assert (found.name, found.run_id) == ("of an outage", server.search_runs(["0"])[0].info.run_id)


@in_an_outage
def test_a_version_of_a_model_names_a_run_of_the_server_that_takes_no_events_yet(proxy, server, monkeypatch):
    proxy.refuse()
    with mlflow.start_run() as run:
        run_id = run.info.run_id
        client = MlflowClient()
        with monkeypatch.context() as patch:
            patch.setattr(Target, "has_delivered", lambda *_, **__: False)
            patch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
            with pytest.raises(MlflowException):
                client.create_model_version("name", "s3://bucket/model", run_id)
            proxy.listen()
            client.create_registered_model("name")
            version = client.create_model_version("name", "s3://bucket/model", run_id)
    settle()
    assert version.run_id == server.search_runs(["0"])[0].info.run_id != run_id


@pytest.mark.skipif(not takes_traces_whole, reason="this MLflow logs traces in parts")
@in_an_outage
def test_a_trace_names_the_run_and_experiment_that_the_server_has(proxy, server):
    proxy.refuse()
    experiment = mlflow.set_experiment("of an outage").experiment_id
    with mlflow.start_run() as run:
        proxy.listen()
        with mlflow.start_span("span"):
            pass
        mlflow.flush_trace_async_logging()
    real = mlflow.get_run(run.info.run_id).info
    (found,) = server.search_traces([real.experiment_id])
    assert (found.info.trace_metadata["mlflow.sourceRun"], is_own(experiment)) == (real.run_id, True)


@in_an_outage
def test_an_outer_run_is_remembered_however_many_are_nested_in_it(proxy, monkeypatch):
    monkeypatch.setattr("dbnd_mlflow._durable.runs._MAX_VIEWS", 3)
    proxy.refuse()
    with mlflow.start_run(run_name="outer") as outer:
        for n in range(6):
            with mlflow.start_run(nested=True):
                mlflow.log_metric("m", n)
            mlflow.log_metric("done", n, step=n)
        assert mlflow.get_run(outer.info.run_id).data.metrics == {"done": 5}
    proxy.listen()
    settle()


@pytest.mark.skipif(not has_logged_models, reason="this MLflow has no logged models")
def test_a_model_of_somebody_else_is_tagged_while_other_writes_wait(proxy, server, monkeypatch):
    monkeypatch.setenv("DBND__MLFLOW_TRACKING__STORE_TIMEOUT", "1")
    theirs = server.create_logged_model("0", name="theirs")

    def fault(exchange):
        (answering(503) if "log-batch" in exchange.path or "log-metric" in exchange.path else passing)(exchange)

    with mlflow.start_run():
        proxy.otherwise = fault
        mlflow.log_metric("m", 1)
        mlflow.set_logged_model_tags(theirs.model_id, {"stage": "first"})
        proxy.otherwise = passing
        settle()
    assert server.get_logged_model(theirs.model_id).tags["stage"] == "first"


def test_experiments_are_read_with_the_tags_that_were_set_before(server):
    for number in range(4):
        mlflow.set_experiment_tag("n", str(number))
        assert mlflow.get_experiment("0").tags["n"] == str(number)
        mlflow.set_experiment_tag("m", str(number))
        (found,) = mlflow.search_experiments(filter_string=f"tags.m = '{number}'")
        assert found.experiment_id == "0"


@in_an_outage
def test_a_run_that_begins_in_an_outage_reads_the_artifacts_that_it_has_logged(proxy, server, tmp_path):
    pytest.importorskip("pandas")
    proxy.refuse()
    with mlflow.start_run() as run:
        for loss in (0.5, 0.25):
            mlflow.log_table({"loss": [loss]}, "losses.json")
        mlflow.log_dict({"a": 1}, "more/a.json")
        # By its root: MLflow's own listing by a run's id looks for logged models, too, which only the server knows.
        repository = get_artifact_repository(run.info.artifact_uri)
        (file, folder) = repository.list_artifacts()
        assert (file.path, file.is_dir, file.file_size > 0) == ("losses.json", False, True)
        assert (folder.path, folder.is_dir) == ("more", True)
        assert [below.path for below in repository.list_artifacts("more")] == ["more/a.json"]
        copied = Path(repository.download_artifacts("", str(tmp_path)))
        assert sorted(file.name for file in copied.rglob("*.json")) == ["a.json", "losses.json"]
        with pytest.raises(MlflowException, match=r"There is no b\.json"):
            repository.download_artifacts("b.json", str(tmp_path))
    proxy.listen()
    settle()
    (found,) = server.search_runs(["0"])
    uri = f"runs:/{found.info.run_id}/losses.json"
    assert mlflow.artifacts.load_dict(uri) == {"columns": ["loss"], "data": [[0.5], [0.25]]}


@in_an_outage
def test_what_is_kept_is_delivered_in_the_workspace_in_which_it_was_logged(
    track, writes, warm, tmp_path, empty_database
):
    within = pytest.importorskip("mlflow.utils.workspace_context").WorkspaceContext
    server = MlflowServer(tmp_path / "mlflow", empty_database, warm, options=["--enable-workspaces"])
    with server.running(), Proxy(server.url) as proxy:
        track(proxy.url, writes)
        plain = MlflowClient(server.url)
        plain.create_workspace("team")
        client = MlflowClient()
        with within("team"):
            run_id = client.create_run(client.create_experiment("of the team")).info.run_id
            settle()
            proxy.refuse()
            client.log_metric(run_id, "m", 1)
            late = client.create_run(client.get_experiment_by_name("of the team").experiment_id).info.run_id
        with mlflow.start_run():
            mlflow.log_param("p", 1)
        proxy.listen()
        settle()
        with within("team"):
            assert plain.get_run(run_id).data.metrics == {"m": 1}
            assert client.get_run(late).info.experiment_id == plain.get_run(run_id).info.experiment_id
        (found,) = plain.search_runs(["0"])
        assert found.data.params == {"p": "1"}
