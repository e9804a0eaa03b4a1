"""Traps of a composite tracking URI, each with real parts: servers, processes, files."""

from __future__ import annotations

import contextlib
import inspect
import io
import os
import re
import socket
import sqlite3
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import mlflow
import numpy as np
import pytest
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, Metric, Param, RunTag
from mlflow.tracking._model_registry.utils import _get_store_registry
from mlflow.tracking._tracking_service.utils import _get_store

from dbnd_mlflow import build_composite_uri

pytestmark = pytest.mark.parity


@pytest.fixture(autouse=True)
def _environment(monkeypatch):
    # A process has one client for each URL. Another test's dead tracker may have had the same port: it would still be
    # waiting for its next attempt, and its journal stands elsewhere.
    monkeypatch.setattr("dbnd._tracking.client._by_url", {})
    monkeypatch.setenv("DBND__CORE__FLUSH_TIMEOUT", "0")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("GIT_PYTHON_REFRESH", "quiet")
    monkeypatch.setenv("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")  # a dozen processes that nobody needs


@pytest.fixture(params=["sqlite", "file", "http"])
def any_inner(request, tmp_path):
    """The URI of an empty store of each kind."""
    if request.param == "http":
        return request.getfixturevalue("mlflow_server")
    if request.param == "file":
        (tmp_path / "runs").mkdir()
        return (tmp_path / "runs").as_uri()
    return f"sqlite:///{tmp_path / 'inner.db'}"


def points(events):
    """How often each point was reported."""
    elements = [e for call, body in events if call == "log_metrics" for e in body["metrics_info"]]
    return Counter((e["source"], e["metric"]["key"], e["metric"].get("step")) for e in elements)


def calls(events):
    return Counter(call for call, _ in events)


def outcome(call, *args, **kwargs):
    try:
        return call(*args, **kwargs)
    except Exception as error:  # noqa: BLE001  the very exception is what is compared
        return type(error), re.sub(r"0x[0-9a-f]+", "0x", str(error))


def key_of(function):
    """The name of the argument that names a model: it has changed."""
    return "name" if "name" in inspect.signature(function).parameters else "artifact_path"


# ------------------------------------------------------------------------------------------------ exactly once


def dataset_input(name="d", digest="1"):
    dataset = Dataset(name, digest, "code", '{"uri": "s3://b/x"}')
    return DatasetInput(dataset, [])


def test_each_write_is_reported_exactly_once(any_inner, tracker_url, journalled):
    mlflow.set_tracking_uri(build_composite_uri(tracker_url, any_inner))
    mlflow.set_experiment("once")
    client = MlflowClient()
    with mlflow.start_run(run_name="r", tags={"at_start": "1"}) as run:
        run_id = run.info.run_id
        mlflow.log_metric("fluent", 1, step=1)
        mlflow.log_metrics({"fluent_a": 1, "fluent_b": 2}, step=2)
        mlflow.log_param("fluent_p", 1)
        mlflow.log_params({"fluent_q": 1, "fluent_r": 2})
        mlflow.set_tag("fluent_t", 1)
        mlflow.set_tags({"fluent_u": 1, "fluent_v": 2})
        mlflow.log_input(mlflow.data.from_numpy(np.ones(3), name="numbers"))
        client.log_metric(run_id, "client", 1, step=3)
        client.log_param(run_id, "client_p", 1)
        client.set_tag(run_id, "client_t", 1)
        client.log_batch(run_id, [Metric("batch", 1, 5, 4)], [Param("batch_p", "1")], [RunTag("batch_t", "1")])
        client.log_inputs(run_id, [dataset_input()])
        client.update_run(run_id, status="RUNNING")
    events = journalled()
    expected = {
        **{("mlflow", key, step): 1 for key, step in [("fluent", 1), ("fluent_a", 2), ("fluent_b", 2)]},
        **{("mlflow", key, step): 1 for key, step in [("client", 3), ("batch", 4)]},
        **{("mlflow.param", f"fluent_{key}", None): 1 for key in "pqr"},
        **{("mlflow.param", key, None): 1 for key in ("client_p", "batch_p")},
        **{("mlflow.tag", f"fluent_{key}", None): 1 for key in "tuv"},
        **{("mlflow.tag", key, None): 1 for key in ("client_t", "batch_t", "at_start")},
    }
    found = {key: count for key, count in points(events).items() if not key[1].startswith("mlflow.")}
    assert found == expected
    assert {count for key, count in points(events).items() if key[1].startswith("mlflow.")} == {1}
    counted = calls(events)
    assert counted["init_run"] == 1
    assert counted["save_external_links"] == 1
    assert counted["log_datasets"] == 2
    assert counted["set_run_state"] == 1
    updates = [u for c, b in events if c == "update_task_run_attempts" for u in b["task_run_attempt_updates"]]
    assert [u["state"] for u in updates] == ["RUNNING", "RUNNING", "SUCCESS"]


def test_a_client_run_is_announced_and_ended_once(any_inner, tracker_url, journalled):
    client = MlflowClient(tracking_uri=build_composite_uri(tracker_url, any_inner))
    experiment_id = client.create_experiment("once")
    run = client.create_run(experiment_id, run_name="r")
    client.set_terminated(run.info.run_id, "KILLED")
    counted = calls(journalled())
    assert (counted["init_run"], counted["set_run_state"]) == (1, 1)
    assert [b["state"] for c, b in journalled() if c == "set_run_state"] == ["CANCELLED"]


def test_asynchronous_points_are_reported_exactly_once(any_inner, tracker_url, journalled):
    uri = build_composite_uri(tracker_url, any_inner)
    client = MlflowClient(tracking_uri=uri)
    run_id = client.create_run(client.create_experiment("asynchronous")).info.run_id
    operations = [client.log_metric(run_id, "m", n, step=n, synchronous=False) for n in range(50)]
    operations.append(client.log_param(run_id, "p", 1, synchronous=False))
    for operation in operations:
        operation.wait()
    found = points(journalled())
    assert {key: count for key, count in found.items() if key[0] == "mlflow"} == {
        ("mlflow", "m", n): 1 for n in range(50)
    }
    assert found["mlflow.param", "p", None] == 1


def test_asynchronous_points_are_reported_at_exit(python, tracker_url, inner_uri, journalled):
    code = (
        "import mlflow\n"
        "mlflow.start_run(run_name='open')\n"
        "for n in range(30): mlflow.log_metric('m', n, step=n, synchronous=False)\n"
    )
    done = python(code, MLFLOW_TRACKING_URI=build_composite_uri(tracker_url, inner_uri))
    assert done.returncode == 0, done.stderr
    reported = sorted(step for (source, _, step), _ in points(journalled()).items() if source == "mlflow")
    (run,) = MlflowClient(tracking_uri=inner_uri).search_runs(["0"])
    stored = [m.step for m in MlflowClient(tracking_uri=inner_uri).get_metric_history(run.info.run_id, "m")]
    assert reported == sorted(stored)
    assert [b["state"] for c, b in journalled() if c == "set_run_state"] == ["SUCCESS"]


def test_threads_that_write_into_several_runs_keep_them_apart(tracker_url, inner_uri, journalled):
    client = MlflowClient(tracking_uri=build_composite_uri(tracker_url, inner_uri))
    runs = [client.create_run("0", run_name=f"r{n}").info.run_id for n in range(4)]

    def write(number):
        for step in range(25):
            client.log_metric(runs[(number + step) % 4], f"t{number}", (number + step) % 4, step=step)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    events = journalled()
    attempts = {
        t["task_run_attempt_uid"]: t["name"]
        for c, b in events
        if c == "init_run"
        for t in b["init_args"]["task_runs_info"]["task_runs"]
    }
    elements = [e for c, b in events if c == "log_metrics" for e in b["metrics_info"] if e["source"] == "mlflow"]
    assert len(elements) == 100
    assert all(attempts[e["task_run_attempt_uid"]] == f"r{e['metric']['value']:.0f}" for e in elements)
    assert {count for key, count in points(events).items() if key[0] == "mlflow"} == {1}


def test_many_inputs_are_one_reading_each(tracker_url, inner_uri, journalled):
    """MLflow 3.1 logs the inputs again with every metric when a model is active."""
    store = _get_store(build_composite_uri(tracker_url, inner_uri))
    run_id = store.create_run("0", "u", 0, [], "r").info.run_id
    for number in range(300):
        store.log_inputs(run_id, [dataset_input(digest=str(number % 2))])
    assert calls(journalled())["log_datasets"] == 2


def test_points_of_a_model_are_reported_once(tracker_url, inner_uri, journalled):
    if not hasattr(mlflow, "initialize_logged_model"):
        pytest.skip("this MLflow has no LoggedModels")
    mlflow.set_tracking_uri(build_composite_uri(tracker_url, inner_uri))
    model = mlflow.initialize_logged_model(name="external")
    dataset = mlflow.data.from_numpy(np.ones(3), name="numbers")
    with mlflow.start_run(run_name="r"):
        for step in range(20):
            mlflow.log_metric("m", 1, step=step, model_id=model.model_id, dataset=dataset)
    events = journalled()
    assert {count for key, count in points(events).items() if key[0] == "mlflow"} == {1}
    assert sum(key[0] == "mlflow" for key in points(events)) == 20


def test_a_logged_model_is_reported_where_it_stands(tracker_url, inner_uri, journalled):
    mlflow.set_tracking_uri(build_composite_uri(tracker_url, inner_uri))
    with mlflow.start_run(run_name="r"):
        log_small_model("m")
    places = {body["name"]: body["path"] for call, body in journalled() if call == "log_artifact"}
    folder = Path(places["model:m"].removeprefix("file://"))
    assert (folder / "MLmodel").is_file()


# ------------------------------------------------------------------------------------------------ servers


class Doubler(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        return [2 * value for value in model_input]


def log_small_model(name, **more):
    """Requirements are given: to infer them, MLflow would load the model in a process of its own."""
    function = mlflow.pyfunc.log_model
    return function(**{key_of(function): name}, python_model=Doubler(), pip_requirements=["mlflow-skinny"], **more)


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


@pytest.fixture
def server_over(start_server, tmp_path, home, monkeypatch):
    """A ``mlflow server`` with a backend store, whose journal stands in this test's home."""
    monkeypatch.setenv("DBND__CORE__FLUSH_TIMEOUT", "1")

    @contextlib.contextmanager
    def start(uri, *options):
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            port = sock.getsockname()[1]
        command = [
            *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)),
            *("--workers", "1", "--backend-store-uri", uri, *options),
        ]
        with start_server(command, f"http://127.0.0.1:{port}", "/health") as url:
            yield url

    return start


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
        shown = _poll(lambda: dbnd("runs", "show", run.info.run_id), lambda done: "SUCCESS" in done.stdout.upper())
    assert shown.returncode == 0, shown.stderr
    assert "remote" in shown.stdout


def _poll(call, ready):
    for _ in range(15):
        done = call()
        if ready(done):
            return done
    pytest.fail(f"not reached: {done}")


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


# ------------------------------------------------------------------------------------------------ registries


class Registry:
    def __init__(self, **given):
        self.given = given


def test_builders_of_registries_get_the_arguments_that_they_name(tracker_url):
    def both(store_uri, tracking_uri):
        return Registry(store_uri=store_uri, tracking_uri=tracking_uri)

    def one(store_uri):
        return Registry(store_uri=store_uri)

    from dbnd_mlflow.tracking_store import get_model_registry_store

    registry = _get_store_registry()
    for builder, expected in (
        (both, {"store_uri": "probe-both://x", "tracking_uri": "probe-both://x"}),
        (one, {"store_uri": "probe-one://x"}),
    ):
        scheme = f"probe-{builder.__name__}"
        registry.register(scheme, builder)
        try:
            uri = build_composite_uri(tracker_url, f"{scheme}://x")
            assert get_model_registry_store(store_uri=uri, tracking_uri=uri).given == expected
        finally:
            registry._registry.pop(scheme)


def test_the_registry_of_databricks_is_the_native_one(tracker_url, monkeypatch):
    for name in ("DATABRICKS_HOST", "DATABRICKS_TOKEN"):
        monkeypatch.setenv(name, "https://databricks.invalid")
    found = []
    for uri in ("databricks", build_composite_uri(tracker_url, "databricks")):
        mlflow.set_tracking_uri(uri)
        store = outcome(lambda: MlflowClient()._get_registry_client().store)
        found.append(store if isinstance(store, tuple) else store.__class__)
    assert found[1] == found[0]
    mlflow.set_tracking_uri(None)


# ------------------------------------------------------------------------------------------------ processes

WORKERS = """
import multiprocessing, sys
from concurrent.futures import ProcessPoolExecutor
import mlflow

def write(arguments):
    run_id, number = arguments
    with mlflow.start_run(run_name=f"child{number}"):
        mlflow.log_metric("own", number, step=number)
    mlflow.MlflowClient().log_metric(run_id, "shared", number, step=number)

if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[1])
    with mlflow.start_run(run_name="parent") as run:
        mlflow.log_metric("before", 1)
        run_id = run.info.run_id
    if sys.argv[2] == "pool":
        with ProcessPoolExecutor(2, mp_context=context) as pool:
            list(pool.map(write, [(run_id, number) for number in range(4)]))
    else:
        children = [context.Process(target=write, args=((run_id, number),)) for number in range(2)]
        for child in children:
            child.start()
        for child in children:
            child.join()
            assert child.exitcode == 0
"""


@pytest.mark.parametrize("kind", ["pool", "process"])
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_children_of_multiprocessing_are_reported(method, kind, tracker_url, inner_uri, tmp_path, journalled):
    script = tmp_path / "script.py"
    script.write_text(WORKERS)
    MlflowClient(tracking_uri=inner_uri).search_experiments()  # the children need not race for the migrations
    environment = {**os.environ, "MLFLOW_TRACKING_URI": build_composite_uri(tracker_url, inner_uri)}
    command = [sys.executable, str(script), method, kind]
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    count = 4 if kind == "pool" else 2
    found = {key: n for key, n in points(journalled()).items() if key[0] == "mlflow"}
    assert found == {
        ("mlflow", "before", 0): 1,
        **{("mlflow", "own", n): 1 for n in range(count)},
        **{("mlflow", "shared", n): 1 for n in range(count)},
    }
    shared = {
        e["task_run_attempt_uid"]
        for c, b in journalled()
        if c == "log_metrics"
        for e in b["metrics_info"]
        if e["metric"]["key"] in {"before", "shared"}
    }
    assert len(shared) == 1


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_what_children_report_reaches_a_tracker(method, home, inner_uri, tmp_path, monkeypatch):
    """Children of multiprocessing leave without ``atexit``; what they have logged is delivered all the same."""
    pytest.importorskip("dbnd_tracker")
    monkeypatch.setenv("DBND__CORE__FLUSH_TIMEOUT", "20")
    script = tmp_path / "script.py"
    script.write_text(WORKERS)
    MlflowClient(tracking_uri=inner_uri).search_experiments()
    tracker = home / "dbnd/tracker.db"
    environment = {**os.environ, "MLFLOW_TRACKING_URI": build_composite_uri(f"sqlite:///{tracker}", inner_uri)}
    command = [sys.executable, str(script), method, "process"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert list((home / "dbnd/journal").glob("*.journal")) == [], done.stderr
    with contextlib.closing(sqlite3.connect(tracker)) as database:
        assert database.execute("SELECT count(*) FROM metrics").fetchone() == (5,)


def test_the_requirements_of_a_model_name_nothing_of_ours(python, tracker_url, inner_uri):
    code = (
        "import mlflow, numpy as np\n"
        "from pathlib import Path\n"
        "class M(mlflow.pyfunc.PythonModel):\n"
        "    def predict(self, context, model_input, params=None):\n"
        "        import mlflow\n"
        "        mlflow.MlflowClient().search_experiments()\n"
        "        return model_input\n"
        "with mlflow.start_run():\n"
        f"    info = mlflow.pyfunc.log_model(**{{{key_of(mlflow.pyfunc.log_model)!r}: 'm'}}, python_model=M(),\n"
        "        input_example=np.ones((1, 1)))\n"
        "print(Path(mlflow.artifacts.download_artifacts(info.model_uri), 'requirements.txt').read_text())\n"
    )
    done = python(code, MLFLOW_TRACKING_URI=build_composite_uri(tracker_url, inner_uri))
    assert done.returncode == 0, done.stderr
    assert "mlflow==" in done.stdout, done.stdout + done.stderr
    assert "dbnd" not in done.stdout
    assert "databand" not in done.stdout


def test_our_share_of_import_mlflow(python):
    """Measured in one process: ``-X importtime`` does not list what entry points import."""
    code = (
        "import sys, time\n"
        "start = time.perf_counter()\n"
        "import dbnd_mlflow.tracking_store\n"
        "ours = time.perf_counter() - start\n"
        "import mlflow\n"
        "print(ours / (time.perf_counter() - start))\n"
        "print(*sorted(n for n in sys.modules if n.partition('.')[0] in {'dbnd', 'dbnd_mlflow', 'dbnd_tracker'}))\n"
    )
    done = python(code)
    assert done.returncode == 0, done.stderr
    share, modules = done.stdout.splitlines()
    assert float(share) < 0.05
    assert modules == "dbnd_mlflow dbnd_mlflow.tracking_store"


# ------------------------------------------------------------------------------------------------ credentials, errors

_SECRETS = ("hunter2", "hunter3", "hunter%40", "hunter@")


@pytest.mark.parametrize("embedded", [False, True])
def test_passwords_of_both_halves_appear_nowhere(mlflow_server, tracker_url, home, python, embedded):
    """MLflow itself names its server, in the link to a run, and a dataset's source, in a warning; all else is ours."""
    if embedded:
        pytest.importorskip("dbnd_tracker")
    inner = mlflow_server.replace("http://", "http://user:hunter2%40x@")
    tracker = f"sqlite:///{home / 'dbnd/tracker.db'}" if embedded else tracker_url.replace("//", "//u:hunter3@")
    code = (
        "import mlflow, numpy as np, warnings\n"
        "warnings.simplefilter('ignore')\n"
        "mlflow.set_experiment('secret')\n"
        "with mlflow.start_run(run_name='r') as run:\n"
        "    mlflow.log_metric('m', 1)\n"
        "    mlflow.log_param('p', mlflow.get_tracking_uri())\n"
        "    mlflow.log_text('x', 'a.txt')\n"
        "    mlflow.log_input(mlflow.data.from_numpy(np.ones(2), source='https://u:hunter2@h/x.npy'))\n"
        "print(sorted(mlflow.MlflowClient().get_run(run.info.run_id).data.tags.items()))\n"
        "raise ValueError('at the end')\n"
    )
    uri = build_composite_uri(tracker, inner)
    done = python(code, MLFLOW_TRACKING_URI=uri, DBND__CORE__FLUSH_TIMEOUT="10")
    assert "ValueError: at the end" in done.stderr
    said = [
        line for line in (done.stdout + done.stderr).splitlines() if "View run" not in line and "View exp" not in line
    ]
    assert not [line for line in said if any(secret in line for secret in _SECRETS)]
    kept = [path for path in (home / "dbnd").rglob("*") if path.is_file()]
    assert kept
    assert not [path for path in kept if any(secret.encode() in path.read_bytes() for secret in _SECRETS)]
    kinds = {path.suffix for path in kept}
    assert (".db" if embedded else ".journal") in kinds


@pytest.mark.parametrize("inner", ["nonsense://user:hunter2@h", "http://user:hunter2@127.0.0.1:9"])
def test_errors_about_uris_show_no_more_than_natively(inner, tracker_url, python):
    """MLflow names the user's own URI in its errors; the tracker's password and the composite URI are in none."""
    uri = build_composite_uri(tracker_url.replace("//", "//u:hunter3@"), inner)
    native, ours = (python("import mlflow; mlflow.start_run()", MLFLOW_TRACKING_URI=each) for each in (inner, uri))
    assert (native.returncode, ours.returncode) == (1, 1)
    assert ours.stderr.splitlines()[-1] == native.stderr.splitlines()[-1]
    assert "hunter3" not in ours.stderr
    assert "duplicate_tracking_to" not in ours.stderr.splitlines()[-1]


def test_an_error_of_ours_about_a_uri_shows_no_password(python):
    uri = "dbnd://u:hunter3@h?duplicate_tracking_to=dbnd%253A%252F%252Fu%253Ahunter2%2540h"
    done = python("import mlflow; mlflow.start_run()", MLFLOW_TRACKING_URI=uri)
    assert done.returncode == 1
    assert "is a databand URI itself" in done.stderr
    assert "hunter" not in done.stderr


def test_a_server_that_is_down_fails_as_natively(tracker_url, free_port, journalled):
    inner = f"http://127.0.0.1:{free_port + 1}"
    found = []
    for uri in (inner, build_composite_uri(tracker_url, inner)):
        mlflow.set_tracking_uri(uri)
        client = MlflowClient()
        found.append(
            [
                outcome(client.create_run, "0"),
                outcome(client.get_run, "0" * 32),
                outcome(client.log_metric, "0" * 32, "m", 1, timestamp=5, step=1),
                outcome(client.log_batch, "0" * 32, [Metric("m", 1, 5, 1)]),
                outcome(client.search_experiments),
                outcome(client.create_registered_model, "m"),
                outcome(mlflow.set_experiment, "e"),
                outcome(mlflow.start_run, run_name="r", experiment_id="0"),
            ]
        )
    assert found[1] == found[0]
    assert all(isinstance(each, tuple) for each in found[1])
    assert journalled() == []


@pytest.mark.parametrize("kind", ["no database", "newer schema"])
def test_a_broken_database_fails_as_natively(tracker_url, tmp_path, kind):
    path = tmp_path / "broken.db"
    if kind == "no database":
        path.write_bytes(b"this is no database" * 100)
    else:
        MlflowClient(tracking_uri=f"sqlite:///{path}").search_experiments()
        with contextlib.closing(sqlite3.connect(path)) as database:
            database.execute("UPDATE alembic_version SET version_num = 'from the future'")
            database.commit()
        path = path.rename(tmp_path / "other.db")  # MLflow knows the first one's store by its URI
    inner = f"sqlite:///{path}"
    found = [
        outcome(lambda uri=uri: MlflowClient(tracking_uri=uri).search_experiments())
        for uri in (inner, build_composite_uri(tracker_url, inner))
    ]
    assert isinstance(found[0], tuple)
    assert found[1] == found[0]


def test_a_database_that_breaks_later_fails_as_natively(tracker_url, tmp_path, journalled):
    found = []
    for side in ("a", "b"):
        path = tmp_path / f"{side}.db"
        inner = f"sqlite:///{path}"
        client = MlflowClient(tracking_uri=inner if side == "a" else build_composite_uri(tracker_url, inner))
        run_id = client.create_run("0", run_name="r").info.run_id
        before = len(journalled())
        with contextlib.closing(sqlite3.connect(path)) as database:
            database.execute("DROP TABLE latest_metrics")
            database.commit()
        kind, message = outcome(client.log_metric, run_id, "m", 1, timestamp=5, step=1)
        found.append((kind, message.replace(run_id, "<run>")))
        assert len(journalled()) == before
    assert found[1] == found[0]
