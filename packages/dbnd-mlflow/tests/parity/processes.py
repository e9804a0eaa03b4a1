"""Scenarios in other processes: children, projects, MLflow's command line and its server."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time

import mlflow
import requests
from kit.servers import free_port
from mlflow import MlflowClient

from parity.scenario import installed, outcome, scenario, stored


@scenario()
def a_child_process_that_leaves_its_run_open(side):
    # Not asynchronous: on a busy machine MLflow's own queue loses what it has not begun when the process ends.
    code = (
        "import mlflow\n"
        "run = mlflow.start_run(run_name='child')\n"
        "for n in range(10): mlflow.log_metric('m', n, step=n)\n"
        "mlflow.log_param('p', '100%')\n"
        "mlflow.log_text('x', 'a.txt')\n"
        "print(run.info.run_id)\n"
    )
    code, printed = side.python("-c", code)
    run_id = printed.split()[0]
    history = sorted((m.step, m.value) for m in MlflowClient().get_metric_history(run_id, "m"))
    facts = stored(run_id)
    return code, history, facts["info"], facts["data"]["params"], facts["data"]["tags"]


@scenario()
def projects(side):
    project = side.folder / "project"
    project.mkdir()
    (project / "train.py").write_text("import mlflow, sys\nmlflow.log_metric('m', float(sys.argv[1]))\n")
    (project / "MLproject").write_text(
        "name: p\nentry_points:\n  main:\n    parameters:\n      x: {type: float, default: 1}\n"
        f"    command: '{sys.executable} train.py {{x}}'\n"
    )
    submitted = mlflow.projects.run(
        str(project), parameters={"x": 0.25}, env_manager="local", experiment_name=side.experiment, run_name="r"
    )
    facts = stored(submitted.run_id)
    return submitted.get_status(), facts["info"]["status"], facts["data"]


@scenario()
def the_command_line(side):
    from click.testing import CliRunner
    from mlflow.cli import cli

    def mlflow_command(*args):
        result = CliRunner().invoke(cli, args, env={"COLUMNS": "300"})
        return result.exit_code, result.output, repr(result.exception)

    client = MlflowClient()
    kept, deleted = (
        client.create_run(side.experiment_id, start_time=t, run_name="r").info.run_id for t in (1000, 2000)
    )
    return [
        side.python("-m", "mlflow", "experiments", "search", COLUMNS="300"),
        mlflow_command("experiments", "create", "--experiment-name", "the_command_line_2"),
        mlflow_command("runs", "list", "--experiment-id", side.experiment_id),
        mlflow_command("runs", "describe", "--run-id", kept)[0],
        mlflow_command("runs", "delete", "--run-id", deleted),
        side.python("-m", "mlflow", "gc", "--backend-store-uri", side.uri, "--run-ids", deleted),
        outcome(client.get_run, deleted),
        mlflow_command("runs", "describe", "--run-id", "0" * 32),
    ], stored(kept)


@contextlib.contextmanager
def _served(side):
    """The REST API of an ``mlflow server`` over the side's URI, as a function."""
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", side.uri, "--port", str(port)]
    command += ["--host", "127.0.0.1", "--workers", "1", "--artifacts-destination", str(side.folder / "served")]
    session = requests.Session()
    session.trust_env = False

    def call(path, body=None, *, method="POST"):
        arguments = {"params" if method == "GET" else "json": body}
        answer = session.request(method, f"http://127.0.0.1:{port}/{path}", timeout=100, **arguments)
        return answer.status_code, answer.json() if path != "health" else None

    with (side.folder / "server.log").open("wb") as log:
        server = subprocess.Popen(
            command,
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            env=side.environment(PYTHONHASHSEED="0", MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false"),
        )
    try:
        deadline = time.monotonic() + 100
        while True:
            try:
                call("health", method="GET")
                break
            except requests.ConnectionError:
                assert server.poll() is None, (side.folder / "server.log").read_text()
                assert time.monotonic() < deadline, (side.folder / "server.log").read_text()
                time.sleep(0.2)
        yield call
    finally:
        os.killpg(server.pid, signal.SIGINT)  # as Ctrl-C does
        try:
            server.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()


# MLflow itself serves no store that is a server.
@scenario(installed("flask"), kinds=("sqlite", "file"))
def a_server_over_the_uri(side):
    """Clients in other languages know nothing of the URI: they speak HTTP to a server that is started with it."""
    api = "api/2.0/mlflow"
    with _served(side) as call:
        created = call(f"{api}/runs/create", {"experiment_id": side.experiment_id, "run_name": "r", "start_time": 1000})
        run_id = created[1]["run"]["info"]["run_id"]
        batch = [{"key": "b", "value": n / 7, "timestamp": n, "step": n} for n in range(1000)]
        dataset = {"name": "d", "digest": "1", "source_type": "local", "source": json.dumps({"uri": "s3://b/a.csv"})}
        answers = [
            call(f"{api}/runs/log-metric", {"run_id": run_id, "key": "m", "value": 0.5, "timestamp": 5, "step": 1}),
            call(f"{api}/runs/log-parameter", {"run_id": run_id, "key": "p", "value": "größe"}),
            call(f"{api}/runs/set-tag", {"run_id": run_id, "key": "t", "value": "v"}),
            call(f"{api}/runs/log-batch", {"run_id": run_id, "metrics": batch}),
            call(f"{api}/runs/log-inputs", {"run_id": run_id, "datasets": [{"dataset": dataset, "tags": []}]}),
            call(f"{api}/runs/log-metric", {"run_id": "0" * 32, "key": "m", "value": 0.5, "timestamp": 5}),
            call(f"{api}/runs/log-metric", {"run_id": run_id, "key": "m", "value": "no number", "timestamp": 5}),
            call(f"{api}/runs/update", {"run_id": run_id, "status": "FAILED", "end_time": 2000}),
            call(f"{api}/runs/search", {"experiment_ids": [side.experiment_id], "filter": "metrics.m > 0"}),
            call(f"{api}/metrics/get-history", {"run_id": run_id, "metric_key": "b", "max_results": 3}, method="GET"),
            call(f"{api}/registered-models/create", {"name": "a_server_over_the_uri"}),
            call(f"{api}/artifacts/list", {"run_id": run_id}, method="GET"),
        ]
    history = MlflowClient().get_metric_history(run_id, "b")
    return created, answers, len(history), stored(run_id)
