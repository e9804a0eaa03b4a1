"""What else an MLflow server, or what stands before it, may answer: it ends no training, and blocks nothing else."""

from __future__ import annotations

import time

import mlflow
import numpy as np
import pytest
import sqlalchemy
from kit.faults import (
    Proxy,
    answering,
    bad_gateway,
    busy,
    cut_answer,
    delaying,
    garbage,
    limiting,
    lost_answer,
    passing,
)
from kit.letters import letters
from kit.scale import leading
from mlflow import MlflowClient
from mlflow.entities import Metric
from mlflow.exceptions import MlflowException, RestException
from mlflow.protos.databricks_pb2 import BAD_REQUEST
from mlflow.tracking._tracking_service.utils import _get_store

from dbnd_mlflow._durable.errors import is_away, reason_of
from dbnd_mlflow._durable.ids import is_own
from dbnd_mlflow._durable.store import outboxes


def settle(refused: int = 0) -> None:
    """Deliver everything."""
    for outbox in outboxes():
        assert outbox.flush(60), outbox.trouble
        assert (outbox.refused, outbox.dropped) == (refused, 0)


def once(proxy, what, fault):
    """Let the next request whose path has ``what`` in it meet a fault."""
    left = [what]

    def otherwise(exchange):
        if left and what in exchange.path:
            left.pop()
            fault(exchange)
        else:
            passing(exchange)

    proxy.otherwise = otherwise
    return left


FAULTS = [
    *(lost_answer, cut_answer, garbage, answering(401, body=b"<html>no</html>"), busy(1), bad_gateway),
    *(answering(status, body=b"<html>no</html>") for status in (403, 404, 408, 413, 500, 502, 503, 504)),
]


# In `keep` a write that meets a fault is sent again as in `deferred`.
@pytest.mark.parametrize(
    ("fault", "writes"),
    [*((fault, "keep") for fault in FAULTS), *((fault, "deferred") for fault in leading(FAULTS, 4))],
    ids=lambda part: getattr(part, "__name__", part),
)
def test_a_run_goes_on_whatever_a_proxy_answers(proxy, server, track, writes, fault, tmp_path):
    track(proxy.url, writes)
    (tmp_path / "file").write_text("x")
    with mlflow.start_run() as run:
        proxy.otherwise = fault
        for step in range(20):
            mlflow.log_metric("m", step, step=step)
        mlflow.set_tag("t", "x")
        mlflow.log_param("p", 1)
        proxy.otherwise = passing
        mlflow.log_metric("m", 20, step=20)
        mlflow.log_artifact(str(tmp_path / "file"))
    settle()
    found = server.get_run(run.info.run_id)
    assert sorted(m.step for m in server.get_metric_history(run.info.run_id, "m")) == list(range(21))
    assert (found.data.tags["t"], found.data.params, found.info.status) == ("x", {"p": "1"}, "FINISHED")
    assert [file.path for file in server.list_artifacts(run.info.run_id)] == ["file"]


def test_a_read_that_is_answered_from_here_waits_for_no_second_attempt(proxy, track, writes):
    track(proxy.url, writes)
    tries = []

    def otherwise(exchange):
        tries.append(exchange.path)
        answering(503)(exchange)

    client = MlflowClient()
    with mlflow.start_run() as run:
        proxy.otherwise = otherwise
        mlflow.log_metric("m", 1)
        assert client.get_run(run.info.run_id).data.metrics == {"m": 1}
        assert [metric.value for metric in client.get_metric_history(run.info.run_id, "m")] == [1]
        assert len(tries) <= 4, "one for each of the calls, of which MLflow 3.1 makes one more"
        proxy.otherwise = passing
    settle()


def test_a_server_is_waited_for_as_in_mlflow_where_nobody_else_can_answer(proxy, server, track, writes, monkeypatch):
    uri = track(proxy.url, writes)
    monkeypatch.setenv("DBND__MLFLOW_TRACKING__STORE_TIMEOUT", "1")
    mlflow.set_tracking_uri(f"{uri}&")  # another URI, and so another store
    client = MlflowClient()
    experiment_id = server.create_experiment("of somebody else")
    run_id = server.create_run(experiment_id, run_name="theirs").info.run_id
    server.log_metric(run_id, "m", 1.0)
    proxy.otherwise = delaying(2)
    assert client.get_experiment(experiment_id).name == "of somebody else"
    assert client.get_run(run_id).info.run_name == "theirs"
    assert [metric.value for metric in client.get_metric_history(run_id, "m")] == [1]
    if hasattr(server, "create_logged_model"):
        model = server.create_logged_model(experiment_id, name="their_model")
        assert client.get_logged_model(model.model_id).name == "their_model"
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    once(proxy, "get-history", answering(503))
    assert [metric.value for metric in client.get_metric_history(run_id, "m")] == [1]


def test_the_registry_of_a_server_that_is_away_is_asked_once(proxy, track, writes, monkeypatch):
    track(proxy.url, writes)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    client = MlflowClient()
    with mlflow.start_run() as run:
        proxy.otherwise = answering(503, body=b"<html>no</html>")
        mlflow.log_metric("m", 1)
        client.get_run(run.info.run_id)  # it is known to be away after that
        for ask in (client.create_registered_model, client.get_registered_model, client.get_latest_versions):
            seen = len(proxy.seen)
            with pytest.raises(MlflowException, match="503"):
                ask("name")
            asked = [each.path for each in proxy.seen[seen:] if "registered-models" in each.path]
            assert len(asked) == 1, ask
        proxy.otherwise = passing
    settle()
    assert client.create_registered_model("name").name == "name"
    assert client.get_latest_versions("name") == []


def test_batches_become_smaller_where_a_proxy_limits_them(proxy, server, track):
    track(proxy.url, "deferred")
    with mlflow.start_run() as run:
        proxy.refuse()
        for step in range(500):
            mlflow.log_metric("m", step, step=step)
    proxy.otherwise = limiting(5_000)
    proxy.listen()
    settle()
    assert len(server.get_metric_history(run.info.run_id, "m")) == 500


@pytest.mark.parametrize("status", [404, 500])
def test_an_artifact_that_the_server_never_takes_blocks_nothing(proxy, server, track, writes, tmp_path, home, status):
    def otherwise(exchange):
        (answering(status) if "mlflow-artifacts" in exchange.path else passing)(exchange)

    track(proxy.url, writes)
    (tmp_path / "file").write_text("x")
    with mlflow.start_run() as run:
        proxy.refuse()
        mlflow.log_artifact(str(tmp_path / "file"))
        mlflow.log_metric("m", 1)
        proxy.otherwise = otherwise
        proxy.listen()
    settle(refused=1)
    assert server.get_run(run.info.run_id).data.metrics == {"m": 1}
    (path,) = (home / "dbnd/journal").glob("*.dead")
    ((call, _, reason, _),) = letters(path)
    assert call == "log_artifact"
    assert str(status) in reason


@pytest.mark.parametrize("what", ["runs/delete-tag", "runs/log-inputs", "runs/outputs", "mlflow-artifacts"])
def test_an_answer_that_is_lost_changes_nothing(proxy, server, track, writes, tmp_path, what):
    track(proxy.url, writes)
    (tmp_path / "file").write_text("x")
    with mlflow.start_run() as run:
        mlflow.set_tag("gone", 1)
        has_outputs = hasattr(MlflowClient, "log_outputs")
        model = mlflow.create_external_model(name="m", source_run_id=run.info.run_id) if has_outputs else None
        settle()  # what follows is not in the first batch
        left = once(proxy, what, lost_answer)
        MlflowClient().delete_tag(run.info.run_id, "gone")
        mlflow.log_input(mlflow.data.from_numpy(np.array([1, 2]), name="d"))
        mlflow.log_artifact(str(tmp_path / "file"))
        if model is not None:
            from mlflow.entities import LoggedModelOutput

            MlflowClient().log_outputs(run.info.run_id, [LoggedModelOutput(model.model_id, 0)])
    settle()
    assert not left or model is None
    found = server.get_run(run.info.run_id)
    assert "gone" not in found.data.tags
    assert len(found.inputs.dataset_inputs) == 1
    assert [file.path for file in server.list_artifacts(run.info.run_id)] == ["file"]
    if model is not None:
        assert len(found.outputs.model_outputs) == 1


def test_a_point_whose_answer_is_lost_is_there_once_in_a_server_of_files(server_over, track, writes, tmp_path):
    """A database takes a point once, however often it is sent. That server was MLflow's default before 3.7."""
    with server_over((tmp_path / "runs").as_uri()) as url, Proxy(url) as proxy:
        track(proxy.url, writes)
        with mlflow.start_run() as run:
            for step in range(3):  # only the first of them is in the first batch
                left = once(proxy, "runs/log-", lost_answer)
                mlflow.log_metric("m", 1, step=step)
                settle()
                assert not left
                mlflow.log_metric("m", 2, step=step)
        settle()
        history = MlflowClient(url).get_metric_history(run.info.run_id, "m")
    assert [(m.step, m.value) for m in history] == [(step, value) for step in range(3) for value in (1, 2)]


def test_a_server_that_never_answers_is_waited_for_once(proxy, server, track, writes, tmp_path, monkeypatch):
    uri = track(proxy.url, writes)
    monkeypatch.setenv("DBND__MLFLOW_TRACKING__STORE_TIMEOUT", "1")
    mlflow.set_tracking_uri(f"{uri}&")  # another URI, and so another store
    (tmp_path / "file").write_text("x")
    waited = []

    def hanging(exchange):
        exchange.read()
        waited.append(exchange.path)
        exchange.wait()

    proxy.otherwise = hanging
    started = time.monotonic()
    with mlflow.start_run() as run:
        for step in range(100):
            mlflow.log_metric("m", step, step=step)
            mlflow.log_param(f"p{step}", step)
        mlflow.log_artifact(str(tmp_path / "file"))
        for _ in range(3):
            with mlflow.start_run(nested=True):
                mlflow.log_metric("m", 1)
        assert mlflow.get_run(run.info.run_id).data.params["p99"] == "99"
    # Once by this thread, and by the sender.
    assert len(waited) <= 3, waited
    assert time.monotonic() - started < 60
    proxy.otherwise = passing
    proxy.refuse()
    proxy.listen()
    settle()
    assert len(server.search_runs(["0"])) == 4


def test_wrong_credentials_are_an_error_at_the_start(proxy, track, writes):
    track(proxy.url, writes)
    proxy.otherwise = answering(401, body=b"You are not authenticated.")
    with pytest.raises(MlflowException, match="401"):
        mlflow.start_run()


def test_what_a_run_of_somebody_else_refuses_blocks_nothing(proxy, server, track, home):
    """The server lets this user read a run, and not write to it."""
    theirs = server.create_run("0").info.run_id
    forbidden = answering(403, body=b'{"error_code": "PERMISSION_DENIED", "message": "Permission denied"}')

    def otherwise(exchange):
        (forbidden if theirs.encode() in exchange.read() else passing)(exchange)

    track(proxy.url, "deferred")
    proxy.otherwise = otherwise
    client = MlflowClient()
    client.log_batch(theirs, [Metric("m", 1, 1, 1)])
    with mlflow.start_run() as run:
        mlflow.log_metric("m", 1)
    settle(refused=1)
    assert server.get_run(run.info.run_id).data.metrics == {"m": 1}
    (path,) = (home / "dbnd/journal").glob("*.dead")
    assert [reason for _, _, reason, _ in letters(path)] == ["PERMISSION_DENIED: Permission denied"]


def test_what_is_refused_with_its_run_blocks_nothing(proxy, server, track, writes, home):
    """The experiment of a run that began during the outage is deleted meanwhile."""
    track(proxy.url, writes)
    name = f"doomed {time.time_ns()}"
    mlflow.set_experiment(name)
    settle()
    proxy.refuse()
    with mlflow.start_run() as doomed:
        assert is_own(doomed.info.run_id)
        for step in range(10):
            mlflow.log_metric("m", step, step=step)
    MlflowClient(proxy.url.replace(proxy.url, server.tracking_uri)).delete_experiment(doomed.info.experiment_id)
    mlflow.set_experiment("Default")
    with mlflow.start_run() as other:
        mlflow.log_metric("m", 1)
    proxy.listen()
    (outbox,) = outboxes()
    assert outbox.flush(60), outbox.trouble
    assert outbox.refused > 10
    assert mlflow.get_run(other.info.run_id).data.metrics == {"m": 1}
    found = [letter for path in (home / "dbnd/journal").glob("*.dead") for letter in letters(path)]
    assert all("was refused" in reason for _, _, reason, _ in found)
    assert "must be in the 'active' state" in found[0][2]


def test_what_a_database_refuses_is_said_in_its_own_words(inner_uri):
    """Without the statement, the values and the advice that SQLAlchemy adds."""
    statement = sqlalchemy.text("UPDATE experiments SET name = NULL WHERE name = :name")
    with (
        pytest.raises(MlflowException, match="SQL: ") as caught,
        _get_store(inner_uri).ManagedSessionMaker() as session,
    ):
        session.execute(statement, {"name": "Default"})
    said = reason_of(caught.value)
    assert said.endswith("NOT NULL constraint failed: experiments.name")
    assert "\n" not in said


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("(psycopg.errors.ReadOnlySqlTransaction) cannot execute INSERT in a read-only transaction", True),
        ("(sqlite3.InterfaceError) Error binding parameter 0 - probably unsupported type.", False),
        ("(psycopg2.OperationalError) server closed the connection unexpectedly", True),
        ('(psycopg.errors.UniqueViolation) duplicate key\nDETAIL:  Key (key)=("connection") already exists.', False),
        ("(sqlite3.IntegrityError) UNIQUE constraint failed: tags.key", False),
    ],
)
def test_a_database_is_away_by_what_it_says_itself(said, expected):
    text = f"{said}\n[SQL: INSERT INTO tags (key, value) VALUES (?, ?)]\n[parameters: ('connection', 'x')]"
    for error in (
        MlflowException(text, BAD_REQUEST),
        RestException({"error_code": "BAD_REQUEST", "message": text}),
    ):
        assert is_away(error) is expected
