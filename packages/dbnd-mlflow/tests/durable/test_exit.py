"""A process ends in time, whatever waits: what is left is for the next one."""

from __future__ import annotations

import time

import pytest
from kit.faults import passing
from kit.scale import leading

LEFT_OPEN = """
import mlflow, time
run = mlflow.start_run()
mlflow.log_metric("m", 1)
print(run.info.run_id, flush=True)
"""

JUMPING = """
import mlflow, time
from kit.faults import shift_clock
with mlflow.start_run() as run:
    for n, seconds in enumerate((0, -100_000, 200_000, -50_000)):
        shift_clock(seconds)
        mlflow.log_metric("m", n, step=n)
        mlflow.set_tag("t", n)
print(run.info.run_id)
"""


@pytest.fixture
def python(warm):
    """Run a Python script in a process that ends as any other."""
    return lambda code, **env: warm.run({"code": code, "finalize": True}, 100, **env)


@pytest.fixture
def uri(track, proxy, writes, tmp_path, monkeypatch):
    """The composite URI, for other processes."""
    monkeypatch.setenv("DBND__MLFLOW_TRACKING__DUPLICATE_TRACKING_TO", proxy.url)
    monkeypatch.setenv("DBND__CORE__DATABAND_URL", f"sqlite:///{tmp_path / 'tracker.db'}")
    made = track(proxy.url, writes)
    monkeypatch.setenv("DBND__CORE__FLUSH_TIMEOUT", "2")
    monkeypatch.setenv("DBND__MLFLOW_TRACKING__STORE_TIMEOUT", "1")
    return made


@pytest.mark.parametrize(
    ("how", "writes"),
    leading([("hangs", "keep"), ("refuses", "deferred"), ("hangs", "deferred"), ("refuses", "keep")], 2),
)
def test_a_script_ends_in_time_and_its_run_is_ended_later(proxy, server, uri, python, dbnd, how):
    def hanging(exchange):
        exchange.read()
        exchange.wait()

    if how == "refuses":
        proxy.refuse()
    proxy.otherwise = hanging
    started = time.monotonic()
    done = python(LEFT_OPEN, MLFLOW_TRACKING_URI=uri)
    assert done.returncode == 0, done.stderr
    # Experiment and run, the end that MLflow itself logs, and the drain; and what a busy machine takes.
    assert time.monotonic() - started < 40
    assert "dbnd sync" in done.stderr
    proxy.otherwise = passing
    proxy.listen()
    synced = dbnd("sync")
    assert synced.returncode == 0, synced.stderr
    (found,) = server.search_runs(["0"])
    assert (found.info.status, found.data.metrics) == ("FINISHED", {"m": 1})
    assert "no difference" in dbnd("mlflow", "verify").stderr


@pytest.mark.parametrize(
    ("is_away", "writes"), leading([(False, "deferred"), (True, "keep"), (False, "keep"), (True, "deferred")], 2)
)
def test_a_clock_that_jumps_changes_no_order(proxy, server, uri, python, dbnd, is_away):
    if is_away:
        proxy.refuse()
    done = python(JUMPING, MLFLOW_TRACKING_URI=uri)
    assert done.returncode == 0, done.stderr
    proxy.listen()
    synced = dbnd("sync")
    assert synced.returncode == 0, synced.stderr
    (found,) = server.search_runs(["0"])
    assert (found.data.tags["t"], found.info.status) == ("3", "FINISHED")
    assert len(server.get_metric_history(found.info.run_id, "m")) == 4
    assert "no difference" in dbnd("mlflow", "verify").stderr
