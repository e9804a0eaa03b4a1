"""No password reaches a journal or a message, and those of the environment at delivery are the ones that count."""

from __future__ import annotations

import base64
from pathlib import Path

import mlflow
import pytest
from kit.faults import answering, garbage, passing
from kit.scale import leading
from mlflow import MlflowClient

from dbnd_mlflow._durable.store import outboxes

SECRET = "s3cr3t-of-mlflow"


@pytest.fixture(params=["uri", "environment"])
def inner(request, proxy, monkeypatch) -> str:
    """A store's URI, with the password in it or in the environment."""
    if request.param == "uri":
        return str(proxy.url.replace("http://", f"http://user:{SECRET}@"))
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "user")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", SECRET)
    return str(proxy.url)


def everything_below(folder: Path) -> str:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return "\n".join(f"{path}\n{path.read_bytes().decode(errors='replace')}" for path in files)


@pytest.mark.parametrize(
    ("inner", "writes"),
    leading([("uri", "keep"), ("environment", "deferred"), ("uri", "deferred"), ("environment", "keep")], 2),
    indirect=["inner"],
)
def test_no_password_is_kept_or_said(proxy, track, writes, inner, home, capfd, dbnd):
    track(inner, writes)
    mlflow.set_experiment("one")
    faults = [None, garbage, answering(404, body=b"no"), answering(500, body=b'{"error_code": "INTERNAL_ERROR"}')]
    for fault in faults:
        proxy.otherwise = passing
        proxy.listen()
        with mlflow.start_run():
            if fault is None:
                proxy.refuse()
            else:
                proxy.otherwise = fault
            mlflow.log_metric("m", 1)
            mlflow.log_text("x", "file")
            for outbox in outboxes():
                outbox.flush(1)
    for outbox in outboxes():
        assert outbox.trouble
        assert SECRET not in outbox.trouble + outbox.name + outbox.destination
        said = outbox.close(0)
        assert said is not None
        assert "does not take" in said
        assert SECRET not in said
    said = capfd.readouterr()
    kept = everything_below(home / "dbnd")
    assert "log_artifact" in kept
    for text in (kept, said.err, said.out.replace(inner, "")):  # MLflow prints its own tracking URI
        assert SECRET not in text
        assert base64.b64encode(f"user:{SECRET}".encode()).decode() not in text
    proxy.refuse()  # where somebody answers, `dbnd sync` tries for half a minute
    for arguments in (["sync", "--list"], ["sync", "--dry-run"], ["sync"], ["doctor"]):
        found = dbnd(*arguments)
        assert SECRET not in found.stdout + found.stderr


def test_sync_sends_with_the_credentials_of_its_own_environment(proxy, server, track, inner, dbnd, tmp_path):
    track(inner, "deferred")
    proxy.refuse()
    with mlflow.start_run():
        mlflow.log_metric("m", 1)
    for outbox in outboxes():
        outbox.close(0)
    proxy.listen()
    seen = []

    def noting(exchange):
        seen.append(exchange._handler.headers.get("Authorization"))
        passing(exchange)

    proxy.otherwise = noting
    tracker = {"DBND__CORE__DATABAND_URL": f"sqlite:///{tmp_path / 'tracker.db'}"}
    here = {"DBND__MLFLOW_TRACKING__DUPLICATE_TRACKING_TO": proxy.url}
    other = {"DBND__MLFLOW_TRACKING__DUPLICATE_TRACKING_TO": "http://127.0.0.1:1"}
    elsewhere = dbnd("sync", **tracker, **other)
    assert elsewhere.returncode == 1
    assert f"`dbnd sync --set-config mlflow_tracking.duplicate_tracking_to={proxy.url}` sends them" in elsewhere.stderr
    assert not seen
    credentials = {"MLFLOW_TRACKING_USERNAME": "other", "MLFLOW_TRACKING_PASSWORD": "another"}
    with_user = proxy.url.replace("http://", "http://other:another@")
    own = credentials | here if "@" in inner else {"DBND__MLFLOW_TRACKING__DUPLICATE_TRACKING_TO": with_user}
    done = dbnd("sync", **tracker, **own)
    assert done.returncode == 0, done.stderr
    assert set(seen) == {"Basic " + base64.b64encode(b"other:another").decode()}
    assert len(MlflowClient(server.tracking_uri).search_runs(["0"])) == 1
