"""The folder in which ids and artifacts wait: full, unusable, or left by killed processes."""

from __future__ import annotations

import os
import uuid
from inspect import getsource

import mlflow
import pytest
from kit.faults import unusable_folder
from kit.scale import leading
from mlflow import MlflowClient
from mlflow.tracking._tracking_service.client import TrackingServiceClient

from dbnd_mlflow._durable.ids import is_own
from dbnd_mlflow._durable.store import outboxes

# While the server is away, `keep` goes the way of `deferred` from its first write on.
in_an_outage = pytest.mark.parametrize("writes", leading(["keep", "deferred"]))

FULL = """
import mlflow
from kit.faults import fill_disk, free_disk
from dbnd_mlflow._durable.store import outboxes
from mlflow.exceptions import MlflowException

with mlflow.start_run() as run:
    mlflow.log_metric("m", 0, step=0)
    fill_disk(1)
    for step in range(1, 20):
        mlflow.log_metric("m", step, step=step)
    mlflow.log_param("p", 1)
    mlflow.set_tag("t", 1)
    free_disk()
    mlflow.log_metric("m", 20, step=20)
for outbox in outboxes():
    assert outbox.flush(60), outbox.trouble
    assert (outbox.refused, outbox.dropped) == (0, 0), (outbox.refused, outbox.dropped)
print(run.info.run_id)
"""


def test_a_full_disk_makes_it_plain_mlflow(proxy, server, track, writes, python, monkeypatch):
    uri = track(proxy.url, writes)
    done = python(FULL, MLFLOW_TRACKING_URI=uri)
    assert done.returncode == 0, done.stderr
    run_id = done.stdout.split()[-1]
    assert sorted(m.step for m in server.get_metric_history(run_id, "m")) == list(range(21))
    found = server.get_run(run_id)
    assert (found.data.params, found.data.tags["t"], found.info.status) == ({"p": "1"}, "1", "FINISHED")


FULL_AND_AWAY = """
import mlflow
from kit.faults import fill_disk, free_disk
from mlflow.exceptions import MlflowException

run = mlflow.start_run()
for log in (lambda: mlflow.log_metric("m", 1), lambda: mlflow.start_run(nested=True)):
    fill_disk(1)
    try:
        log()
    except MlflowException as error:
        said = "raised"
    else:
        said = "kept"
    free_disk()
    print(said)
"""


@in_an_outage
def test_a_full_disk_and_no_server_is_an_error_of_mlflow(proxy, track, writes, python):
    uri = track(proxy.url, writes)
    proxy.refuse()
    done = python(FULL_AND_AWAY, MLFLOW_TRACKING_URI=uri, MLFLOW_HTTP_REQUEST_MAX_RETRIES="0")
    assert done.stdout.count("raised") == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stderr


@in_an_outage
def test_a_home_that_cannot_be_written_loses_nothing(proxy, server, track, writes, tmp_path, monkeypatch):
    monkeypatch.setenv("DBND_HOME", str(unusable_folder(tmp_path / "taken")))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    track(proxy.url, writes)
    proxy.refuse()
    with mlflow.start_run() as run:
        mlflow.log_metric("m", 1)
        mlflow.log_text("x", "file.txt")
    assert is_own(run.info.run_id)
    proxy.listen()
    for outbox in outboxes():
        assert outbox.flush(60), outbox.trouble
        assert (outbox.refused, outbox.dropped) == (0, 0)
    (found,) = server.search_runs(["0"])
    assert found.data.metrics == {"m": 1}
    assert [file.path for file in server.list_artifacts(found.info.run_id)] == ["file.txt"]
    assert mlflow.get_run(run.info.run_id).info.run_id == found.info.run_id


def test_what_killed_processes_have_left_is_removed(proxy, server, track, home):
    track(proxy.url, "deferred")
    folder = home / "dbnd/journal/mlflow"
    proxy.refuse()
    with mlflow.start_run():
        mlflow.log_text("x", "file.txt")
    (waiting,) = (folder / "spool").iterdir()
    for name in (f"spool/{uuid.uuid4().hex}", f"{uuid.uuid4().hex}.1.new"):
        (folder / name).write_text("left")
    for path in folder.rglob("*"):
        os.utime(path, (0, 0))
    new = folder / "spool" / uuid.uuid4().hex
    new.write_text("a moment ago")
    for outbox in outboxes():
        outbox.close(0)
    assert {path.name for path in (folder / "spool").iterdir()} == {waiting.name, new.name}
    assert not list(folder.glob("*.new"))


def test_names_of_artifacts_stay_what_they_are(proxy, server, track, writes, tmp_path):
    track(proxy.url, writes)
    plain = server.create_run("0").info.run_id
    run_id = MlflowClient().create_run("0").info.run_id
    for name in ("a b#c%20é.txt", "semi;colon&=?.txt"):
        (tmp_path / name).write_text("x")
        server.log_artifact(plain, str(tmp_path / name), "in a/fold#er")
        MlflowClient().log_artifact(run_id, str(tmp_path / name), "in a/fold#er")

    def names(run_id: str, path: str | None = None) -> list[str]:
        found = server.list_artifacts(run_id, path)
        return [n for each in found for n in (names(run_id, each.path) if each.is_dir else [each.path])]

    for outbox in outboxes():
        assert outbox.flush(60), outbox.trouble
    assert sorted(names(run_id)) == sorted(names(plain)) != []


@pytest.mark.parametrize("inner", ["file://{}/a%2520b", "{}/a%20b"])
def test_what_is_kept_for_a_folder_reaches_it_however_its_uri_is_escaped(inner, track, tmp_path):
    plain = MlflowClient(inner.format(tmp_path))
    assert plain.search_experiments()
    track(inner.format(tmp_path), "deferred")
    with mlflow.start_run() as run:
        mlflow.log_metric("m", 1)
    (outbox,) = outboxes()
    assert outbox.flush(60), outbox.trouble
    assert plain.get_run(run.info.run_id).data.metrics == {"m": 1}


@pytest.mark.skipif(
    "tracking_uri=" not in getsource(TrackingServiceClient._get_artifact_repo),
    reason="this MLflow asks the URI that is set",
)
def test_a_client_with_a_uri_of_its_own_reads_the_artifacts_of_an_outage(proxy, track, writes, tmp_path):
    client = MlflowClient(track(proxy.url, writes))
    mlflow.set_tracking_uri(tmp_path.as_uri())
    proxy.refuse()
    run_id = client.create_run("0").info.run_id
    client.log_text(run_id, "x", "a.txt")
    proxy.listen()
    assert [file.path for file in client.list_artifacts(run_id)] == ["a.txt"]


def test_a_name_with_more_bytes_than_files_have_is_refused_at_the_call(track, tmp_path):
    client = MlflowClient(track(f"file://{tmp_path}/store", "deferred"))
    run_id = client.create_run(client.create_experiment("e")).info.run_id
    with pytest.raises(OSError, match="File name too long"):
        client.log_metric(run_id, "大" * 100, 1.0)
    client.log_metric(run_id, "大" * 80, 1.0)
    assert list(client.get_run(run_id).data.metrics) == ["大" * 80]
    assert [outbox.refused for outbox in outboxes()] == [0]
