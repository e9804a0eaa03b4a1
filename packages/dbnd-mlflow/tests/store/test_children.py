"""Child processes: those of multiprocessing, and those in which MLflow looks for requirements and loads plugins."""

from __future__ import annotations

import contextlib
import sqlite3

import mlflow
import pytest
from kit.reports import key_of, points
from kit.scale import leading

from dbnd_mlflow import build_composite_uri

pytestmark = [pytest.mark.process, pytest.mark.usefixtures("unflushed")]

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
        children = [context.Process(target=write, args=((run_id, number),)) for number in range(int(sys.argv[3]))]
        for child in children:
            child.start()
        for child in children:
            child.join()
            assert child.exitcode == 0
"""


@pytest.fixture
def run_workers(python, tmp_path):
    """Runs the script in a process of its own; children that it spawns read its file."""

    def run(method, kind, uri, processes=2):
        script = tmp_path / "script.py"
        script.write_text(WORKERS)
        code = (
            f"import runpy, sys\nsys.argv[1:] = {[method, kind, str(processes)]}\n"
            f"runpy.run_path({str(script)!r}, run_name='__main__')"
        )
        done = python(code, MLFLOW_TRACKING_URI=uri)
        assert done.returncode == 0, done.stderr
        return done.stderr

    return run


# Forked processes reach a tracker below; the other ways are as these two in one.
WAYS = [("fork", "pool"), ("spawn", "process"), ("fork", "process"), ("spawn", "pool")]


@pytest.mark.parametrize(("method", "kind"), leading(WAYS))
def test_children_of_multiprocessing_are_reported(method, kind, tracker_url, inner_uri, run_workers, journalled):
    run_workers(method, kind, build_composite_uri(tracker_url, inner_uri))
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


# One that is spawned imports everything anew, and leaves in the same way.
@pytest.mark.parametrize(("method", "processes"), leading([("fork", 2), ("spawn", 1)]))
def test_what_children_report_reaches_a_tracker(method, processes, home, inner_uri, run_workers, monkeypatch):
    """Children of multiprocessing leave without ``atexit``; what they have logged is delivered all the same."""
    pytest.importorskip("dbnd_tracker")
    monkeypatch.setenv("DBND__CORE__FLUSH_TIMEOUT", "20")
    tracker = home / "dbnd/tracker.db"
    printed = run_workers(method, "process", build_composite_uri(f"sqlite:///{tracker}", inner_uri), processes)
    assert list((home / "dbnd/journal").glob("*.journal")) == [], printed
    with contextlib.closing(sqlite3.connect(tracker)) as database:
        points = (
            "SELECT name, step FROM metrics "
            "JOIN metric_series ON metric_series.id = series_id JOIN metric_keys ON metric_keys.id = key_id"
        )
        found = sorted(database.execute(points))
    steps = range(processes)
    assert found == [("before", 0), *(("own", step) for step in steps), *(("shared", step) for step in steps)]


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


def test_a_process_that_looks_for_requirements_imports_two_small_modules_of_ours_and_gets_the_bare_store(
    cold_python, tracker_url, inner_uri, journalled, home
):
    """MLflow finds us in any process, and whatever stands in our configuration."""
    (home / "dbnd").mkdir()
    (home / "dbnd/databand.cfg").write_text("this is no configuration\n")
    code = (
        "import sys, atexit, importlib, typing, warnings, __future__\n"
        "warnings.filterwarnings('error', message='.*attempting to register.*')\n"
        "before = set(sys.modules)\n"
        "import dbnd_mlflow.tracking_store\n"
        "print(*sorted(set(sys.modules) - before))\n"
        "import mlflow\n"
        "print(*sorted(n for n in sys.modules if n.partition('.')[0] in {'dbnd', 'dbnd_mlflow', 'dbnd_tracker'}))\n"
        "from mlflow.tracking._tracking_service.utils import _get_store, _tracking_store_registry as registry\n"
        "assert {'dbnd', 'dbnd+s', 'databand', 'databand+s'} <= set(registry._registry), registry._registry\n"
        "client = mlflow.MlflowClient()\n"
        "client.create_run('0')\n"
        "print(type(_get_store()).__name__)\n"
        "client.search_registered_models()\n"
        "print([name for name in sys.modules if name.partition('.')[0] == 'dbnd'])\n"
    )
    uri = build_composite_uri(tracker_url, inner_uri)
    done = cold_python(code, MLFLOW_TRACKING_URI=uri, MLFLOW_IN_CAPTURE_MODULE_PROCESS="true")
    assert done.returncode == 0, done.stderr
    *imported, store, later = done.stdout.splitlines()
    assert imported == ["dbnd_mlflow dbnd_mlflow.tracking_store"] * 2
    assert (store, later) == ("SqlAlchemyStore", "[]")
    assert journalled() == []
