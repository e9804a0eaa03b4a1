"""The flow that users install databand for, with real parts on both sides: a tracker, and an MLflow store."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient

TASK = "dbnd_examples.tracking.tracking_mlflow.task_with_mflow"
SWITCH = ("--set-config", "mlflow_tracking.databand_tracking=True")

PROBE = """
import json
import os
from pathlib import Path

import mlflow
from dbnd import get_databand_context, task
from dbnd_mlflow import DatabandStore
from mlflow.tracking._tracking_service.utils import _get_store


@task
def probe(fail: bool = False):
    with mlflow.start_run() as run:
        mlflow.log_metric("m", 1)
    store = _get_store()
    Path("seen.json").write_text(json.dumps({
        "uri": mlflow.get_tracking_uri(),
        "environment": os.environ["MLFLOW_TRACKING_URI"],
        "is_databand_store": type(store) is DatabandStore,
        "run_id": run.info.run_id,
    }))
    if fail:
        raise ValueError("probe failed")
"""

# Runs the command in this very process and tells what MLflow is set to afterwards.
AFTERWARDS = """
import json, os, sys
import mlflow
before = mlflow.get_tracking_uri()
from dbnd._cli.main import main
sys.argv = ["dbnd", *json.loads(sys.argv[1] if len(sys.argv) > 1 else os.environ["ARGS"])]
try:
    main()
except SystemExit as done:
    print("CODE", done.code)
print("RESTORED", mlflow.get_tracking_uri() == before, os.environ.get("MLFLOW_TRACKING_URI"))
"""


@pytest.fixture
def store_uri(tmp_path, empty_database):
    shutil.copy(empty_database, tmp_path / "own.db")
    return f"sqlite:///{tmp_path / 'own.db'}"


@pytest.fixture
def show(dbnd):
    """The latest run, as `dbnd runs show` has it."""

    def show(**env):
        done = dbnd("runs", "show", "latest", "--json", **env)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return show


def only_task_run(run):
    (task_run,) = run["task_runs"]
    return task_run


def compare(run, store_uri):
    """Hold the tracker's run against MLflow's own copy of it."""
    client = MlflowClient(tracking_uri=store_uri)
    task_run = only_task_run(run)
    (stored,) = client.search_runs(["0"], filter_string=f"tags.`dbnd.task_run_uid` = '{task_run['task_run_uid']}'")
    assert stored.info.status == "FINISHED"
    assert (run["state"], task_run["state"]) == ("success", "success")
    reported = {metric["key"]: metric for metric in task_run["metrics"]}
    assert set(reported) == set(stored.data.metrics) == {"loss", "accuracy", "final_loss"}
    for key, value in stored.data.metrics.items():
        assert reported[key]["last_value"] == value
        assert reported[key]["points"] == len(client.get_metric_history(stored.info.run_id, key))
    params = {param["name"]: param["value"] for param in task_run["params"] if param["source"] == "mlflow.param"}
    assert stored.data.params == params
    tags = {tag["name"]: tag["value"] for tag in task_run["tags"]}
    assert {k: v for k, v in stored.data.tags.items() if not k.startswith("dbnd.")} == tags
    assert tags["team"] == "examples"
    assert sorted(artifact["name"] for artifact in task_run["artifacts"]) == ["config/params.json", "summary.md"]
    assert task_run["links"]["mlflow"].endswith(stored.info.run_id)
    return stored


def test_inside_the_task_the_uri_is_composite_and_the_store_is_ours(dbnd, store_uri, home):
    Path("probe.py").write_text(PROBE)
    done = dbnd("run", "probe.probe", *SWITCH, "-c", f"mlflow_tracking.duplicate_tracking_to={store_uri}")
    assert done.returncode == 0, done.stderr
    seen = json.loads(Path("seen.json").read_text())
    quoted = store_uri.replace(":", "%253A").replace("/", "%252F")
    assert seen["uri"] == f"dbnd://{home}/dbnd/tracker.db?duplicate_tracking_to={quoted}"
    assert seen["environment"] == seen["uri"]
    assert seen["is_databand_store"] is True


@pytest.mark.parametrize(("fail", "code"), [("false", 0), ("true", 10)])
def test_after_the_run_the_original_uri_is_back(python, store_uri, fail, code):
    Path("probe.py").write_text(PROBE)
    args = ["run", "probe.probe", "--fail", fail, *SWITCH, "-c", f"mlflow_tracking.duplicate_tracking_to={store_uri}"]
    done = python(AFTERWARDS, ARGS=json.dumps(args))
    assert f"CODE {code}" in done.stdout, done.stderr
    assert "RESTORED True None" in done.stdout


@pytest.mark.parametrize("target", [TASK, "task_with_mflow"])
def test_both_places_hold_the_same_run(dbnd, show, store_uri, target):
    done = dbnd("run", target, *SWITCH, "-c", f"mlflow_tracking.duplicate_tracking_to={store_uri}")
    assert done.returncode == 0, done.stderr
    run = show()
    stored = compare(run, store_uri)
    summary = {line[2:11].strip(): line[11:] for line in done.stderr.splitlines() if line.startswith("  ")}
    assert summary["tracked"] == f"dbnd runs show {run['run_uid'][:8]}"
    assert summary["mlflow"] == f"{store_uri}#/experiments/0/runs/{stored.info.run_id}"
    assert "epochs=" in summary["params"]
    names = {file.path for file in MlflowClient(tracking_uri=store_uri).list_artifacts(stored.info.run_id)}
    assert names == {"summary.md", "config"}


def test_the_short_example_logs_two_params_and_two_metrics(dbnd, show, store_uri):
    done = dbnd("run", "mlflow_example", *SWITCH, "-c", f"mlflow_tracking.duplicate_tracking_to={store_uri}")
    assert done.returncode == 0, done.stderr
    (stored,) = MlflowClient(tracking_uri=store_uri).search_runs(["0"])
    assert (stored.data.params, stored.data.metrics) == ({"param1": "5", "param2": "sgd"}, {"foo1": 1.0, "foo2": 0.0})
    task_run = only_task_run(show())
    assert {param["name"]: param["value"] for param in task_run["params"]} == stored.data.params
    assert {metric["key"]: metric["last_value"] for metric in task_run["metrics"]} == stored.data.metrics


def test_a_server_and_the_embedded_tracker_hold_the_same_rows(dbnd, show, store_uri, tracker_server):
    duplicate = ("-c", f"mlflow_tracking.duplicate_tracking_to={store_uri}")
    assert dbnd("run", TASK, *SWITCH, *duplicate, "--run-name", "embedded").returncode == 0
    server = {"DBND__CORE__DATABAND_URL": tracker_server}
    assert dbnd("run", TASK, *SWITCH, *duplicate, "--run-name", "served", **server).returncode == 0
    # The server serves the file that the embedded default writes: each sees the run of the other.
    through_server, through_file = show(**server), show()
    assert through_server["name"] == "served"
    assert through_server == through_file
    compare(through_server, store_uri)
    listed = json.loads(dbnd("runs", "list", "--json", **server).stdout)
    assert [run["name"] for run in listed] == ["served", "embedded"]
    embedded = json.loads(dbnd("runs", "show", "embedded", "--json").stdout)
    compare(embedded, store_uri)
    shapes = [
        {(m["key"], m["points"], m["last_value"]) for m in only_task_run(run)["metrics"]}
        for run in (embedded, through_server)
    ]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize("switch", ["file", "command line", "environment"])
@pytest.mark.parametrize("value", ["True", "False"])
def test_all_switches_mean_the_same(dbnd, show, home, store_uri, switch, value):
    Path("probe.py").write_text(PROBE)
    args, env = [], {"MLFLOW_TRACKING_URI": store_uri}
    if switch == "file":
        (home / "dbnd").mkdir()
        (home / "dbnd/databand.cfg").write_text(f"[mlflow_tracking]\ndataband_tracking = {value}\n")
    elif switch == "command line":
        args = ["--set-config", f"mlflow_tracking.databand_tracking={value}"]
    else:
        env["DBND__MLFLOW_TRACKING__DATABAND_TRACKING"] = value
    done = dbnd("run", "probe.probe", *args, **env)
    assert done.returncode == 0, done.stderr
    seen = json.loads(Path("seen.json").read_text())
    assert seen["is_databand_store"] is (value == "True")
    assert [metric["key"] for metric in only_task_run(show())["metrics"]] == (["m"] if value == "True" else [])


@pytest.mark.parametrize("kind", ["path", "sqlite", "http"])
def test_each_kind_of_store_receives_the_run(dbnd, show, request, tmp_path, monkeypatch, kind):
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    if kind == "http":
        uri = request.getfixturevalue("mlflow_server")
    else:
        uri = str(tmp_path / "runs") if kind == "path" else f"sqlite:///{tmp_path / 'own.db'}"
    done = dbnd("run", TASK, *SWITCH, "-c", f"mlflow_tracking.duplicate_tracking_to={uri}")
    assert done.returncode == 0, done.stderr
    run = show()
    task_run = only_task_run(run)
    client = MlflowClient(tracking_uri=uri)
    (stored,) = client.search_runs(["0"])
    assert stored.data.tags["dbnd.run_uid"] == run["run_uid"]
    assert len(client.get_metric_history(stored.info.run_id, "loss")) == 10
    # MLflow 2.x does not tell the repository of a server's artifacts which tracking URI it was given.
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    text = Path(mlflow.artifacts.download_artifacts(run_id=stored.info.run_id, artifact_path="summary.md"))
    assert text.read_text().startswith("# Summary")
    assert {m["key"]: m["points"] for m in task_run["metrics"]} == {"loss": 10, "accuracy": 10, "final_loss": 1}
    verified = dbnd("mlflow", "verify", "-c", f"mlflow_tracking.duplicate_tracking_to={uri}")
    assert verified.returncode == 0, verified.stdout


def test_a_composite_uri_as_ones_own_store_is_one_sentence(dbnd):
    done = dbnd("run", TASK, *SWITCH, "-c", "mlflow_tracking.duplicate_tracking_to=dbnd://h")
    assert done.returncode == 8
    assert "mlflow_tracking.duplicate_tracking_to = 'dbnd://h' (--set-config) cannot be used" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_the_real_training_is_tracked_by_autolog(dbnd, show, store_uri):
    # MLflow loads the model in a process of its own to see what it imports, and then asks for what it would without.
    env = {"MLFLOW_REQUIREMENTS_INFERENCE_TIMEOUT": "1"}
    duplicate = ("-c", f"mlflow_tracking.duplicate_tracking_to={store_uri}")
    done = dbnd("run", "sklearn_autolog_example", *SWITCH, *duplicate, **env)
    assert done.returncode == 0, done.stderr
    run = show()
    by_name = {task_run["name"]: task_run for task_run in run["task_runs"]}
    assert set(by_name) == {"train_wine_classifier", "split_data"}
    training = by_name["train_wine_classifier"]
    metrics = {metric["key"]: metric["last_value"] for metric in training["metrics"]}
    (stored,) = MlflowClient(tracking_uri=store_uri).search_runs(["0"])
    assert metrics == stored.data.metrics
    assert math.isclose(metrics["training_accuracy_score"], 1.0, abs_tol=0.05)
    params = {param["name"]: param["value"] for param in training["params"]}
    assert params["n_estimators"] == "50"
    assert any("model" in artifact["name"] for artifact in training["artifacts"])
    verified = dbnd("mlflow", "verify", "-c", f"mlflow_tracking.duplicate_tracking_to={store_uri}")
    assert verified.returncode == 0, verified.stdout
    assert training["datasets"]


def test_a_failing_run_is_failed_in_both_places(dbnd, show, store_uri):
    Path("broken.py").write_text(
        "import mlflow\nfrom dbnd import task\n@task\ndef broken():\n"
        "    with mlflow.start_run():\n        mlflow.log_metric('m', 1)\n        raise ValueError('boom')\n"
    )
    done = dbnd("run", "broken.broken", *SWITCH, "-c", f"mlflow_tracking.duplicate_tracking_to={store_uri}")
    assert done.returncode == 10
    run = show()
    assert run["state"] == "failed"
    assert only_task_run(run)["error"]["msg"] == "boom"
    (stored,) = MlflowClient(tracking_uri=store_uri).search_runs(["0"])
    assert stored.info.status == "FAILED"
