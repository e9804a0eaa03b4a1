"""MLflow's own server dies again and again, as do clients: what was logged is in it and in the tracker, once."""

from __future__ import annotations

import json
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from kit.faults import Proxy
from kit.mlflow_stores import MlflowServer
from kit.progress import wait_until
from kit.scale import THOROUGH, scaled
from kit.warm import Warm, WarmProcess
from mlflow import MlflowClient

from dbnd._journal.leftovers import find
from dbnd_mlflow import build_composite_uri
from dbnd_mlflow._durable.ids import FIRST_ID, is_own
from dbnd_mlflow._reporting.store_reader import pages

pytest.importorskip("dbnd_tracker")

POINTS = scaled(60, 20_000)
# Calls between two kills, at most.
CALLS = scaled(15, 60)
SERVER_KILLS = scaled(2, 20)
CLIENT_KILLS = scaled(2, 10)
# Seconds between two points.
PAUSE = 0.01 if THOROUGH else 0.05

pytestmark = pytest.mark.timeout(scaled(300, 7200))

# Logs a run with everything in it, and tells each call that has returned: what it was, the run, and its value.
TRAINING = """
import json, os, signal, sys, time
import mlflow

told = os.open(os.environ["PROGRESS"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
enough, doom = os.environ.get("ENOUGH"), os.environ.get("DOOM")

def returned(*what):
    os.write(told, (json.dumps(what) + "\\n").encode())

def point(run_id, n):
    mlflow.log_metric("n", n, step=n)
    returned("n", run_id, n)

with mlflow.start_run(run_name="outer") as run:
    run_id = run.info.run_id
    returned("run", run_id, "")
    n = 0
    while n < {points} or (enough and not os.path.exists(enough)):
        if doom and os.path.exists(doom):
            os.kill(os.getpid(), signal.SIGKILL)
        point(run_id, n)
        if n % 15 == 0:
            mlflow.log_param(f"p{{n}}", n)
            returned("param", run_id, f"p{{n}}")
        if n % 20 == 0:
            mlflow.set_tag("t", n)
            returned("tag", run_id, n)
        if n % 100 == 10:
            mlflow.log_text(str(n), f"texts/{{n}}.txt")
            returned("file", run_id, f"texts/{{n}}.txt")
        if n % 150 == 20:
            with mlflow.start_run(nested=True, run_name=f"inner {{n}}") as inner:
                returned("run", inner.info.run_id, run_id)
                for k in range(5):
                    point(inner.info.run_id, k)
            returned("end", inner.info.run_id, "FINISHED")
        n += 1
        time.sleep({pause})
returned("end", run_id, "FINISHED")
"""


@dataclass
class Told:
    """What a client has told of its calls."""

    path: Path

    @property
    def calls(self) -> list[list[Any]]:
        lines = self.path.read_text().split("\n")[:-1] if self.path.exists() else []
        return [json.loads(line) for line in lines]

    def __len__(self) -> int:
        return self.path.read_bytes().count(b"\n") if self.path.exists() else 0

    def of(self, what: str) -> dict[str, list[Any]]:
        """What was told of a kind, by the id of the run."""
        found: dict[str, list[Any]] = {}
        for kind, run_id, value in self.calls:
            if kind == what:
                found.setdefault(run_id, []).append(value)
        return found


@dataclass
class Lab:
    """An MLflow server behind a proxy, and clients of it that are tracked in an embedded tracker."""

    warm: Warm
    folder: Path
    server: MlflowServer
    proxy: Proxy
    env: dict[str, str]
    told: list[Told] = field(default_factory=list)
    count: int = 0

    def log(self) -> Path:
        self.count += 1
        return self.folder / f"log-{self.count}"

    def start(self, points: int = POINTS, pause: float = PAUSE, **env: str) -> tuple[WarmProcess, Told]:
        """Start a client."""
        log = self.log()
        told = Told(log.with_suffix(".told"))
        self.told.append(told)
        code = TRAINING.format(points=points, pause=pause)
        return self.warm.python(code, log, **self.env | {"PROGRESS": str(told.path)} | env), told

    def dbnd(self, *arguments: str, exit_code: int = 0) -> str:
        """Run a command, as another process than the clients: it knows of their stores by its configuration alone."""
        own = {name: value for name, value in self.env.items() if name != "MLFLOW_TRACKING_URI"}
        process = self.warm.dbnd(*arguments, log=self.log(), **own)
        assert process.wait(1200) == exit_code, process.output
        return process.output

    def seen(self, run_id: str) -> dict[str, Any]:
        """What another process sees under the id that a run had first."""
        code = (
            f"import json, mlflow\nrun = mlflow.get_run({run_id!r})\n"
            "print(json.dumps([run.info.run_id, run.info.start_time, run.info.end_time, run.info.status]))"
        )
        process = self.warm.python(code, self.log(), **self.env)
        assert process.wait() == 0, process.output
        return dict(zip(("id", "start", "end", "status"), json.loads(process.output.splitlines()[-1]), strict=True))

    @contextmanager
    def running(self) -> Iterator[Lab]:
        """End server and proxy with the block."""
        with self.proxy:
            try:
                yield self
            finally:
                self.server.kill()

    @property
    def journals(self) -> Path:
        return Path(self.env.get("DBND__CORE__JOURNAL_FOLDER") or Path(self.env["DBND_HOME"], "journal"))


def make_lab(warm: Warm, folder: Path, empty: Path, writes: str, database: str | None = None) -> Lab:
    server = MlflowServer(folder / "mlflow", empty, warm, database)
    proxy = Proxy(server.url)
    tracker = f"sqlite:///{folder / 'tracker.db'}"
    env = {
        "DBND_HOME": str(folder / "dbnd"),
        "DBND__CORE__DATABAND_URL": tracker,
        "DBND__CORE__FLUSH_TIMEOUT": "1",
        "DBND__MLFLOW_TRACKING__DUPLICATE_TRACKING_TO": proxy.url,
        "MLFLOW_TRACKING_URI": build_composite_uri(tracker, proxy.url, writes),
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "GIT_PYTHON_REFRESH": "quiet",
    }
    return Lab(warm, folder, server, proxy, env)


@pytest.fixture(params=["keep", "deferred"])
def lab(request, warm, tmp_path, empty_database) -> Iterator[Lab]:
    with make_lab(warm, tmp_path, empty_database, request.param).running() as made:
        yield made


def check(lab: Lab, *, in_flight: int = 0) -> Counter[str]:
    """Compare what clients have told with what MLflow has; returns how much there was.

    ``in_flight`` clients were killed at any moment, in the midst of a call perhaps.
    """
    client = MlflowClient(lab.server.url)
    found_runs = pages(lambda token: client.search_runs(["0"], max_results=1000, page_token=token))
    stored = {run.info.run_id: run for run in found_runs}
    by_first = {run.data.tags[FIRST_ID]: run_id for run_id, run in stored.items()}
    found: Counter[str] = Counter()
    known = set()
    for told in lab.told:
        real = {run_id: by_first[run_id] if is_own(run_id) else run_id for run_id in told.of("run")}
        known |= set(real.values())
        found["runs"] += len(real)
        for run_id, (parent,) in told.of("run").items():
            assert stored[real[run_id]].data.tags.get("mlflow.parentRunId", "") == (real[parent] if parent else "")
        for run_id, values in told.of("n").items():
            steps = sorted(m.step for m in client.get_metric_history(real[run_id], "n"))
            assert steps[: len(values)] == values, "none is lost"
            assert len(steps) - len(values) <= (in_flight > 0), "and none more than once"
            found["points"] += len(values)
        for run_id, names in told.of("param").items():
            assert set(names) <= set(stored[real[run_id]].data.params)
        for run_id, values in told.of("tag").items():
            assert int(stored[real[run_id]].data.tags["t"]) in {values[-1], values[-1] + 20 * (in_flight > 0)}
        for run_id, names in told.of("file").items():
            there = {file.path for file in client.list_artifacts(real[run_id], "texts")}
            assert set(names) <= there
            found["files"] += len(names)
        for run_id, (status,) in told.of("end").items():
            assert stored[real[run_id]].info.status == status
    assert len(stored.keys() - known) <= in_flight, "no ghosts"
    return found


def check_folder(lab: Lab) -> None:
    """Nothing is left but the ids."""
    assert not list(lab.journals.glob("*.journal")), lab.dbnd("sync", "--list")
    assert not list(lab.journals.glob("*.dead"))
    assert not list((lab.journals / "mlflow/spool").glob("*"))


def kill_all(lab: Lab, report, *, from_outside: bool) -> None:
    lab.server.start()
    enough, doom = lab.folder / "enough", lab.folder / "doom"
    trainer, told = lab.start(ENOUGH=str(enough))
    victim, victims_told = lab.start(10**9, DOOM=str(doom))
    killed = 0

    def go_on(calls: int) -> None:
        for process, each in ((trainer, told), (victim, victims_told)):
            start = len(each)
            wait_until(lambda e=each, s=start: len(e) >= s + calls, lambda p=process: p.output)

    def kill_client() -> None:
        nonlocal victim, victims_told, killed
        killed += 1
        if from_outside:
            victim.kill()
        else:
            doom.touch()
            assert victim.wait() == -signal.SIGKILL, victim.output
            doom.unlink()
        victim, victims_told = lab.start(10**9, DOOM=str(doom))

    for number in range(SERVER_KILLS):
        go_on(random.randrange(5, CALLS))
        if number % 2:
            lab.proxy.refuse()
        lab.server.kill()
        go_on(random.randrange(5, CALLS))
        if killed < CLIENT_KILLS - 1:
            kill_client()
            go_on(5)
        lab.server.start()
        lab.proxy.listen()
    go_on(CALLS // 2)
    if not from_outside:
        doom.touch()
        assert victim.wait() == -signal.SIGKILL
    victim.kill()
    killed += 1
    enough.touch()
    assert trainer.wait(scaled(600, 3600)) == 0, trainer.output
    lab.dbnd("sync")
    check_folder(lab)
    found = check(lab, in_flight=killed if from_outside else 0)
    assert told.of("end")
    if from_outside:
        ids = [run_id for run_id in told.of("run") if not is_own(run_id)]
        lab.dbnd("mlflow", "verify", *ids)
    else:
        assert "no difference" in lab.dbnd("mlflow", "verify")
    how = lab.env["MLFLOW_TRACKING_URI"].rpartition("=")[2]
    report(
        f"MLflow's server killed {SERVER_KILLS} times, clients {killed} times, {how}: "
        + ", ".join(f"{count} {what}" for what, count in sorted(found.items()))
        + ": none lost, none twice."
    )


# The two know nothing of each other: each kind of kill meets each way to write once.
KINDS = [("keep", True), ("deferred", False), ("keep", False), ("deferred", True)]


@pytest.mark.parametrize(("lab", "from_outside"), KINDS[: scaled(2, 4)], indirect=["lab"])
def test_nothing_is_lost_while_mlflows_server_and_clients_are_killed(lab, report, from_outside):
    kill_all(lab, report, from_outside=from_outside)


@pytest.mark.skipif(not THOROUGH, reason="MLflow's migrations take long there")
@pytest.mark.parametrize("writes", ["keep", "deferred"])
def test_nothing_is_lost_with_postgresql_behind_the_server(warm, tmp_path, empty_database, postgresql, writes, report):
    database = postgresql.create().replace("postgresql://", "postgresql+psycopg://")
    with make_lab(warm, tmp_path, empty_database, writes, database).running() as lab:
        kill_all(lab, report, from_outside=False)


def test_a_run_is_complete_though_the_server_was_never_there(lab):
    lab.proxy.refuse()
    before = time.time() * 1000
    trainer, told = lab.start(100, 0)
    assert trainer.wait() == 0, trainer.output
    after = time.time() * 1000
    assert "`dbnd sync`" in trainer.output
    lab.dbnd("sync", exit_code=1)
    lab.server.start()
    lab.proxy.listen()
    lab.dbnd("sync")
    check_folder(lab)
    assert check(lab) == {"runs": 2, "points": 105, "files": 1}
    first, *_ = told.of("run")
    assert is_own(first)
    seen = lab.seen(first)
    assert before <= seen["start"] <= seen["end"] <= after
    assert (seen["status"], is_own(seen["id"])) == ("FINISHED", False)
    assert "no difference" in lab.dbnd("mlflow", "verify")


def test_a_relay_delivers_what_waits_for_mlflow_too(warm, tmp_path, empty_database):
    lab = make_lab(warm, tmp_path, empty_database, "deferred")
    lab.env["DBND__CORE__JOURNAL_FOLDER"] = str(tmp_path / "shared")
    watching = {name: value for name, value in lab.env.items() if name != "MLFLOW_TRACKING_URI"}
    lab.env["DBND__CORE__DELIVERY"] = "relay"

    def watch() -> WarmProcess:
        return warm.dbnd("sync", "--watch", log=lab.log(), **watching)

    with lab.running():
        lab.server.start()
        relay = watch()
        clients = [lab.start(100, 0.02) for _ in range(2)]
        wait_until(lambda: bool(list(lab.journals.glob("*.ack"))), lambda: relay.output)
        relay.kill()
        relay = watch()
        for process, _ in clients:
            assert process.wait() == 0, process.output
        wait_until(lambda: not find(lab.journals), lambda: relay.output)
        relay.signal(signal.SIGTERM)
        assert relay.wait() == 0, relay.output
        assert check(lab) == {"runs": 4, "points": 210, "files": 2}
        check_folder(lab)
        assert "no difference" in lab.dbnd("mlflow", "verify")
