"""MLflow's own servers: with their artifacts behind us, and with us behind them."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
from pathlib import Path

import mlflow
import pytest
import requests
from kit.progress import wait_until
from kit.reports import log_small_model, points
from mlflow import MlflowClient
from mlflow.entities import Metric, Param

from dbnd_mlflow import build_composite_uri

pytestmark = [pytest.mark.parity, pytest.mark.usefixtures("unflushed")]


def test_proxied_artifacts_of_a_server(mlflow_server, tracker_url, tmp_path):
    mlflow.set_tracking_uri(build_composite_uri(tracker_url, mlflow_server))
    mlflow.set_experiment("proxied")
    client = MlflowClient()
    with mlflow.start_run(run_name="r") as run:
        mlflow.log_text("hello", "notes/hello.txt")
        mlflow.log_dict({"a": 1}, "a.json")
        log_small_model("m", registered_model_name="proxied")
        assert mlflow.get_artifact_uri().startswith("mlflow-artifacts:")
        assert mlflow.artifacts.load_dict(mlflow.get_artifact_uri("a.json")) == {"a": 1}
    run_id = run.info.run_id
    assert {"a.json", "notes"} <= {f.path for f in client.list_artifacts(run_id)}
    assert [f.path for f in client.list_artifacts(run_id, "notes")] == ["notes/hello.txt"]
    assert Path(client.download_artifacts(run_id, "notes/hello.txt", str(tmp_path))).read_text() == "hello"
    assert mlflow.artifacts.load_text(f"runs:/{run_id}/notes/hello.txt") == "hello"
    for uri in (f"runs:/{run_id}/m", "models:/proxied/1"):
        assert mlflow.pyfunc.load_model(uri).predict([1, 2]) == [2, 4]
    repository = _artifact_repository(run.info.artifact_uri)
    repository.delete_artifacts("notes")
    assert client.list_artifacts(run_id, "notes") == []
    plain = MlflowClient(tracking_uri=mlflow_server)
    assert "notes" not in {f.path for f in plain.list_artifacts(run_id)}
    assert plain.get_run(run_id).info.artifact_uri == run.info.artifact_uri


def _artifact_repository(uri):
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    return get_artifact_repository(uri)


def use_as_a_plain_client(url):
    """What an R, Java or REST client does: it knows nothing of us."""
    mlflow.set_tracking_uri(url)  # for the artifacts of older MLflows, which do not ask their client
    client = MlflowClient(tracking_uri=url)
    experiment_id = client.create_experiment("from afar")
    run = client.create_run(experiment_id, run_name="remote", tags={"t": "v"})
    client.log_metric(run.info.run_id, "m", 0.5, step=7, timestamp=1_700_000_000_000)
    client.log_batch(run.info.run_id, [Metric("n", n, 1_700_000_000_000, n) for n in range(10)], [Param("p", "1")])
    client.log_text(run.info.run_id, "text", "a.txt")
    client.create_registered_model("of the server")
    client.set_terminated(run.info.run_id)
    return client, client.get_run(run.info.run_id)


def test_a_server_over_the_composite_uri_tracks_plain_clients(
    server_over, inner_uri, tracker_url, tmp_path, journalled
):
    uri = build_composite_uri(tracker_url, inner_uri)
    with server_over(uri, "--artifacts-destination", str(tmp_path / "served")) as url:
        client, run = use_as_a_plain_client(url)
        assert run.info.artifact_uri.startswith("mlflow-artifacts:")
        assert [f.path for f in client.list_artifacts(run.info.run_id)] == ["a.txt"]
    assert list((tmp_path / "served").rglob("a.txt"))
    files = [(b["name"], b["path"]) for c, b in journalled() if c == "log_artifact"]
    assert files == [("a.txt", f"{run.info.artifact_uri}/a.txt")]
    found = {key: count for key, count in points(journalled()).items() if not key[1].startswith("mlflow.")}
    assert found == {
        ("mlflow", "m", 7): 1,
        **{("mlflow", "n", n): 1 for n in range(10)},
        ("mlflow.param", "p", None): 1,
        ("mlflow.tag", "t", None): 1,
    }
    (info,) = [b["init_args"]["new_run_info"] for c, b in journalled() if c == "init_run"]
    assert (info["name"], info["project_name"]) == ("remote", "from afar")
    assert [b["state"] for c, b in journalled() if c == "set_run_state"] == ["SUCCESS"]
    stored = MlflowClient(tracking_uri=inner_uri).get_run(run.info.run_id)
    assert stored.data.metrics == run.data.metrics == {"m": 0.5, "n": 9.0}


@pytest.mark.parametrize("option", ["--artifacts-destination", "--default-artifact-root"])
def test_a_server_over_a_file_store_keeps_its_artifact_root(server_over, tracker_url, tmp_path, option, journalled):
    (tmp_path / "runs").mkdir()
    inner = str(tmp_path / "runs")
    place = tmp_path / "served"
    given = place.as_uri() if option == "--default-artifact-root" else str(place)
    with server_over(build_composite_uri(tracker_url, inner), option, given) as url:
        _, run = use_as_a_plain_client(url)
    scheme = "mlflow-artifacts:" if option == "--artifacts-destination" else place.as_uri()
    assert run.info.artifact_uri.startswith(scheme)
    assert list(place.rglob("a.txt"))
    assert points(journalled())["mlflow", "m", 7] == 1


def test_a_server_over_the_embedded_tracker(server_over, inner_uri, home, dbnd, tmp_path):
    pytest.importorskip("dbnd_tracker")
    uri = build_composite_uri(f"sqlite:///{home / 'dbnd/tracker.db'}", inner_uri)
    with server_over(uri, "--artifacts-destination", str(tmp_path / "served")) as url:
        _, run = use_as_a_plain_client(url)

        def show():
            return dbnd("runs", "show", run.info.run_id).stdout

        wait_until(lambda: "State: success" in show(), show)
    assert "remote" in show()


def test_links_to_the_run_are_printed_as_natively(mlflow_server, tracker_url):
    printed = []
    for uri in (mlflow_server, build_composite_uri(tracker_url, mlflow_server)):
        mlflow.set_tracking_uri(uri)
        text = io.StringIO()
        with contextlib.redirect_stdout(text), mlflow.start_run(run_name="r") as run:
            pass
        printed.append(text.getvalue().replace(run.info.run_id, "<run>"))
    assert printed[1] == printed[0]
    if not printed[0]:
        pytest.skip("this MLflow prints no links")
    assert f"{mlflow_server}/#/experiments/0/runs/<run>" in printed[1]


def test_gc_removes_deleted_runs(tracker_url, inner_uri):
    uri = build_composite_uri(tracker_url, inner_uri)
    client = MlflowClient(tracking_uri=uri)
    gone, kept = (client.create_run("0", run_name=name).info.run_id for name in ("gone", "kept"))
    client.delete_run(gone)
    done = subprocess.run(
        [sys.executable, "-m", "mlflow", "gc", "--backend-store-uri", uri, "--tracking-uri", uri]
        if _has_option("gc", "--tracking-uri")
        else [sys.executable, "-m", "mlflow", "gc", "--backend-store-uri", uri],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "MLFLOW_TRACKING_URI": uri},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    plain = MlflowClient(tracking_uri=inner_uri)
    assert [run.info.run_id for run in plain.search_runs(["0"], run_view_type=3)] == [kept]


def _has_option(command, option):
    from mlflow import cli

    return any(option in parameter.opts for parameter in cli.cli.commands[command].params)


def test_files_sent_to_a_server_are_reported_on_their_way(mlflow_server, tracker_url, tmp_path, journalled):
    mlflow.set_tracking_uri(build_composite_uri(tracker_url, mlflow_server))
    mlflow.set_experiment("sent")
    (tmp_path / "folder/deep").mkdir(parents=True)
    for name in ("a.txt", "deep/b.txt"):
        (tmp_path / "folder" / name).write_text("text")
    with mlflow.start_run(run_name="r") as run:
        mlflow.log_text("hello", "notes/hello.txt")
        mlflow.log_artifact(str(tmp_path / "folder/a.txt"))
        mlflow.log_artifacts(str(tmp_path / "folder"), "many")
        mlflow.log_text("hello again", "notes/hello.txt")
    with mlflow.start_run(run_name="without"):
        pass
    sent = [(body["name"], body["path"]) for call, body in journalled() if call == "log_artifact"]
    root = run.info.artifact_uri
    names = ["notes/hello.txt", "a.txt", "many/a.txt", "many/deep/b.txt"]
    assert sent == [(name, f"{root}/{name}") for name in names]


def test_spans_that_are_posted_to_a_server_over_the_composite_uri_are_stored(
    server_over, inner_uri, tracker_url, tmp_path
):
    """The server stores them with a coroutine of its store, which goes through ours."""
    pytest.importorskip("mlflow.server.otel_api")
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    request = ExportTraceServiceRequest()
    span = request.resource_spans.add().scope_spans.add().spans.add()
    span.trace_id, span.span_id, span.name = bytes(range(16)), bytes(range(8)), "posted"
    span.start_time_unix_nano, span.end_time_unix_nano = 1_700_000_000 * 10**9, 1_700_000_001 * 10**9
    uri = build_composite_uri(tracker_url, inner_uri)
    with server_over(uri, "--artifacts-destination", str(tmp_path / "served")) as url:
        answer = requests.post(
            f"{url}/v1/traces",
            data=request.SerializeToString(),
            headers={"Content-Type": "application/x-protobuf", "x-mlflow-experiment-id": "0"},
            timeout=60,
        )
        assert answer.status_code == 200, answer.text
    trace = MlflowClient(tracking_uri=inner_uri).get_trace(f"tr-{bytes(range(16)).hex()}")
    assert [span.name for span in trace.data.spans] == ["posted"]
