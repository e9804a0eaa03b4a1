"""What the released client sends in each scenario stands in the read API, with the right values and states."""

from __future__ import annotations

import importlib.util
import json
import math
import subprocess
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import requests

pytestmark = [pytest.mark.realclient, pytest.mark.timeout(300)]

DEADLINE = 120


def tasks_of(run: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The task runs of a run by their readable ids."""
    return {task["task_af_id"]: task for task in run["task_runs"]}


def metrics_of(task: dict[str, Any]) -> dict[str, Any]:
    """The last values of a task run's metrics."""
    return {metric["key"]: metric["last_value"] for metric in task["metrics"]}


def params_of(task: dict[str, Any]) -> dict[str, str]:
    return {param["name"]: param["value"] for param in task["params"]}


def unknown_keys(url: str, **headers: str) -> list[str]:
    text = requests.get(f"{url}/metrics", headers=headers, timeout=60).text
    return [line for line in text.splitlines() if line.startswith("databand_tracker_unknown_keys_total")]


def test_a_script_with_nested_tasks_and_metrics_of_every_type(client: Any, tracked: Any) -> None:
    done = client.program("plain", DBND__LOG__PREVIEW_HEAD_BYTES="100000")
    assert done.returncode == 0, done.stderr

    run = tracked.run(job="plain job/1")
    assert (run["state"], run["name"], run["project_name"], run["source"]) == (
        "success",
        "plain",
        "demo",
        "generic_tracking",
    )
    assert run["start_time"] < run["end_time"]
    assert run["environment"]["databand_version"] == "1.0.34.1"
    tasks = tasks_of(run)
    assert {name: (task["state"], task["depth"]) for name, task in tasks.items()} == {
        "plain job/1": ("success", 0),
        "load": ("success", 1),
        "train": ("success", 1),
        "inner": ("success", 2),
        "inner_2": ("success", 2),
        "types": ("success", 1),
    }
    assert tasks["inner"]["parent_task_run_uid"] == tasks["train"]["task_run_uid"]
    assert params_of(tasks["load"]) == {
        "path": "file.csv",
        "password": "***",
        "result": params_of(tasks["load"])["result"],
    }
    assert params_of(tasks["train"])["lr"] == "0.1"
    assert tracked.points(tasks["train"], "loss") == [0.5, 0.25, 0.125]
    assert [metrics_of(tasks[name])["inner"] for name in ("inner", "inner_2")] == [3, 7]
    assert "a line of the task" in tracked.log(tasks["train"])
    (target,) = tasks["load"]["targets"]
    assert (target["param_name"], target["operation_type"], target["value_preview"]) == ("result", "write", "[1, 2, 3]")

    values = metrics_of(tasks["types"])
    long = values.pop("long")
    assert long.startswith("xxx")
    assert "of 6000" in long
    assert values == {
        "one": 1,
        "half": 0.5,
        "true": 1,
        "nan": "NaN",
        "infinity": "-Infinity",
        "large": 10**20,
        "text": "hello",
        "number text": 12.5,
        "none": "None",
        "json": {"a": [1, {"b": None}]},
        "list": [1, 2],
        "unicode": "na\u00efve \U0001f600",
    }
    assert unknown_keys(client.url) == []


def test_a_failing_task(client: Any, tracked: Any) -> None:
    done = client.program("failing")
    assert done.returncode == 1
    assert "no good value" in done.stderr

    run = tracked.run(job="failing", state="failed")
    tasks = tasks_of(run)
    assert {name: task["state"] for name, task in tasks.items()} == {
        "failing": "upstream_failed",
        "fine": "success",
        "outer": "failed",
        "inner": "failed",
    }
    error = tasks["inner"]["error"]
    assert error["exc_type"] == "<class 'ValueError'>"
    assert "no good value" in error["msg"]
    assert "inner" in error["traceback"]
    assert tasks["failing"]["error"] is None
    assert metrics_of(tasks["inner"]) == {"before": 1}
    assert run["end_time"] is not None


def test_dataframes_and_dataset_operations(client: Any, tracked: Any) -> None:
    done = client.program("frames")
    assert done.returncode == 0, done.stderr

    work = tasks_of(tracked.run(job="frames", state="success"))["work"]
    values = metrics_of(work)
    assert (values["frame.rows"], values["frame.columns"], values["frame.a.mean"]) == (3, 2, 2.0)
    assert values["frame.stats"]["b"]["null-count"] == 1
    assert math.isclose(sum(values["frame.histograms"]["a"][0]), 3)
    operations = {d["path"]: d for d in work["datasets"]}
    assert {path: (d["operation_type"], d["operation_status"]) for path, d in operations.items()} == {
        "s3://bucket/in.csv": ("read", "OK"),
        "s3://bucket/out.csv": ("write", "NOK"),
        "s3://bucket/old.csv": ("delete", "OK"),
    }
    read = operations["s3://bucket/in.csv"]
    assert read["data_dimensions"] == [3, 2]
    assert read["data_schema"]["columns"] == ["a", "b"]
    assert {column["column_name"]: column["records_count"] for column in read["columns_stats"]} == {"a": 3, "b": 3}
    assert read["columns_stats"][0]["mean_value"] == 2.0
    assert operations["s3://bucket/out.csv"]["error"] == "disk full"
    assert {t["path"] for t in work["targets"]} >= {"s3://bucket/frame.csv"}
    assert unknown_keys(client.url) == []


def test_dbnd_run_with_heartbeats(client: Any, tracked: Any) -> None:
    options = ["--set", "seconds=8", "--set-config", "run.heartbeat_interval_s=1"]
    done = client.run("dbnd", "run", "flows.flow", *options, DBND__LOG__PREVIEW_HEAD_BYTES="100000")
    assert done.returncode == 0, done.stdout + done.stderr

    (found,) = tracked.runs(state="success")
    run = tracked.get(f"/api/v1/runs/{found['run_uid']}")
    assert run["last_heartbeat"] > run["start_time"]
    tasks = {task["name"]: task for task in run["task_runs"]}
    assert {task["state"] for task in run["task_runs"]} == {"success"}
    assert {"prepare", "slow", "dbnd_driver"} <= {task["task_af_id"].partition("[")[0] for task in run["task_runs"]}
    assert metrics_of(tasks["prepare"])["n"] == 3
    assert "hello from slow" in tracked.log(tasks["slow"])
    assert tasks["prepare"]["task_run_uid"] in tasks["slow"]["upstreams"]
    assert unknown_keys(client.url) == []


def test_dbnd_run_that_fails(client: Any, tracked: Any) -> None:
    done = client.run("dbnd", "run", "flows.bad")
    assert done.returncode == 10, done.stdout + done.stderr

    (found,) = tracked.runs(state="failed")
    tasks = {task["name"]: task for task in tracked.get(f"/api/v1/runs/{found['run_uid']}")["task_runs"]}
    states = {name: tasks[name]["state"] for name in ("prepare", "boom", "after")}
    assert states == {"prepare": "success", "boom": "failed", "after": "upstream_failed"}
    assert "no good 3" in tasks["boom"]["error"]["msg"]


def test_a_run_that_is_asked_to_stop_stops(client: Any, tracked: Any) -> None:
    command = ["run", "flows.flow", "--set", "seconds=600", "--set-config", "run.heartbeat_interval_s=1"]
    process = subprocess.Popen(
        [str(client.python.parent / "dbnd"), *command],
        env=client.environment(),
        cwd=client.home,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait(lambda: any(_heartbeat(tracked, run) for run in tracked.runs()))
        (run,) = tracked.runs()
        answer = requests.post(f"{client.url}/api/v1/runs/stop", json=[run["run_uid"]], timeout=60)
        assert answer.json() == {run["run_uid"]: "shutdown"}
        assert process.wait(DEADLINE) == 10
    finally:
        process.kill()
        process.wait()

    ended = tracked.get(f"/api/v1/runs/{run['run_uid']}")
    assert ended["state"] == "cancelled"
    assert {task["name"]: task["state"] for task in ended["task_runs"]}["slow"] == "cancelled"


def _heartbeat(tracked: Any, run: dict[str, Any]) -> bool:
    detail = tracked.get(f"/api/v1/runs/{run['run_uid']}")
    is_slow = any(task["name"] == "slow" and task["state"] == "running" for task in detail["task_runs"])
    return is_slow and detail["last_heartbeat"] is not None


def _wait(condition: Any) -> None:
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_dbnd_mlflow(client: Any, tracked: Any) -> None:
    own = client.home / "own.db"
    done = client.program(
        "mlflow_run",
        MLFLOW_TRACKING_URI=f"sqlite:///{own}",
        DBND__MLFLOW_TRACKING__DATABAND_TRACKING="true",
    )
    assert done.returncode == 0, done.stderr

    train = tasks_of(tracked.run(job="mlflow", state="success"))["train"]
    assert tracked.points(train, "loss") == [1.0, 0.5, 1 / 3]
    values = metrics_of(train)
    assert (values["lr"], values["kind"]) == (0.5, "two")
    assert own.exists()


@pytest.mark.parametrize("how", ["token", "login"])
def test_a_guarded_tracker(how: str, interpreter: Path, server: Any, client_of: Any, dbnd: Any) -> None:
    made = json.loads(dbnd("tracker", "token", "create", "jobs", "--json").stdout)
    secret = made["token"]
    admin = dbnd("tracker", "token", "create", "admin", "--role", "admin").stdout.strip()
    client, tracked = client_of(server(), admin)
    given = "DBND__CORE__DATABAND_ACCESS_TOKEN" if how == "token" else "DBND__CORE__DBND_PASSWORD"

    assert client.program("plain").returncode == 0  # without a token: it runs, and says nothing of it
    assert tracked.runs() == []
    done = client.program("plain", **{given: secret})
    assert done.returncode == 0, done.stderr

    run = tracked.run(job="plain job/1")
    assert (run["state"], len(run["task_runs"])) == ("success", 6)
    assert dbnd("tracker", "token", "revoke", made["uid"]).returncode == 0
    assert client.program("plain", **{given: secret}).returncode == 0
    assert len(tracked.runs()) == 1


def test_a_client_waits_for_the_tracker(client: Any) -> None:
    assert client.run("dbnd", "tracker", "wait", "--timeout", "60").returncode == 0


OURS = """
import pandas as pd
from dbnd import dbnd_tracking, log_artifact, log_metric, log_metrics, task

@task
def train(data, lr):
    log_metrics({"loss": 0.5, "nan": float("nan"), "text": "x", "json": {"a": [1]}, "none": None, "big": 10**20})
    log_metric("step", 1.5, step=7)
    log_artifact("model", __file__)
    return pd.DataFrame({"a": [1, 2]})

@task
def fails():
    raise ValueError("no good")

with dbnd_tracking("ours", conf={"run_info.name": "ours"}):
    train([1, 2], lr=0.1)
    try:
        fails()
    except ValueError:
        pass
"""


def test_what_our_own_client_sends_is_right_for_the_released_schemas(
    interpreter: Path, client: Any, python: Any, dbnd: Any, journalled: Any, tmp_path: Path
) -> None:
    # Nothing listens on this port, so that everything stays in the journals.
    down = {"DBND__CORE__DATABAND_URL": "http://127.0.0.1:9", "DBND__CORE__FLUSH_TIMEOUT": "0"}
    script = tmp_path / "ours.py"
    script.write_text(OURS)
    assert python(f"import runpy; runpy.run_path({str(script)!r})", **down).returncode == 0
    task = tmp_path / "ours_task.py"
    task.write_text("from dbnd import log_metric, task\n\n\n@task\ndef main(n: int = 1):\n    log_metric('n', n)\n")
    dbnd("run", f"{task}::main", "--n", "3", **down)
    if importlib.util.find_spec("mlflow"):
        code = (
            "import mlflow\nwith mlflow.start_run():\n    mlflow.log_param('p', 1)\n    mlflow.log_metric('m', 1, 2)\n"
            "    mlflow.set_tag('t', 'x')\n"
        )
        store = quote(quote(f"sqlite:///{tmp_path}/own.db", safe=""), safe="")
        composite = f"dbnd://127.0.0.1:9?duplicate_tracking_to={store}"
        done = python(code, MLFLOW_TRACKING_URI=composite, **down)
        assert done.returncode == 0, done.stderr
    bodies = journalled()
    recorded = tmp_path / "bodies.json"
    recorded.write_text(json.dumps(bodies))

    program = Path(__file__).parent / "programs/load_bodies.py"
    done = client.run("python", str(program), str(recorded))

    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    assert report["findings"] == []
    assert report["loaded"] == len(bodies) > 15
    assert set(report["calls"]) >= {
        "init_run",
        "add_task_runs",
        "update_task_run_attempts",
        "set_run_state",
        "log_metrics",
    }
