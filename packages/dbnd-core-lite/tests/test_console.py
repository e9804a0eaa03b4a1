"""What commands say and how: verbosity, errors in one style, tables that fit."""

from __future__ import annotations

import os
import subprocess
import sysconfig
from pathlib import Path

import pytest

from dbnd import _console

ROWS = [("572c4ce6", "a rather long name of a run", "success", "2026-11-27 00:19:09"), ("1", "日本語", "failed", "")]
HEADERS = ("RUN", "NAME", "STATE", "STARTED")


@pytest.fixture
def columns(monkeypatch):
    return lambda number: monkeypatch.setattr(_console, "columns", lambda _: number)


def test_nothing_is_cut_where_there_is_no_terminal():
    assert _console.table(HEADERS, ROWS).splitlines()[1:] == [
        "572c4ce6  a rather long name of a run  success  2026-11-27 00:19:09",
        "1         日本語                       failed",
    ]


@pytest.mark.parametrize("room", [200, 80, 60, 40, 39, 20, 8, 1])
def test_a_table_fits_the_terminal(columns, room):
    from dbnd._terminal.text import width

    columns(room)
    lines = _console.table(HEADERS, ROWS).replace("\x1b[1m", "").replace("\x1b[0m", "").splitlines()
    assert max(map(width, lines)) <= max(room, 8)
    assert lines[1].startswith("572c4ce6"[:room])
    assert ("STARTED" in lines[0]) == (room >= 39)


def test_addresses_are_whole(columns):
    columns(30)
    url = "http://localhost:8080/app/jobs/a/b"
    assert url in _console.table(("LINK", "PLACE"), [("mlflow", url)], whole_last=True)


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
    import click
    from click.testing import CliRunner

    from dbnd._cli.verbosity import add_verbosity_options

    monkeypatch.setattr(_console, "_verbosity", 0)

    @click.command()
    def command():
        for kind in ("info", "success", "warning", "error", "details"):
            getattr(_console, kind)(f"<{kind}>")

    add_verbosity_options(command)
    add_verbosity_options(command)  # a command that is asked for twice has them once
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
        "import sys\nfrom dbnd._cli import main, plugins\n"
        "def broken(): raise KeyError('within')\n"
        "plugins.plugin_manager = broken\n"
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


def test_an_encoding_without_our_characters_is_no_error(dbnd):
    code = "from dbnd import task\n@task\ndef inner(): pass\n@task\ndef outer(): inner()\n"
    Path("nested.py").write_text(code)
    assert dbnd("run", "nested.outer", PYTHONIOENCODING="ascii").returncode == 0
    done = dbnd("runs", "show", "latest", PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert "??? inner" in done.stdout
