"""What operators see of a server, its limits, and its end."""

from __future__ import annotations

import json
import logging
import threading
from pathlib import Path
from typing import Any

import pytest
from kit.progress import wait_until

from dbnd_tracker._schemas.runs import InitRun, SetRunState
from dbnd_tracker._schemas.validation import UnknownKeys, unknown_keys
from dbnd_tracker._settings import TrackerSettings


def _counted(server: Any, name: str) -> dict[str, float]:
    lines = [line for line in server.get("/metrics").text.splitlines() if line.startswith(name)]
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines}


def test_health_and_counters(sqlite_tracker: Any, serve: Any, make_run: Any) -> None:
    server = serve(sqlite_tracker.database)
    assert server.get("/healthz").json() == {"status": "ok"}
    assert server.get("/readyz").json() == {"status": "ok"}
    for _ in range(2):
        assert server.post("init_run", make_run().init()).ok
    assert server.post("init_run", {}).status_code == 400

    name = 'databand_tracker_requests_total{{method="POST",route="/api/v1/tracking/init_run",status="{}"}}'

    def counts() -> tuple[float, float]:
        found = _counted(server, "databand_tracker_requests_total")
        return found.get(name.format(200), 0), found.get(name.format(400), 0)

    # Requests are counted and logged just after their answers have been sent.
    wait_until(lambda: counts() == (2, 1), lambda: str(counts()))
    assert _counted(server, "databand_tracker_received_bytes_total")["databand_tracker_received_bytes_total"] > 100


def test_unknown_keys_are_kept_out_counted_and_said_once(
    sqlite_tracker: Any, serve: Any, make_run: Any, caplog: pytest.LogCaptureFixture
) -> None:
    server = serve(sqlite_tracker.database)
    run = make_run()
    body = run.state("RUNNING")
    key = f"made_up_{run.uid[:8]}"
    label = 'databand_tracker_unknown_keys_total{call="set_run_state"}'
    before = _counted(server, label).get(label, 0)
    with caplog.at_level(logging.WARNING, logger="dbnd_tracker"):
        for _ in range(3):
            assert server.post("set_run_state", {**body, key: "s3cret"}).ok
    assert _counted(server, label)[label] - before == 3
    said = [record.getMessage() for record in caplog.records if key in record.getMessage()]
    assert said == [f"The body of set_run_state has a key that is not known and not kept: {key!r}."]
    assert key not in json.dumps(server.get(f"/api/v1/runs/{run.uid}").json())


def test_unknown_keys_are_found_at_any_depth(make_run: Any) -> None:
    body = make_run().init()
    assert list(unknown_keys(InitRun, body)) == []
    body["init_args"]["odd"] = 1
    body["init_args"]["task_runs_info"]["task_runs"][0]["odd"] = 1
    found = set(unknown_keys(InitRun, body))
    assert found == {"init_args.odd", "init_args.task_runs_info.task_runs.odd"}
    assert list(unknown_keys(SetRunState, {"time_stamp": None})) == []


def test_made_up_keys_without_end_are_counted_and_not_remembered() -> None:
    keys = UnknownKeys()
    for number in range(3000):
        keys.note("set_run_state", SetRunState, {f"key{number}": 1})
    assert keys.counts() == {"set_run_state": 3000}
    assert len(keys._said) == 1000


def test_the_access_log_has_no_secrets(sqlite_tracker: Any, serve: Any, make_run: Any, tmp_path: Path) -> None:
    log = tmp_path / "access.jsonl"
    server = serve(sqlite_tracker.database, token="s3cret-token", settings=TrackerSettings(access_log=str(log)))
    headers = {"Authorization": "Bearer s3cret-token", "X-Request-ID": "abc"}
    assert server.post("init_run", make_run().init(), headers=headers).ok
    assert server.get("/api/v1/runs?user=hidden", headers=headers).ok
    assert server.get("/api/v1/runs", headers={"Authorization": "Bearer guess"}).status_code == 401

    wait_until(lambda: log.read_text().count("\n") == 3, log.read_text)
    text = log.read_text()
    entries = [json.loads(line) for line in text.splitlines()]
    assert [(e["method"], e["path"], e["status"], e["token"]) for e in entries] == [
        ("POST", "/api/v1/tracking/init_run", 200, "tracker.token"),
        ("GET", "/api/v1/runs", 200, "tracker.token"),
        ("GET", "/api/v1/runs", 401, None),
    ]
    assert entries[0]["request_id"] == "abc"
    assert entries[0]["bytes"] > 100
    for secret in ("s3cret-token", "guess", "hidden"):
        assert secret not in text


def test_the_end_of_a_server_finishes_what_it_has_begun(
    sqlite_tracker: Any, serve: Any, make_run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dbnd_tracker._server import process

    made: list[Any] = []
    original = process.uvicorn.Server

    def remember(config: Any) -> Any:
        made.append(original(config))
        return made[-1]

    monkeypatch.setattr(process.uvicorn, "Server", remember)
    server = serve(sqlite_tracker.database)
    begun, go = threading.Event(), threading.Event()
    write = sqlite_tracker.database.write

    def slow(work: Any) -> Any:
        begun.set()
        assert go.wait(60)
        return write(work)

    monkeypatch.setattr(sqlite_tracker.database, "write", slow)
    run, answers = make_run(), []
    client = threading.Thread(target=lambda: answers.append(server.post("init_run", run.init()).status_code))
    client.start()
    assert begun.wait(60)
    made[0].should_exit = True
    go.set()
    client.join(60)
    assert answers == [200]
    assert sqlite_tracker.run(run).name == run.name


def test_several_processes_partitions_and_replicas_need_postgresql(dbnd: Any) -> None:
    done = dbnd("tracker", "start", "--port", "0", "--workers", "2")
    assert done.returncode == 8
    assert "tracker.workers = 2 needs PostgreSQL" in done.stderr
    done = dbnd("tracker", "start", "--port", "0", DBND__TRACKER__PARTITIONS="8")
    assert done.returncode == 8
    assert "tracker.partitions = 8 needs PostgreSQL" in done.stderr
    done = dbnd("tracker", "start", "--port", "0", DBND__TRACKER__READ_DATABASE="postgresql://h/t")
    assert done.returncode == 8
    assert "tracker.read_database needs PostgreSQL" in done.stderr


def test_other_addresses_and_names_need_a_token(dbnd: Any) -> None:
    done = dbnd("tracker", "start", "--port", "0", "--host", "0.0.0.0")
    assert done.returncode == 8
    assert "dbnd tracker token create" in done.stderr
    proxied = dbnd("tracker", "start", "--port", "0", DBND__TRACKER__ALLOWED_HOSTS='["tracker.example.com"]')
    assert proxied.returncode == 8
    assert "tracker.example.com" in proxied.stderr
