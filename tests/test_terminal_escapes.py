"""What others have written reaches no terminal as it is: the real commands over a tracker that is full of escapes."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import logging
import os
import re
import shutil
import sqlite3
import sys
import threading
import unicodedata
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from kit.warm import Warm
from mlflow import MlflowClient

from dbnd._cli.main import main
from dbnd_mlflow import build_composite_uri
from dbnd_tracker._cli.references import complete_run

# A title, a clipboard, a colour that we have not, a line that is written over, the direction of text, the unseen.
POISON = (
    "n\x1b]0;owned\x07\x1b]52;c;aGk=\x1b\\\x1b[5mblink\x1b[2J\rover\x08\x08\x7f\x9b2J\x9d0;c1\x9c\x0e"
    "\u202etxt.exe\u2066\u200f\u2028\u2029\u200b\u200d\u2060\ufeff\u00ad\u3164\U000e0041\x85\x0b\nforged: line\tend"
)
SEEN = r"n\x1b]0;owned\x07\x1b]52;c;aGk=\x1b\\x1b[5mblink\x1b[2J\rover\x08\x08\x7f\x9b2J"
# What a tracker answers is put on one line before it is shown: up to its first line break.
SEEN_FOLDED = SEEN.partition("\\r")[0]
OURS = re.compile(r"\x1b\[(?:0|1|2|3[0-9])m")
FILL = f"""
import mlflow, sys
from dbnd import dbnd_tracking, log_metric, task
P = {POISON!r}
with dbnd_tracking(job_name=P + "job", run_name=P + "run"):
    print(P)
    log_metric(P + "param", P + "value")
    log_metric(P + "metric", 1.0)
    log_metric(P + "text", P + "is no number")
    @task
    def inner(argument=P):
        log_metric("n", 1)
    inner()
    with mlflow.start_run(run_name=P + "mlflow", description=P + "note") as run:
        mlflow.set_tag("tag", P + "tag")
        mlflow.log_param("p", P + "own")
        mlflow.log_text("x", "a.txt")
    raise ValueError(P + "error")
"""
Dbnd = Callable[..., tuple[str, str]]


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory, warm: Warm, empty_database: Path) -> dict[str, str]:
    """The environment of an embedded tracker and an MLflow store that hold two runs full of escapes."""
    folder = tmp_path_factory.mktemp("full")
    own = f"sqlite:///{shutil.copy(empty_database, folder / 'mlflow.db')}"
    env = {"HOME": str(folder), "DBND_HOME": str(folder / "dbnd"), "MLFLOW_TRACKING_URI": own}
    both = build_composite_uri(f"sqlite:///{folder / 'dbnd/tracker.db'}", own)
    # What MLflow has put there for an earlier test of this process names an experiment of another store.
    outer = {name: value for name, value in os.environ.items() if not name.startswith(("DBND", "MLFLOW"))}
    filling = {**outer, **env, "MLFLOW_TRACKING_URI": both}
    for _ in range(2):
        process = warm.start({"code": FILL}, folder / "log", env=filling)
        assert process.wait() == 1
        assert "ValueError" in process.output, process.output
    with contextlib.closing(sqlite3.connect(folder / "dbnd/tracker.db")) as database, database:
        database.execute("UPDATE runs SET end_time = '2026-01-01 00:00:00.000000'")  # some time ago
    return env


@pytest.fixture
def dbnd_here(
    full: dict[str, str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Iterator[Dbnd]:
    """Call the command line, with colours, over the tracker of ``full``; returns both streams."""
    for name, value in (full | {"FORCE_COLOR": "1"}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("NO_COLOR")

    def call(*words: str) -> tuple[str, str]:
        monkeypatch.setattr(sys, "argv", ["dbnd", *words])
        monkeypatch.setattr(sys, "stdin", io.StringIO("n\n"))
        with pytest.raises(SystemExit):
            main()
        return capfd.readouterr()

    records = logging.getLogRecordFactory()
    yield call
    logging.setLogRecordFactory(records)


def is_harmless(text: str) -> bool:
    """Whether a terminal shows ``text`` and does nothing else: no control, format or unknown character, all visible."""
    return not any(
        unicodedata.category(c) in {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"} or c == "\u3164"
        for c in text.replace("\n", "")
    )


def check(text: str) -> str:
    """``text``, if it is harmless but for our colours and nobody else begins a line in it."""
    assert is_harmless(OURS.sub("", text)), text
    assert not re.search("^forged", text, re.MULTILINE), text
    return text


@pytest.mark.parametrize(
    ("words", "shows"),
    [
        ("runs list", True),
        ("runs show latest", True),
        ("runs show POISON", False),
        ("runs compare ALL --all", True),
        ("runs compare ALL POISON", False),
        ("runs open latest --print", False),
        ("runs delete ALL", True),
        ("runs list --where POISON", True),
        ("runs list --where params.p<<POISON", True),
        ("runs list --state POISON", False),
        ("runs list --since POISON", False),
        ("runs export latest", False),
        ("runs export latest --format csv -o FILE", True),
        ("tracker gc --older-than 1s --dry-run", True),
        ("tracker gc --older-than POISON", False),
        ("tracker backup FILE", True),
        ("tracker token revoke POISON", False),
        ("tracker start --host POISON", True),
        ("mlflow verify", False),
        ("mlflow verify --experiment POISON", False),
        ("mlflow import --from POISON", True),
        ("run POISON", False),
        ("run nothing.here --set POISON", False),
        ("sync --conf-file POISON", True),
        ("doctor -c core.databand_url=POISON", True),
        ("config show -c core.databand_url=POISON", True),
        ("config show POISON", False),
        ("POISON", False),
        ("runs list POISON", True),
    ],
)
def test_no_command_lets_escapes_through(dbnd_here: Dbnd, tmp_path: Path, words: str, shows: bool) -> None:
    given: list[str] = []
    for word in words.split():
        if word == "ALL":
            given += [run["run_uid"] for run in json.loads(dbnd_here("runs", "list", "--json")[0])]
        else:
            given.append(word.replace("FILE", str(tmp_path / POISON.replace("/", ""))).replace("POISON", POISON))
    text = check("".join(dbnd_here(*given)))
    assert (r"\x1b" in text) or not shows, text
    assert "mistake in dbnd" not in text


def test_tables_and_sentences_show_what_was_written(dbnd_here: Dbnd) -> None:
    shown, _ = dbnd_here("runs", "show", "latest")
    for what in ("run", "job", "metric", "error", "mlflow", "note", "tag", "own"):
        assert rf"\nforged: line\tend{what}" in shown, what
    _, asked = dbnd_here("runs", "delete", "latest")
    assert r"\nforged: line\tendrun" in asked


def test_labels_of_tokens_are_cleaned(dbnd_here: Dbnd) -> None:
    check("".join(dbnd_here("tracker", "token", "create", POISON)))
    assert SEEN in check("".join(dbnd_here("tracker", "token", "list")))
    (token,) = json.loads(check("".join(dbnd_here("tracker", "token", "list", "--json"))))
    assert token["label"] == POISON
    assert r"n\x1b]0;owned\x07" in check("".join(dbnd_here("tracker", "token", "revoke", token["uid"])))


def test_columns_stand_under_each_other(dbnd_here: Dbnd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    lines = dbnd_here("runs", "list")[0].splitlines()
    assert len(lines) == 3
    for title in ("JOB", "STATE", "STARTED"):
        place = lines[0].index(title)
        assert all(line[place - 1] == " " and line[place] != " " for line in lines[1:])


def test_json_and_csv_hold_what_was_logged(dbnd_here: Dbnd) -> None:
    shown, _ = dbnd_here("runs", "show", "latest", "--json")
    check(shown)
    root = next(task for task in json.loads(shown)["task_runs"] if task["is_root"])
    metrics = {metric["key"]: metric["last_value"] for metric in root["metrics"]}
    assert metrics[f"{POISON}text"] == f"{POISON}is no number"
    exported, _ = dbnd_here("runs", "export", "latest", "--format", "csv")
    rows = {row["metric"]: row["text"] for row in csv.DictReader(io.StringIO(exported, newline=""))}
    assert rows[f"{POISON}text"] == f"{POISON}is no number"


def test_csv_on_a_terminal_is_csv_with_escapes(dbnd_here: Dbnd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    exported, _ = dbnd_here("runs", "export", "latest", "--format", "csv")
    assert is_harmless(exported.replace("\t", ""))
    rows = {row["metric"]: row["text"] for row in csv.DictReader(io.StringIO(exported, newline=""))}
    assert any(key.startswith(SEEN) and text.endswith("is no number") for key, text in rows.items())


def test_a_difference_and_a_run_in_another_store_are_shown_cleaned(dbnd_here: Dbnd, full: dict[str, str]) -> None:
    client = MlflowClient(full["MLFLOW_TRACKING_URI"])
    run = client.search_runs(["0"])[0]
    client.set_tag(run.info.run_id, "new", f"{POISON}elsewhere")
    shown = check("".join(dbnd_here("mlflow", "verify", run.info.run_id)))
    assert SEEN[:40] in shown
    client.delete_tag(run.info.run_id, "new")


class _Refusing(BaseHTTPRequestHandler):
    """Answers everything with 400 and escapes."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = POISON.encode()
        self.send_response(400)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_DELETE = do_POST  # noqa: N815

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@pytest.fixture
def refusing(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a tracker that answers everything with 400 and escapes."""
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), _Refusing)
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    url = f"http://127.0.0.1:{httpd.server_port}"
    monkeypatch.setenv("DBND__CORE__DATABAND_URL", url)
    monkeypatch.setenv("DBND__CORE__DATABAND_ACCESS_TOKEN", "t")
    yield url
    httpd.shutdown()
    thread.join()
    httpd.server_close()


@pytest.mark.usefixtures("refusing")
@pytest.mark.parametrize(
    "words",
    [
        "runs list",
        "runs show latest",
        "runs delete latest",
        "doctor",
        "mlflow verify",
        "mlflow import --from OWN",
    ],
)
def test_what_a_tracker_answers_is_cleaned(dbnd_here: Dbnd, full: dict[str, str], words: str) -> None:
    given = [full["MLFLOW_TRACKING_URI"] if word == "OWN" else word for word in words.split()]
    assert SEEN_FOLDED in check("".join(dbnd_here(*given)))


TASK = f"""
from dbnd import log_metric, task
P = {POISON!r}
@task
def fails(text=P):
    log_metric(P + "key", 1.0)
    log_metric(P + "key", 2.0)
    raise ValueError(P)
fails.__name__ = P
"""


@pytest.mark.usefixtures("refusing")
def test_a_run_that_fails_at_a_tracker_that_refuses_it(dbnd: Callable[..., Any]) -> None:
    Path("poisoned.py").write_text(TASK)
    done = dbnd("run", "poisoned.fails", "--job-name", f"{POISON}job", "--run-name", f"{POISON}run", FORCE_COLOR="1")
    assert done.returncode == 10
    assert is_harmless(OURS.sub("", done.stderr).replace("\t", ""))
    for what in (f"ValueError: {SEEN}", f"Run {SEEN}", f"it answered 400: {SEEN_FOLDED}"):
        assert what in done.stderr
    check(dbnd("sync", "--list").stdout)


def test_the_block_that_changes_in_place(terminal: Callable[..., Any]) -> None:
    wait = "    import time\n    log_metric(P + 'key', 1.0)\n    time.sleep(3)\n"
    Path("poisoned.py").write_text(TASK.replace("    raise ValueError(P)\n", wait))
    shown = terminal("run", "poisoned.fails", "--job-name", POISON, "--run-name", POISON, columns=200, lines=40)
    shown.wait_for(lambda lines: any("●" in line and r"\x1b" in line for line in lines))
    shown.end()
    assert b"owned\x07" not in shown.output
    assert b"\x1b[5m" not in shown.output
    assert "\u202e".encode() not in shown.output
    assert "\x9b".encode() not in shown.output


def test_completion_of_a_run_is_one_line(dbnd_here: Dbnd) -> None:
    del dbnd_here
    items = complete_run(None, None, "")
    assert sum(SEEN in item.help for item in items) == 2
    for item in items:
        assert is_harmless(item.help)
        assert "\n" not in item.help


def test_what_libraries_log_is_cleaned(python: Callable[..., Any]) -> None:
    code = (
        "import logging, sys\nfrom dbnd._cli import config, main\n"
        f"P = {POISON!r}\n"
        "def log():\n"
        "    try:\n        raise ValueError(P)\n"
        "    except ValueError:\n        logging.getLogger('some.library').exception('said %s', P)\n"
        "    raise KeyError(P)\n"
        "config.plugin_manager = log\nsys.argv = ['dbnd', 'plugins', '-v']\nmain.main()\n"
    )
    done = python(code, PYTHONIOENCODING="utf-8")
    assert is_harmless(done.stderr.replace("\t", ""))
    assert f"said {SEEN}" in done.stderr
    assert f"ValueError: {SEEN}" in done.stderr
