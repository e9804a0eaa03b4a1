from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import requests
from click.testing import CliRunner, Result
from kit.progress import wait_until
from kit.warm import Warm, WarmProcess

from dbnd._base.errors import ConfigError, DatabandError, UsageError
from dbnd_tracker._cli.runs import runs
from dbnd_tracker._cli.tracker import tracker as tracker_command
from dbnd_tracker._errors import RemoteError

pytestmark = pytest.mark.usefixtures("home")


def _invoke(*arguments: str) -> Result:
    result = CliRunner().invoke(runs, arguments)
    if isinstance(result.exception, DatabandError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result


@pytest.fixture
def filled(home: Path, open_tracker: Callable[[str], Any], error: Any) -> Any:
    """The embedded tracker of this test's home, with two runs in it."""
    tracker = open_tracker(str(home / "dbnd" / "tracker.db"))
    run, task = tracker.started(name="brave_lovelace", job="etl")
    tracker.call("update_task_run_attempts", task.update("RUNNING"))
    infos = [task.metric("loss", value_float=value, step=i) for i, value in enumerate((0.5, 0.125, float("nan")))]
    param = task.metric("depth", "mlflow.param", value_str="7")
    tag = task.metric("team", "mlflow.tag", value_str="risk")
    tracker.call("log_metrics", task.metrics(*infos, param, tag))
    links = {"mlflow": "http://m/#/1"}
    tracker.call("save_external_links", {"task_run_attempt_uid": task.attempt, "external_links_dict": links})
    tracker.call("log_artifact", {"task_run_attempt_uid": task.attempt, "name": "model", "path": "s3://b/m"})
    dataset = {
        "run_uid": run.uid,
        "task_run_uid": task.uid,
        "task_run_attempt_uid": task.attempt,
        "task_run_name": "train",
        "operation_path": "s3://b/x.csv",
        "operation_type": "read",
        "operation_status": "OK",
        "value_preview": None,
        "data_dimensions": [100, None],
        "data_schema": None,
    }
    tracker.call("log_datasets", {"datasets_info": [dataset]})
    tracker.call("update_task_run_attempts", task.update("FAILED", "2026-03-04T05:06:09.5+00:00", error=error))
    tracker.call("set_run_state", run.state("FAILED", "2026-03-04T05:07:09.5+00:00"))
    tracker.brave = run
    other = type(run)(name="old_euler", job="report")
    tracker.call("init_run", other.init(start_time="2026-03-03T00:00:00+00:00"))
    tracker.old = other
    return tracker


@pytest.fixture(params=["embedded", "sqlite url", "http", "http with token"])
def configured(request: pytest.FixtureRequest, filled: Any, serve: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The same runs, read in every way that there is."""
    if request.param == "sqlite url":
        monkeypatch.setenv("DBND__CORE__DATABAND_URL", f"sqlite:///{filled.database.path}")
    elif request.param.startswith("http"):
        token = "s3cret" if request.param.endswith("token") else None
        monkeypatch.setenv("DBND__CORE__DATABAND_URL", serve(filled.database, token=token).url)
        if token:
            monkeypatch.setenv("DBND__CORE__DATABAND_ACCESS_TOKEN", token)
    return filled


def test_runs_are_listed(configured: Any) -> None:
    lines = _invoke("list").stdout.splitlines()
    assert len(lines) == 3
    assert lines[0].split() == ["RUN", "NAME", "JOB", "STATE", "STARTED", "TOOK", "USER"]
    assert lines[1].startswith(f"{configured.brave.uid[:8]}  brave_lovelace  etl     failed")
    assert "1m 02s" in lines[1]
    assert "old_euler" in lines[2]


def test_the_list_is_filtered_and_bounded(configured: Any) -> None:
    assert "old_euler" not in _invoke("list", "--job", "etl").stdout
    assert "brave_lovelace" not in _invoke("list", "--state", "RUNNING").stdout
    bounded = _invoke("list", "--limit", "1")
    assert "old_euler" not in bounded.stdout
    assert "1 more" in bounded.stderr
    nothing = _invoke("list", "--job", "nonsense")
    assert nothing.stdout == ""
    assert "No run matches" in nothing.stderr


def test_the_json_is_the_same_however_it_is_read(configured: Any) -> None:
    from dbnd_tracker._queries.details import run_detail
    from dbnd_tracker._queries.table.run_table import list_runs

    with configured.database.read() as session:
        listed = [run.model_dump(mode="json") for run in list_runs(session).data]
        detail = run_detail(session, configured.brave.uid).model_dump(mode="json")
    assert json.loads(_invoke("list", "--json").stdout) == listed
    assert json.loads(_invoke("show", "latest", "--json").stdout) == detail
    assert detail["task_runs"][1]["metrics"][0]["last_value"] == "NaN"
    assert detail["end_time"] == "2026-03-04T05:07:09.500000+00:00"


def test_a_run_is_shown_in_full(configured: Any) -> None:
    text = _invoke("show", "brave_lovelace").stdout
    lines = text.splitlines()

    def cells(start: str) -> list[str]:
        return next(re.split(r"\s{2,}", line) for line in lines if line.startswith(start))

    assert f"Uid: {configured.brave.uid}" in lines
    assert "State: failed" in lines
    assert "Took: 1m 02s" in lines
    assert cells("└") == ["└── train", "failed", "2.5s"]
    assert cells("loss") == ["loss", "3", "NaN", "0.125", "0.5", "2"]
    assert cells("depth") == ["depth", "mlflow", "7"]
    assert cells("team") == ["team", "risk"]
    assert cells("model") == ["model", "s3://b/m"]
    assert cells("read") == ["read", "s3://b/x.csv", "100 x ?", "OK"]
    assert cells("mlflow") == ["mlflow", "http://m/#/1"]
    assert "Error: ValueError: boom" in lines
    url = os.environ.get("DBND__CORE__DATABAND_URL", "")
    assert (f"Page: {url}/app/jobs/etl/{configured.brave.uid}" in lines) == url.startswith("http")


def test_times_are_local(filled: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Kolkata")
    time.tzset()
    try:
        assert "Started: 2026-03-04 10:36:07" in _invoke("show", filled.brave.name).stdout.splitlines()
    finally:
        monkeypatch.delenv("TZ")
        time.tzset()


def test_a_run_goes_by_several_names(configured: Any) -> None:
    uid = configured.old.uid
    for text in (uid, uid[:8], uid[:13], uid.replace("-", "")[:17], uid[:8].upper(), "old_euler"):
        assert f"Uid: {uid}" in _invoke("show", text).stdout
    assert f"Uid: {configured.brave.uid}" in _invoke("show", "latest").stdout


def test_a_run_that_is_not_there_is_a_wrong_command(configured: Any) -> None:
    with pytest.raises(UsageError, match="There is no run 'nobody'") as caught:
        _invoke("show", "nobody")
    assert caught.value.exit_code == 2
    # Three digits are no prefix, or any short name would be one.
    with pytest.raises(UsageError, match="There is no run"):
        _invoke("show", configured.old.uid[:3])


def test_a_name_of_several_runs_is_ambiguous(configured: Any) -> None:
    twin = type(configured.old)(name="old_euler")
    configured.call("init_run", twin.init())
    with pytest.raises(UsageError, match="more than one run") as caught:
        _invoke("show", "old_euler")
    assert twin.uid in str(caught.value)
    assert configured.old.uid in str(caught.value)


def test_a_prefix_of_several_runs_is_ambiguous(configured: Any) -> None:
    for end in ("1", "2"):
        run = type(configured.old)(uid=f"abcdabcd-0000-0000-0000-00000000000{end}")
        configured.call("init_run", run.init())
    with pytest.raises(UsageError, match="more than one run"):
        _invoke("show", "abcd")
    assert "Uid: abcdabcd" in _invoke("show", "abcdabcd000000000000000000000002").stdout


def test_a_file_that_does_not_exist_is_said_and_not_made(home: Path) -> None:
    listed = _invoke("list")
    assert listed.stdout == ""
    assert "does not exist yet" in listed.stderr
    assert json.loads(_invoke("list", "--json").stdout) == []
    with pytest.raises(UsageError, match=r"tracker\.db, which does not exist yet"):
        _invoke("show", "latest")
    assert not (home / "dbnd").exists()


def test_a_tracker_that_does_not_answer_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DBND__CORE__DATABAND_URL", "http://user:hunter2@127.0.0.1:9")
    with pytest.raises(RemoteError, match="does not answer") as caught:
        _invoke("list")
    assert "hunter2" not in str(caught.value)


def test_a_wrong_token_is_said(filled: Any, serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DBND__CORE__DATABAND_URL", serve(filled.database, token="right").url)
    monkeypatch.setenv("DBND__CORE__DATABAND_ACCESS_TOKEN", "wrong-one")
    with pytest.raises(ConfigError, match=r"set core\.databand_access_token") as caught:
        _invoke("list")
    assert "wrong-one" not in str(caught.value)


def test_runs_are_read_with_the_login_that_tracks_them(
    filled: Any, serve: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DBND__CORE__DATABAND_URL", serve(filled.database, token="right").url)
    monkeypatch.setenv("DBND__CORE__DBND_PASSWORD", "right")
    assert "brave_lovelace" in _invoke("list").stdout
    assert _invoke("delete", "brave_lovelace", "--yes").exit_code == 0
    assert "brave_lovelace" not in _invoke("list").stdout
    monkeypatch.setenv("DBND__CORE__DBND_PASSWORD", "wrong")
    with pytest.raises(ConfigError, match=r"its login answered 401; set core\.databand_access_token"):
        _invoke("list")


@pytest.mark.parametrize("status", [200, 404])
def test_a_page_is_no_list_of_runs(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    class Portal(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(b"<html>Welcome")

        def log_message(self, *_: object) -> None:
            """Print nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Portal) as portal:
        threading.Thread(target=portal.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        monkeypatch.setenv("DBND__CORE__DATABAND_URL", f"http://127.0.0.1:{portal.server_port}")
        monkeypatch.setenv("DBND__CORE__DATABAND_ACCESS_TOKEN", "t")
        try:
            with pytest.raises(RemoteError, match=rf"cannot be read: it answered {status} with text/html"):
                _invoke("list")
        finally:
            portal.shutdown()


def test_listening_for_others_needs_a_token() -> None:
    result = CliRunner().invoke(tracker_command, ["start", "--host", "0.0.0.0"])
    assert isinstance(result.exception, ConfigError)
    assert result.exception.exit_code == 8
    assert "without a token" in str(result.exception)


@pytest.fixture
def started(warm: Warm, tmp_path: Path) -> Iterator[Callable[..., tuple[WarmProcess, str]]]:
    """Starts ``dbnd tracker start``, which ends as any process, and returns it and its first line."""
    processes = []

    def start(*arguments: str) -> tuple[WarmProcess, str]:
        command = {"arguments": ["tracker", "start", "--port", "0", *arguments], "finalize": True}
        process = warm.start(command, tmp_path / f"log-{len(processes)}", env=os.environ)
        processes.append(process)
        wait_until(lambda: "\n" in process.output or process.poll() is not None, lambda: process.output)
        return process, process.output

    yield start
    for process in processes:
        process.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_server_starts_and_ends_quietly(filled: Any, started: Any, number: signal.Signals) -> None:
    process, line = started()
    found = re.fullmatch(r"Tracker at (http://localhost:\d+) over (.*)\.\n", line)
    assert found
    assert found[2] == str(filled.database.path)
    with requests.Session() as session:  # a kept connection must not hold up the end
        listed = session.get(f"{found[1]}/api/v1/runs", timeout=30).json()
        assert [run["name"] for run in listed["data"]] == ["brave_lovelace", "old_euler"]
        process.signal(number)
        assert process.wait() == 0
    assert process.output == line


def test_options_and_settings_of_the_server(
    home: Path, started: Any, monkeypatch: pytest.MonkeyPatch, make_run: Any
) -> None:
    monkeypatch.setenv("DBND__TRACKER__TOKEN", "s3cret")
    monkeypatch.setenv("DBND__TRACKER__DATABASE", str(home / "unused.db"))
    _, line = started("--database", str(home / "team.db"))
    url = line.split()[2]
    assert str(home / "team.db") in line
    body = make_run().init()
    refused = requests.post(f"{url}/api/v1/tracking/init_run", json=body, timeout=30)
    taken = requests.post(
        f"{url}/api/v1/tracking/init_run", json=body, timeout=30, headers={"Authorization": "Bearer s3cret"}
    )
    assert (refused.status_code, taken.status_code) == (401, 200)
    assert not (home / "unused.db").exists()


def test_the_page_opens_in_the_browser(started: Any, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    browser = home / "browser"
    browser.write_text('#!/bin/sh\necho "$1" > opened.part && mv opened.part opened\n')
    browser.chmod(0o755)
    monkeypatch.setenv("BROWSER", str(browser))
    process, line = started("--open")
    while not Path("opened").exists():
        assert process.poll() is None
        time.sleep(0.05)
    assert Path("opened").read_text().strip() in line


def test_a_port_in_use_ends_the_command(started: Any, dbnd: Any) -> None:
    _, line = started()
    port = line.split()[2].rpartition(":")[2]
    done = dbnd("tracker", "start", "--port", port)
    assert done.returncode == 8
    assert f"The port {port} of 127.0.0.1 is in use" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_commands_are_installed(dbnd_command: list[str], home: Path) -> None:
    done = subprocess.run([*dbnd_command, "--help"], capture_output=True, text=True, check=True, cwd=home)
    assert "Serve the tracker on this machine." in done.stdout
    assert "export, open and delete" in done.stdout
