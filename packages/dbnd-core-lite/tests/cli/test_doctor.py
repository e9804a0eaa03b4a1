from __future__ import annotations

import json
import os
import threading

import pytest
from kit.commands import command_line

from dbnd._base.paths import journal_folder
from dbnd._cli import doctor as command
from dbnd._journal.journal import Journal
from dbnd._journal.leftovers import find


@pytest.fixture
def doctor(dbnd):
    """Run ``dbnd doctor --json`` and return its exit code and findings: check, status, text."""

    def run(*args, **env):
        done = dbnd("doctor", "--json", *args, **env)
        assert "Traceback" not in done.stderr
        return done.returncode, [(f["check"], f["status"], f["text"]) for f in json.loads(done.stdout)]

    return run


def of(findings, check):
    return [(status, text) for name, status, text in findings if name == check]


def test_all_is_well(doctor, server, home):
    (home / "dbnd").mkdir()
    path = home / "dbnd/databand.cfg"
    path.write_text(f"[core]\ndataband_url = {server.url}\ndataband_access_token = hunter2\n")
    code, findings = doctor()
    assert code == 0
    assert {status for _, status, _ in findings} == {"ok"}
    texts = [text for _, text in of(findings, "configuration")]
    assert texts[0] == f"It is read from {path}."
    assert f"core.databand_url = {server.url} ({path}, line 2)." in texts
    assert f"core.databand_access_token = *** ({path}, line 3)." in texts
    assert of(findings, "tracker")[-1] == ("ok", f"{server.url} can be reached.")
    assert of(findings, "credentials") == [("ok", "The token of core.databand_access_token is accepted.")]
    assert of(findings, "journal") == [("ok", "Nothing waits to be delivered.")]
    assert "GiB are free" in of(findings, "disk")[0][1]
    assert "hunter2" not in str(findings)


def test_the_token_is_tried_by_a_call_that_changes_nothing(doctor, server):
    doctor(DBND__CORE__DATABAND_URL=server.url, DBND__CORE__DATABAND_ACCESS_TOKEN="t0ken")
    (request,) = server.requests
    assert (request.method, request.path) == ("POST", "/api/v1/tracking/log_metrics")
    assert request.headers["Authorization"] == "Bearer t0ken"
    assert request.body == {"metrics_info": []}
    assert "X-Databand-Batch" not in request.headers


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_token_is_found(doctor, server, status):
    server.answer = lambda _: (status, {}, b"")
    code, findings = doctor("-c", f"core.databand_url={server.url}", "-c", "core.databand_access_token=hunter2")
    assert code == 1
    ((verdict, text),) = of(findings, "credentials")
    assert verdict == "error"
    assert f"it answered {status} and so refuses the credentials of core.databand_access_token" in text
    assert of(findings, "tracker")[-1] == ("ok", f"{server.url} can be reached.")
    assert "hunter2" not in str(findings)


def test_a_refused_login_is_found(doctor, server):
    server.answer = lambda r: (403 if r.path.endswith("login") else 200, {}, b"{}")
    code, findings = doctor("-c", f"core.databand_url={server.url}")
    assert code == 1
    assert "its login answered 403" in of(findings, "credentials")[0][1]


def test_an_accepted_login_is_said(doctor, server):
    code, findings = doctor("-c", f"core.databand_url={server.url}")
    assert code == 0
    assert of(findings, "credentials") == [("ok", "The login of core.dbnd_user is accepted.")]


def test_an_unreachable_tracker_is_found(doctor, free_port):
    code, findings = doctor("-c", f"core.databand_url=http://127.0.0.1:{free_port}")
    assert code == 1
    status, text = of(findings, "tracker")[-1]
    assert status == "error"
    assert "no connection" in text
    assert of(findings, "credentials") == []


@pytest.mark.parametrize(
    ("setting", "text"),
    [
        ("core.flush_timeout=soon", "core.flush_timeout = 'soon' (--set-config) cannot be used"),
        ("core.flush_timeuot=1", "Did you mean 'core.flush_timeout'?"),
        ("core.databand_url=ftp://h", "its scheme is none of"),
    ],
)
def test_configuration_that_cannot_be_used_is_found_and_the_rest_is_looked_at(doctor, setting, text):
    code, findings = doctor("-c", setting)
    assert code == 1
    assert any(status == "error" and text in found for _, status, found in findings)
    assert of(findings, "journal")
    assert of(findings, "disk")


@pytest.mark.parametrize("token", ["t", ""])
def test_a_page_is_no_tracker(doctor, server, token):
    server.answer = lambda _: (200, {"Content-Type": "text/html"}, b"<html>Welcome")
    code, findings = doctor(DBND__CORE__DATABAND_URL=server.url, DBND__CORE__DATABAND_ACCESS_TOKEN=token)
    assert code == 1
    status, text = of(findings, "tracker")[-1]
    assert status == "error"
    assert f"{server.url} cannot be used: it answered 200 with text/html, and not as a tracker does" in text
    assert of(findings, "credentials") == []


def test_a_tracker_that_does_not_answer_is_not_waited_for_long(server, home, monkeypatch):
    release = threading.Event()
    server.answer = lambda _: (release.wait(60), (200, {}, b"{}"))[1]
    monkeypatch.setattr(command, "_PATIENCE", 0.3)
    monkeypatch.setenv("DBND__CORE__DATABAND_URL", server.url)
    monkeypatch.setenv("DBND__CORE__DATABAND_ACCESS_TOKEN", "t")
    findings = list(command.examine())
    release.set()
    assert any(f.status == "error" and "no answer within 0.3 s" in f.text for f in findings)


def test_what_is_unsent_is_counted_by_its_state(doctor, server):
    living, gone = (Journal(journal_folder(), server.url) for _ in range(2))
    for journal in (living, gone):
        for _ in range(3):
            journal.append("a", {})
    gone.close()
    code, findings = doctor("-c", f"core.databand_url={server.url}")
    assert code == 0
    assert of(findings, "journal") == [
        ("ok", "3 events in 1 files are in use: their processes deliver them."),
        ("warning", "3 events in 1 files are waiting: `dbnd sync` or the next `dbnd run` sends them."),
    ]
    living.close()


def test_dead_letters_and_unreadable_files_are_wrong(doctor, server, dbnd):
    journal = Journal(journal_folder(), server.url)
    journal.append("bad", {})
    journal.close()
    server.answer = lambda r: (400 if "bad" in r.path else 200, {}, b"{}")
    env = {"DBND__CORE__DATABAND_URL": server.url, "DBND__CORE__DATABAND_ACCESS_TOKEN": "t"}
    assert dbnd("sync", **env).returncode == 1
    journal_folder().joinpath("x.journal").write_text("nonsense")
    code, findings = doctor(**env)
    assert code == 1
    unreadable, dead = of(findings, "journal")
    assert unreadable[0] == dead[0] == "error"
    assert "x.journal is no journal" in unreadable[1]
    assert "1 events in 1 files are refused" in dead[1]
    assert "--retry-dead" in dead[1]


def test_a_folder_that_cannot_be_written_is_found(doctor, server, home):
    (home / "file").write_text("")
    code, findings = doctor("-c", f"core.databand_url={server.url}", DBND_HOME=str(home / "file"))
    assert code == 1
    ((status, text),) = of(findings, "disk")
    assert status == "error"
    assert "cannot be written" in text


def test_a_configuration_file_that_can_be_read_once_is_enough(tmp_path):
    pipe = tmp_path / "pipe"  # as `--conf-file <(…)` is
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_text, args=[f"[core]\njournal_folder = {tmp_path}\n"], daemon=True)
    writer.start()
    with command_line(conf_files=[str(pipe)]):
        found = list(command.examine())
    assert [f.text for f in found if f.check == "disk" and str(tmp_path) in f.text]


def test_a_folder_that_nobody_may_look_at_is_found(tmp_path):
    folder = tmp_path / ("x" * 300) / "journal"  # refused as a folder of another user is, also to root
    assert find(folder) == []
    assert command._disk(folder).text.endswith(f" are free for {folder}.")


def test_without_json_it_is_a_table(dbnd, server):
    done = dbnd("doctor", "-c", f"core.databand_url={server.url}")
    assert done.returncode == 0
    assert [line.split()[0] for line in done.stdout.splitlines()[1:3]] == ["ok", "ok"]
