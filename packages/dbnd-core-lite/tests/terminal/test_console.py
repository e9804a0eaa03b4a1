"""What commands say and how: verbosity, errors in one style, tables that fit."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

import click
import pytest

from dbnd import UsageError
from dbnd._terminal import console
from dbnd._terminal.logs import clean_logs

ROWS = [("572c4ce6", "a rather long name of a run", "success", "2026-11-27 00:19:09"), ("1", "日本語", "failed", "")]
HEADERS = ("RUN", "NAME", "STATE", "STARTED")


@pytest.fixture
def columns(monkeypatch):
    return lambda number: monkeypatch.setattr(console, "columns", lambda _: number)


def test_nothing_is_cut_where_there_is_no_terminal():
    assert console.table(HEADERS, ROWS).splitlines()[1:] == [
        "572c4ce6  a rather long name of a run  success  2026-11-27 00:19:09",
        "1         日本語                       failed",
    ]


POISON = "\x1b]0;title\x07\x1b[5m\r\x08\x7f\x9b2J\u202e\u2028\u200b\nforged: line"
SEEN = r"\x1b]0;title\x07\x1b[5m\r\x08\x7f\x9b2J\u202e\u2028\u200b\nforged: line"


def show_progress(label):
    with console.progress(label, 10, patience=0.0) as progress:
        progress(5)


def ask(question):
    with pytest.raises(UsageError, match="Nobody has answered"):
        console.is_confirmed(question)


def log(text):
    records = logging.getLogRecordFactory()
    clean_logs()
    logging.getLogger("some.library").warning("%s", text)
    logging.setLogRecordFactory(records)


OUTPUTS = {
    **{name: getattr(console, name) for name in ("info", "success", "warning", "error", "details", "result")},
    "heading": lambda text: console.result(console.heading(text)),
    "dimmed": lambda text: console.result(console.dimmed(text)),
    "title of a table": lambda text: console.result(console.table((text, "B"), [("a", "b")])),
    "cell": lambda text: console.result(console.table(("A", "B"), [(text, "b")])),
    "coloured cell": lambda text: console.result(console.table(("A", "B"), [(text, "b")], colours={text: "red"})),
    "last cell": lambda text: console.result(console.table(("A", "B"), [("a", text)], whole_last=True)),
    "progress": show_progress,
    "question": ask,
}


@pytest.mark.parametrize("colour", ["0", "1"])
@pytest.mark.parametrize("output", OUTPUTS.values(), ids=OUTPUTS)
def test_every_output_shows_what_others_wrote_on_one_line(monkeypatch, capsys, output, colour):
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setenv("FORCE_COLOR", colour)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: colour == "1")
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    if output is show_progress and colour == "0":
        pytest.skip("no progress is shown where there is no terminal")
    output(POISON)
    text = "".join(capsys.readouterr())
    assert SEEN in text
    ours = re.compile(r"\x1b\[(0|1|2|3[0-9]|\?25[lh]|K)m?|\r")  # those of click's bar, too
    assert "".join(c for c in ours.sub("", text) if not c.isprintable() and c != "\n") == ""
    assert "\r" not in text or output is show_progress


@pytest.mark.parametrize("output", [console.excerpt, log])
def test_lines_of_tracebacks_and_logs_stay(monkeypatch, capsys, output):
    if output is log:  # pytest's own handlers keep it from the one of last resort
        handler = logging.StreamHandler(sys.stderr)
        monkeypatch.setattr(logging.getLogger("some.library"), "handlers", [handler])
    output(f"{POISON}\tend\n")
    err = capsys.readouterr().err
    assert err.startswith(SEEN.replace(r"\n", "\n") + "\tend\n")


def test_json_has_its_own_escapes(capsys):
    console.json_result({POISON: [POISON, "é", "\U000e0041"]})
    out = capsys.readouterr().out
    assert json.loads(out) == {POISON: [POISON, "é", "\U000e0041"]}
    assert out.replace("\n", "").isascii()
    assert out.replace("\n", "").isprintable()


def test_columns_stand_under_each_other_once_text_is_cleaned(columns):
    from dbnd._terminal.text import width

    names = [POISON, "日本語", "e\u0301", "plain", "👩\u200d💻"]
    for room in (None, 40):
        columns(room)
        _, *lines = console.table(("NAME", "STATE"), [(name, "done") for name in names]).splitlines()
        assert len({width(line.removesuffix("done")) for line in lines}) == 1


@pytest.mark.parametrize("room", [200, 80, 60, 40, 39, 20, 8, 1])
def test_a_table_fits_the_terminal(columns, room):
    from dbnd._terminal.text import width

    columns(room)
    lines = console.table(HEADERS, ROWS).replace("\x1b[1m", "").replace("\x1b[0m", "").splitlines()
    assert max(map(width, lines)) <= max(room, 8)
    assert lines[1].startswith("572c4ce6"[:room])
    assert ("STARTED" in lines[0]) == (room >= 39)


def test_times_are_whole_or_not_there(columns):
    rows = [(*row, "3.2s", "0.0125") for row in ROWS]
    for room, there, last in (
        (200, True, True),
        (63, True, True),
        (56, True, True),
        (50, False, True),
        (20, False, False),
    ):
        columns(room)
        shown = console.table((*HEADERS, "TOOK", "loss"), rows, uncut=("STARTED", "TOOK"))
        assert ("2026-11-27 00:19:09" in shown, "2026" in shown, "0.0125" in shown) == (there, there, last), room
    columns(50)
    assert "a rather long name of" in console.table((*HEADERS, "TOOK", "loss"), rows, uncut=("STARTED", "TOOK"))


def test_addresses_are_whole(columns):
    columns(30)
    url = "http://localhost:8080/app/jobs/a/b"
    assert url in console.table(("LINK", "PLACE"), [("mlflow", url)], whole_last=True)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ([], ["info", "success", "warning", "error", "details"]),
        (["-v"], ["info", "success", "warning", "error", "details"]),
        (["-v", "-q"], ["info", "success", "warning", "error", "details"]),
        (["-q"], ["warning", "error"]),
        (["-qq"], ["error"]),
        (["-qqqq"], ["error"]),
    ],
)
def test_verbosity_adds_up(monkeypatch, capsys, flags, said):
    from click.testing import CliRunner

    from dbnd._cli.main import add_common_options

    monkeypatch.setattr(console, "_verbosity", 0)

    @click.command()
    def command():
        for kind in ("info", "success", "warning", "error", "details"):
            getattr(console, kind)(f"<{kind}>")

    add_common_options(command)
    add_common_options(command)  # a command that is asked for twice has them once
    done = CliRunner().invoke(command, flags)
    assert done.exit_code == 0, done.output
    assert [line.split("<")[1].rstrip(">") for line in done.stderr.splitlines()] == said


def test_a_task_keeps_its_own_long_options(dbnd, tmp_path):
    (tmp_path / "work" / "own.py").write_text(
        "from dbnd import task\n@task\ndef own(verbose: int = 0, quiet: bool = False, v: str = ''):\n"
        "    print('given', verbose, quiet, v)\n"
    )
    done = dbnd("run", "own.own", "--verbose", "3", "--quiet", "--v", "x", "-q")
    assert done.returncode == 0
    assert "given 3 True x" in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["rnu"], "No such command 'rnu'. Did you mean 'run'? `dbnd --help` shows how it is used."),
        (["--nothing"], "No such option '--nothing'. `dbnd --help` shows how it is used."),
        (["completion", "tcsh"], "'tcsh' is not one of 'bash', 'zsh', 'fish'."),
        (["config", "show", "nothing.at.all"], "There is no section or key 'nothing.at.all'"),
    ],
)
def test_wrong_usage_is_one_sentence(dbnd, arguments, sentence):
    done = dbnd(*arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("dbnd: error: ")
    assert sentence in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize("flag", [(), ("-v",)])
def test_a_mistake_of_ours_is_a_sentence_too(python, flag):
    code = (
        "import sys\nfrom dbnd._cli import config, main\n"
        "def broken(): raise KeyError('within')\n"
        "config.plugin_manager = broken\n"
        f"sys.argv = ['dbnd', *{flag!r}, 'plugins']\nmain.main()\n"
    )
    done = python(code)
    assert done.returncode == 1
    assert "KeyError: 'within'" in done.stderr
    assert "please report it" in done.stderr
    assert ("Traceback" in done.stderr) == (flag == ("-v",))


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", ">&- 2>&-"])
def test_a_closed_stream_is_no_error(closed, server):
    Path("plain.py").write_text("from dbnd import task\n@task\ndef plain():\n    print('hello')\n")
    script = str(Path(sysconfig.get_path("scripts")) / "dbnd")
    env = {**os.environ, "DBND__CORE__DATABAND_URL": server.url, "DBND__CORE__DATABAND_ACCESS_TOKEN": "t"}
    command = ["bash", "-c", f"{script} run plain.plain {closed}"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stderr
    assert [r.body["state"] for r in server.requests if r.path.endswith("/set_run_state")] == ["RUNNING", "SUCCESS"]


def test_an_encoding_without_our_characters_is_no_error(python):
    code = "from dbnd import task\n@task\ndef inner(): pass\n@task\ndef outer(): inner()\n"
    Path("nested.py").write_text(code)
    for arguments in (["run", "nested.outer"], ["runs", "show", "latest"]):
        done = python(  # what PYTHONIOENCODING does
            "import sys\nfrom dbnd._cli.main import main\n"
            "sys.stdout.reconfigure(encoding='ascii', errors='strict')\n"
            "sys.stderr.reconfigure(encoding='ascii', errors='backslashreplace')\n"
            f"sys.argv = ['dbnd', *{arguments!r}]\nmain()\n"
        )
        assert done.returncode == 0, done.stderr
    assert "??? inner" in done.stdout
