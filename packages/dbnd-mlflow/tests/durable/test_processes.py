"""Several processes, threads and forks log to one run of MLflow while its server is away."""

from __future__ import annotations

import gc
import json
import math
import re
import signal
import sys
import threading
import time

import mlflow
import pytest
from kit.letters import letters
from kit.progress import wait_until
from kit.scale import leading
from mlflow import MlflowClient
from mlflow.entities import Metric, RunTag

from dbnd import load_config
from dbnd.tracking import Batch, create_transport, get_client
from dbnd_mlflow._durable import runs
from dbnd_mlflow._durable.ids import is_own, new_id
from dbnd_mlflow._durable.runs import RunView
from dbnd_mlflow._durable.store import outboxes
from dbnd_mlflow._uri import build_journal_url

# While the server is away, `keep` goes the way of `deferred` from its first write on.
in_an_outage = pytest.mark.parametrize("writes", leading(["keep", "deferred"]))

LOGGING = """
import os, sys, mlflow
client = mlflow.MlflowClient()
run_id = os.environ["RUN"]
run = client.get_run(run_id)
assert (run.info.run_id, run.info.run_name) == (run_id, "begun elsewhere"), run.info
client.log_metric(run_id, "theirs", 1)
with mlflow.start_run(run_id=run_id):
    mlflow.log_param("p", "theirs")
    mlflow.log_dict({"a": 1}, "theirs.json")
    with mlflow.start_run(nested=True, run_name="child"):
        mlflow.log_metric("m", 1)
print("done", flush=True)
"""


@pytest.fixture
def env(track, proxy, writes, tmp_path, monkeypatch):
    """What other processes need to log to the same stores."""
    uri = track(proxy.url, writes)
    monkeypatch.setenv("DBND__CORE__DATABAND_URL", f"sqlite:///{tmp_path / 'tracker.db'}")
    monkeypatch.setenv("DBND__MLFLOW_TRACKING__DUPLICATE_TRACKING_TO", proxy.url)
    monkeypatch.setenv("DBND__CORE__FLUSH_TIMEOUT", "0")
    return {"MLFLOW_TRACKING_URI": uri}


def first_run(proxy) -> str:
    """Begin a run while the server is away, and leave what waits to the journal."""
    proxy.refuse()
    with mlflow.start_run(run_name="begun elsewhere") as run:
        mlflow.log_metric("ours", 1)
    assert is_own(run.info.run_id)
    return str(run.info.run_id)


def check(server, dbnd, home) -> None:
    """Each run is there once, with what both processes have logged."""
    runs = {run.info.run_name: run for run in server.search_runs(["0"])}
    assert len(server.search_runs(["0"])) == 2
    outer, child = runs["begun elsewhere"], runs["child"]
    assert outer.data.metrics == {"ours": 1, "theirs": 1}
    assert (outer.data.params, outer.info.status) == ({"p": "theirs"}, "FINISHED")
    assert child.data.tags["mlflow.parentRunId"] == outer.info.run_id
    assert [file.path for file in server.list_artifacts(outer.info.run_id)] == ["theirs.json"]
    found = json.loads(dbnd("mlflow", "verify", "--json").stdout)
    # Both processes have ended the run: which one was the last depends on whose journal was.
    assert [each for each in found if each["what"] != "end"] == []
    assert not list((home / "dbnd/journal").glob("*.dead"))
    assert not list((home / "dbnd/journal/mlflow/spool").glob("*"))


@in_an_outage
def test_another_process_logs_to_a_run_that_waits(proxy, server, env, python, dbnd, home, tmp_path):
    """Its journal may be the first that ``dbnd sync`` delivers."""
    run_id = first_run(proxy)
    done = python(LOGGING, RUN=run_id, **env)
    assert "done" in done.stdout, done.stderr
    proxy.listen()
    # The other's journal alone: this process still has its own.
    synced = dbnd("sync")
    assert "delivered" in synced.stderr, synced.stderr
    assert {run.info.run_name for run in server.search_runs(["0"])} == {"begun elsewhere", "child"}
    (outbox,) = outboxes()
    outbox.close(60)
    assert get_client(f"sqlite:///{tmp_path / 'tracker.db'}", load_config()).flush(60)
    check(server, dbnd, home)


@in_an_outage
def test_whoever_reads_a_run_that_waits_when_the_server_is_back_creates_it(proxy, server, env, python, writes):
    run_id = first_run(proxy)
    (outbox,) = outboxes()
    outbox.close(0)
    proxy.listen()
    found = python(f"import mlflow\nprint(mlflow.get_run({run_id!r}).info.run_id)", **env)
    (run,) = server.search_runs(["0"])
    assert found.stdout.split()[-1] == run.info.run_id, found.stderr


@in_an_outage
def test_what_is_logged_to_an_id_of_ours_that_nobody_knows_raises(proxy, env):
    first_run(proxy)
    with pytest.raises(mlflow.MlflowException, match="not found"):
        MlflowClient().log_metric("123456789abc8def8123456789abcdef", "m", 1)


@in_an_outage
def test_two_processes_create_a_run_once(proxy, server, env, warm, tmp_path):
    run_id = first_run(proxy)
    code = f"import mlflow, time\ntime.sleep(max(0, {{}} - time.time()))\nprint(mlflow.get_run({run_id!r}).info.run_id)"
    proxy.listen()
    at = time.time() + 2
    both = [warm.python(code.format(at), tmp_path / f"log-{n}", **env) for n in range(4)]
    for process in both:
        assert process.wait() == 0, process.output
    for outbox in outboxes():
        assert outbox.flush(60), outbox.trouble
    assert len(server.search_runs(["0"])) == 1


def test_threads_go_on_while_the_server_goes_away_and_comes_back(proxy, server, env):
    stop = threading.Event()
    counts: dict[str, int] = {}

    def log(run_id: str) -> None:
        n = 0
        while not stop.is_set():
            mlflow.MlflowClient().log_metric(run_id, "m", n, step=n)
            n += 1
            time.sleep(0.005)
        counts[run_id] = n

    client = MlflowClient()
    runs = [client.create_run("0").info.run_id for _ in range(4)]
    threads = [threading.Thread(target=log, args=(run_id,)) for run_id in runs]
    for thread in threads:
        thread.start()
    for _ in range(4):
        time.sleep(0.2)
        proxy.refuse()
        time.sleep(0.2)
        proxy.listen()
    stop.set()
    for thread in threads:
        thread.join()
    for outbox in outboxes():
        assert outbox.flush(60), outbox.trouble
        assert (outbox.refused, outbox.dropped) == (0, 0)
    for run_id in runs:
        assert sorted(m.step for m in server.get_metric_history(run_id, "m")) == list(range(counts[run_id]))


def test_a_run_is_read_while_another_thread_logs_to_it():
    interval, often = sys.getswitchinterval(), gc.get_threshold()
    sys.setswitchinterval(1e-6)
    # Garbage is collected in the middle of many calls; where somebody looks on, as Hypothesis does, others run then.
    gc.set_threshold(50)
    gc.callbacks.append(look_on := lambda *_: None)
    try:
        for _ in range(30):
            view = RunView("run")
            tags = [RunTag(str(n), "x") for n in range(2_000)]
            logging = threading.Thread(target=view.log, args=((), (), tags))
            logging.start()
            while logging.is_alive():
                view.run()
            assert len(view.run().data.tags) == len(tags)
    finally:
        sys.setswitchinterval(interval)
        gc.set_threshold(*often)
        gc.callbacks.remove(look_on)


@pytest.mark.parametrize(
    ("time", "step"), [(math.inf, 0), ("soon", 0), (2**64, 0), (1, math.nan), (1, 2**64), (1, None)]
)
def test_a_run_that_has_odd_points_has_no_history_of_its_own(time, step):
    view = RunView("run")
    view.begin()
    view.log([Metric("m", 1.0, 1, 1)])
    assert [point.value for point in view.history.points("m")] == [1.0]
    view.log([Metric("m", 2.0, 2, 2)])
    view.log([Metric("n", 1.0, time, step)])
    assert view.history is None


@pytest.mark.timeout(20)
def test_a_signal_handler_logs_while_its_thread_logs():
    view = RunView("run")
    view.begin()
    with runs._lock:
        view.log([Metric("m", 1.0, 1, 1)])
    assert len(view.history.points("m")) == 1


FORKING = """
import multiprocessing, os, time, mlflow

def log(run_id, n):
    client = mlflow.MlflowClient()
    for k in range(8):
        client.log_metric(run_id, f"child{n}", k, step=k)
    with mlflow.start_run(run_name=f"own{n}", nested=True):  # the parent's run is active here, too, in MLflow 2.9
        mlflow.log_metric("m", 1)

if __name__ == "__main__":
    with mlflow.start_run(run_name="begun elsewhere") as run:
        for k in range(8):
            mlflow.log_metric("ours", k, step=k)
        context = multiprocessing.get_context("fork")
        children = [context.Process(target=log, args=(run.info.run_id, n)) for n in range(2)]
        for child in children:
            child.start()
        for child in children:
            child.join()
            assert child.exitcode == 0
    print(run.info.run_id)
"""


@pytest.mark.parametrize(
    ("is_away", "writes"), leading([(True, "keep"), (False, "deferred"), (False, "keep"), (True, "deferred")], 3)
)
def test_forked_children_log_to_the_run_of_their_parent(proxy, server, env, python, dbnd, is_away, writes):
    if is_away:
        proxy.refuse()
    done = python(FORKING, **env)
    assert done.returncode == 0, done.stderr
    assert is_own(done.stdout.split()[-1]) == is_away
    proxy.listen()
    synced = dbnd("sync")
    assert synced.returncode == 0, synced.stderr
    runs = {run.info.run_name: run for run in server.search_runs(["0"])}
    assert set(runs) == {"begun elsewhere", "own0", "own1"}
    outer = runs["begun elsewhere"]
    assert outer.info.status == "FINISHED"
    for key in ("ours", "child0", "child1"):
        assert [m.step for m in server.get_metric_history(outer.info.run_id, key)] == list(range(8))
    found = dbnd("mlflow", "verify")
    assert found.returncode == 0, found.stdout


KILLED = """
import itertools, os, time, mlflow
with mlflow.start_run() as run:
    print(run.info.run_id, flush=True)
    for n in itertools.count():
        mlflow.log_metric("m", n, step=n)
        print(n, flush=True)
        if n % 7 == 0:
            mlflow.set_tag("t", n)
"""


@pytest.mark.parametrize(
    ("writes", "kind"),
    leading([("keep", "sqlite"), ("deferred", "file"), ("keep", "file"), ("deferred", "sqlite")], 2),
)
def test_a_killed_client_of_a_local_store_loses_nothing_and_says_nothing_twice(
    writes, kind, warm, dbnd, tmp_path, inner_uri, monkeypatch
):
    from dbnd_mlflow import build_composite_uri

    inner = inner_uri if kind == "sqlite" else (tmp_path / "runs").as_uri()
    tracker = f"sqlite:///{tmp_path / 'tracker.db'}"
    monkeypatch.setenv("DBND__CORE__DATABAND_URL", tracker)
    monkeypatch.setenv("DBND__MLFLOW_TRACKING__DUPLICATE_TRACKING_TO", inner)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", build_composite_uri(tracker, inner, writes))
    logs = [tmp_path / f"log-{n}" for n in range(2)]
    for log in logs:
        process = warm.python(KILLED, log)
        wait_until(lambda p=process: p.output.count("\n") > 60, lambda p=process: p.output)
        process.kill()
        assert process.returncode == -signal.SIGKILL
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    synced = dbnd("sync")
    assert synced.returncode == 0, synced.stderr
    client = MlflowClient(inner)
    for log in logs:
        # Beside what MLflow and we say.
        run_id, *values = (line for line in log.read_text().splitlines() if re.fullmatch(r"\d+|[0-9a-f]{32}", line))
        steps = [m.step for m in client.get_metric_history(run_id, "m")]
        assert sorted(steps) == sorted(set(steps)), "no point twice"
        assert len(values) <= len(steps) <= len(values) + 2


@in_an_outage
def test_events_of_a_run_that_was_refused_wait_for_nothing(proxy, server, env, python, dbnd, home):
    """Another process logs to a run of this one, whose experiment is deleted before the server is back."""
    experiment = mlflow.set_experiment(f"doomed {time.time_ns()}").experiment_id
    for outbox in outboxes():
        assert outbox.flush(60), outbox.trouble
    run_id = first_run(proxy)
    done = python(LOGGING, RUN=run_id, **env)
    assert "done" in done.stdout, done.stderr
    server.delete_experiment(experiment)
    proxy.listen()
    started = time.monotonic()
    synced = dbnd("sync")
    assert synced.returncode == 1
    assert "were refused" in synced.stderr
    assert time.monotonic() - started < 60
    found = [letter for path in (home / "dbnd/journal").glob("*.dead") for letter in letters(path)]
    assert any("was refused" in reason for _, _, reason, _ in found)


def test_a_run_is_delivered_where_its_tracker_cannot_be_told(inner_uri, capfd):
    tracker = "sqlserver://tracker"  # nothing that is installed here speaks to it
    config = load_config(conf={"core.databand_url": tracker})
    transport = create_transport(build_journal_url(inner_uri, None), config)
    tags = {"mlflow.runName": "begun elsewhere"}
    run = {"own_id": new_id(), "experiment_id": "0", "user_id": "u", "start_time": 1, "tags": tags, "tracker": tracker}
    transport.send(Batch("create_run", run, "journal", 1, 1))
    (found,) = MlflowClient(inner_uri).search_runs(["0"])
    assert found.info.run_name == "begun elsewhere"
    assert "is not told which runs" in capfd.readouterr().err
