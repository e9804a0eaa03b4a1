from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sysconfig
from pathlib import Path

import click
import pytest
from pydantic import BaseModel, field_validator

from dbnd import new_dbnd_context
from dbnd._cli.parameters import parse, task_command
from dbnd._cli.progress import RunProgress
from dbnd._cli.run import _execute
from dbnd._cli.summary import tell_end
from dbnd._run.execution import new_run
from dbnd._run.task import Task

TASKS = '''
import sys, time
from enum import Enum
from dbnd import task, log_metric, current_task_run
from pydantic import BaseModel

class Colour(Enum):
    red = "red"

class Options(BaseModel):
    depth: int

@task
def main(n: int = 3, rate: float = 0.5, names: list[str] = [], flag: bool = False, colour: Colour = Colour.red,
         options: Options = Options(depth=1), text=None, guessed=7):
    """Prints what it was given."""
    log_metric("n", n)
    print("given", repr((n, rate, names, flag, colour, options, text, guessed)))
    return n

@task
def required(path: str):
    return path

@task
def fails():
    print("about to fail")
    helper()

def helper():
    raise ValueError("boom")

@task
def exits(code: int):
    sys.exit(code)

@task
async def asynchronous():
    return 5

@task
def waits():
    print("waiting", flush=True)
    time.sleep(60)

@task
def prints():
    print("first line", file=sys.stderr)
    inner()

@task
def inner():
    print("inner password=hunter2")

def no_task():
    pass
'''


@pytest.fixture(autouse=True)
def tasks():
    Path("tasks.py").write_text(TASKS)


@pytest.fixture
def run(dbnd, server):
    """Run a task, tracked by the scripted server."""

    def run(*args, **env):
        return dbnd(*("run", *args), DBND__CORE__DATABAND_URL=server.url, DBND__CORE__DATABAND_ACCESS_TOKEN="t", **env)

    return run


@pytest.fixture
def conf(free_port):
    """A tracker that is down."""
    return {"core": {"databand_url": f"http://127.0.0.1:{free_port}", "flush_timeout": 0}}


def bodies(server, call):
    return [body for name, body in server.tracked() if name == call]


@pytest.mark.parametrize("target", ["tasks.main", "tasks.py::main", "./tasks.py::main"])
def test_a_task_is_found_by_module_and_by_file(run, server, target):
    done = run(target)
    assert done.returncode == 0, done.stderr
    assert "given (3, 0.5" in done.stdout
    assert server.calls()[:3] == ["init_run", "set_run_state", "update_task_run_attempts"]
    assert [body["state"] for body in bodies(server, "set_run_state")] == ["RUNNING", "SUCCESS"]


def test_parameters_are_converted_by_their_types(run, server):
    done = run(
        *("tasks.main", "--n", "4", "--rate=0.25", "--names", '["a", "b"]', "--flag", "--colour", "red"),
        *("--options", '{"depth": 3}', "--text", "t", "--set", "guessed=8"),
    )
    assert done.returncode == 0, done.stderr
    assert "given (4, 0.25, ['a', 'b'], True, <Colour.red: 'red'>, Options(depth=3), 't', 8)" in done.stdout
    (init,) = bodies(server, "init_run")
    (task_run,) = init["init_args"]["task_runs_info"]["task_runs"]
    params = {p["parameter_name"]: p["value"] for p in task_run["task_run_params"]}
    assert params["n"] == "4"
    assert params["names"] == "['a', 'b']"
    assert bodies(server, "log_metrics")[0]["metrics_info"][0]["metric"]["value"] == 4


@pytest.mark.parametrize(
    ("words", "given"),
    [
        (["--sizes", "2", "--sizes", "4"], ([2, 4], None, None, ())),
        (["--sizes", "[2, 4]", "--names", "a"], ([2, 4], ["a"], None, ())),
        (["--names", '["a", "b"]', "--names", "c"], ([1], ['["a", "b"]', "c"], None, ())),
        (["--either", "3", "--pair", "1", "--pair", "x"], ([1], None, 3, (1, "x"))),
        (["--either", "3", "--either", "4", "--pair", '[1, "x"]'], ([1], None, [3, 4], (1, "x"))),
        (["--sizes=2", "--sizes=4"], ([2, 4], None, None, ())),
    ],
)
def test_a_list_is_given_by_repetition_or_as_json(words, given):
    def several(sizes: list[int] = [1], names: list[str] | None = None, either: int | list[int] | None = None,  # noqa: B006
                pair: tuple[int, str] | tuple[()] = ()):  # fmt: skip
        ...

    assert parse(task_command(Task(several), "t"), words) == {
        name: value
        for name, value in zip(("sizes", "names", "either", "pair"), given, strict=True)
        if any(word.startswith(f"--{name}") for word in words)
    }


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["2", "x"], "it takes list[int], not '2, x': input should be a valid integer"),
        (["x"], "it takes list[int], not 'x': input should be a valid integer"),
        (['[2, "x"]'], "not '[2, \"x\"]': input should be a valid integer"),
    ],
)
def test_a_bad_value_of_a_list_is_named(words, sentence):
    def several(sizes: list[int]): ...

    with pytest.raises(click.BadParameter, match=re.escape(sentence)):
        parse(task_command(Task(several), "t"), [text for word in words for text in ("--sizes", word)])


def test_options_of_dbnd_may_stand_behind_those_of_the_task(run, server):
    done = run(
        "tasks.main", "--n", "1", "--job-name", "j", "--run-name", "r", "--project", "p", "-c", "run_info.user=u"
    )
    assert done.returncode == 0, done.stderr
    info = bodies(server, "init_run")[0]["init_args"]["new_run_info"]
    assert (info["job_name"], info["name"], info["project_name"], info["user"]) == ("j", "r", "p", "u")
    assert info["dag_id"] == "DBND_RUN.j"


@pytest.mark.parametrize(
    ("args", "code", "sentence"),
    [
        (["nothing"], 2, "There is no task 'nothing'"),
        (["tasks.mian"], 2, "Did you mean 'main'?"),
        (["tasks.no_task"], 2, "decorate 'no_task' with @task"),
        (["nowhere.main"], 2, "There is no module 'nowhere'"),
        (["tasks.sub.main"], 2, "There is no module 'tasks.sub'"),
        (["gone.py::main"], 2, "There is no file 'gone.py'"),
        (["tasks.py"], 2, "names a file but no task. Its tasks: asynchronous, exits"),
        (
            ["tasks.main", "--n", "x"],
            2,
            "Invalid value for '--n': it takes int, not 'x': input should be a valid integer",
        ),
        (["tasks.main", "--colour", "blue"], 2, "it takes Colour, not 'blue'"),
        (["tasks.main", "--nn", "1"], 2, "'--nn'. Did you mean '--n'?"),
        (["tasks.main", "--n"], 2, "Option '--n' requires an argument"),
        (["tasks.main", "stray"], 2, "unexpected extra argument (stray)"),
        (["tasks.required"], 2, "Missing option '--path'."),
        (["tasks.main", "--set", "n"], 2, "Option '--n' requires an argument"),
        (["tasks.main", "-c", "core.databnad_url=x"], 8, "Did you mean 'core.databand_url'?"),
        (["tasks.main", "-c", "corre.databand_url=x"], 8, "The section [corre] (--set-config) does not exist"),
        (["tasks.main", "-c", "core.flush_timeout=x"], 8, "core.flush_timeout = 'x' (--set-config) cannot be used"),
        (["tasks.main", "-c", "core.databand_url=h"], 8, "a URL such as http://localhost:8080 is needed"),
        (["tasks.main", "--conf-file", "no.cfg"], 8, "'no.cfg' given with --conf-file does not exist"),
    ],
)
def test_bad_input_is_one_sentence_and_the_right_exit_code(run, server, args, code, sentence):
    done = run(*args)
    assert done.returncode == code, done.stderr
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert server.requests == []


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("1 / 0", "ZeroDivisionError"),
        ("import nowhere_else", "No module named 'nowhere_else'"),
        ("x = (", "SyntaxError"),
        ("import sys\nsys.exit(0)", "SystemExit: 0"),
    ],
)
@pytest.mark.parametrize("target", ["broken.main", "broken.py::main"])
def test_a_module_that_cannot_be_imported_shows_its_own_traceback(run, code, error, target):
    Path("broken.py").write_text(f"from dbnd import task\n{code}\n")
    done = run(target)
    assert done.returncode == 2
    assert error in done.stderr
    assert "broken.py" in done.stderr
    assert "/dbnd/_" not in done.stderr
    assert "importlib" not in done.stderr


def test_a_failing_run_shows_the_users_traceback_and_exits_with_10(run, server):
    done = run("tasks.fails")
    assert done.returncode == 10
    assert 'raise ValueError("boom")' in done.stderr
    assert "/dbnd/_" not in done.stderr
    assert [body["state"] for body in bodies(server, "set_run_state")] == ["RUNNING", "FAILED"]
    updates = [u for b in bodies(server, "update_task_run_attempts") for u in b["task_run_attempt_updates"]]
    assert [u["state"] for u in updates] == ["RUNNING", "FAILED"]
    assert updates[-1]["error"]["msg"] == "boom"
    assert server.calls()[-1] == "set_unfinished_tasks_state"


@pytest.mark.parametrize(("code", "exit_code", "state"), [(0, 0, "SUCCESS"), (3, 10, "FAILED")])
def test_sys_exit_in_a_task(run, server, code, exit_code, state):
    assert run("tasks.exits", "--code", str(code)).returncode == exit_code
    assert bodies(server, "set_run_state")[-1]["state"] == state


class Unspeakable(BaseException):
    """An error that is no Exception, as those of cancelled coroutines, and cannot be put into words."""

    def __str__(self):
        raise ValueError("no words")

    __repr__ = __str__


def unspeakable():
    raise Unspeakable


def test_a_task_may_raise_anything(conf, capsys):
    with new_dbnd_context(conf) as context:
        run = new_run(context.config, "job", "run")
        progress = RunProgress(run, context.client)
        failure = _execute(context, run, Task(unspeakable), {})
        progress.update()
    assert type(failure) is Unspeakable
    tell_end(progress, failure)
    assert f"Run {run.name} failed" in (said := capsys.readouterr().err)
    assert "Unspeakable: <Unspeakable whose text form raises ValueError>" in said


def test_parameters_that_can_only_be_given_by_position_are_options_too(conf):
    given = []

    def function(a: int, b: int = 2, /, c: int = 3):
        given.append((a, b, c))

    task = Task(function)
    with new_dbnd_context(conf) as context:
        run = new_run(context.config, "job", "run")
        assert _execute(context, run, task, parse(task_command(task, "t"), ["--a", "1", "--c", "4"])) is None
    assert given == [(1, 2, 4)]
    assert run.root is not None
    assert run.root.params == {"a": "1", "b": "2", "c": "4"}


class Picky(BaseModel):
    a: int

    @field_validator("a")
    @classmethod
    def picky(cls, _: int) -> int:
        raise RuntimeError("not today")


def test_a_type_that_raises_while_it_is_made_is_bad_input():
    def function(a: Picky):
        pass

    command = task_command(Task(function), "t")
    with pytest.raises(click.BadParameter, match="it takes Picky, which cannot be made of text: not today"):
        parse(command, ["--a", '{"a": 1}'])


def test_a_default_that_has_no_text_form_is_shown_as_such():
    def function(a=Unspeakable()):  # noqa: B008
        pass

    (option,) = task_command(Task(function), "t").params
    assert isinstance(option, click.Option)
    assert (option.help or "").startswith("[default: <Unspeakable instance at ")


def test_a_coroutine_is_run(run, server):
    assert run("tasks.asynchronous").returncode == 0
    assert bodies(server, "log_targets")[0]["targets_info"][0]["value_preview"] == "5"


def test_what_tasks_print_is_their_log_with_secrets_masked(run, server):
    done = run("tasks.prints")
    assert "inner password=hunter2" in done.stdout  # the terminal is the user's own
    logs = {b["task_run_attempt_uid"]: b["log_body"] for b in bodies(server, "save_task_run_log")}
    assert sorted(logs.values()) == ["first line\n", "inner password=***\n"]


def test_logs_keep_head_and_tail(run, server):
    run("tasks.prints", "-c", "log.preview_head_bytes=3", "-c", "log.preview_tail_bytes=4")
    texts = [b["log_body"] for b in bodies(server, "save_task_run_log")]
    assert "fir\n... (4 characters left out) ...\nine\n" in texts


def test_log_capture_can_be_switched_off(run, server):
    run("tasks.prints", DBND__LOG__CAPTURE_TRACKING_LOG="false")
    assert bodies(server, "save_task_run_log") == []


def test_sigterm_cancels_the_run(server):
    env = {**os.environ, "DBND__CORE__DATABAND_URL": server.url, "DBND__CORE__DATABAND_ACCESS_TOKEN": "t"}
    command = [str(Path(sysconfig.get_path("scripts")) / "dbnd"), "run", "tasks.waits"]
    process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    while "waiting" not in process.stdout.readline():
        assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 10, stderr
    assert bodies(server, "set_run_state")[-1]["state"] == "CANCELLED"
    assert "was cancelled" in stderr


def test_an_unreachable_tracker_lets_the_task_run(dbnd, free_port, home):
    done = dbnd("run", "tasks.main", DBND__CORE__DATABAND_URL=f"http://127.0.0.1:{free_port}")
    assert done.returncode == 0
    assert "given (3" in done.stdout
    assert "events are not delivered" in done.stderr
    (journal,) = (home / "dbnd/journal").glob("*.journal")
    assert str(journal) in done.stderr
    calls = [json.loads(line[9:])[0] for line in journal.read_bytes().splitlines()[1:]]
    assert calls[0] == "init_run"
    assert "log_metrics" in calls
    assert calls[-1] == "set_run_state"


def test_a_misspelt_key_in_a_file_does_not_stop_the_run(run, home):
    (home / "dbnd").mkdir()
    (home / "dbnd/databand.cfg").write_text("[core]\nflush_timeuot = 3\n")
    done = run("tasks.main")
    assert done.returncode == 0
    assert "databand.cfg, line 2" in done.stderr
    assert "Did you mean 'core.flush_timeout'?" in done.stderr


def test_help_of_a_task_lists_its_parameters(dbnd):
    done = dbnd("run", "tasks.main", "--help")
    assert done.returncode == 0
    assert "--set-config" in done.stdout
    for text in ("--n", "int", "list[str]", "Colour.red"):
        assert text in done.stdout
    assert re.search(r"^Parameters of tasks\.main:$", done.stdout, re.MULTILINE)
    assert re.search(r"^  --rate float +\[default: 0\.5\]$", done.stdout, re.MULTILINE)
    assert """[default: []] Repeat it, or give '["a", "b"]'.""" in " ".join(done.stdout.split())
    assert dbnd("run").returncode == 2


def test_help_of_dbnd_imports_nothing_heavy(cold_python):
    code = (
        "import sys\n"
        "sys.argv = ['dbnd', '--help']\n"
        "before = len(sys.modules)\n"
        "from dbnd._cli.main import main\n"
        "try: main()\n"
        "except SystemExit as done: assert done.code in (None, 0)\n"
        "heavy = {'mlflow', 'requests', 'sqlalchemy', 'fastapi', 'pydantic', 'alembic', 'uvicorn', 'asyncio'}\n"
        "print('HEAVY', sorted(heavy & set(sys.modules)))\n"
        "print('IMPORTED', len(sys.modules) - before)\n"
    )
    done = cold_python(code)
    assert "HEAVY []" in done.stdout, done.stdout + done.stderr
    # A guard against what creeps in: click and its own imports are most of them.
    assert int(done.stdout.split()[-1]) < 250
    assert "config" in done.stdout


@pytest.mark.parametrize("command", [[], ["config"], ["runs"], ["tracker"], ["tracker", "token"], ["mlflow"]])
def test_a_group_alone_shows_its_help(dbnd, command):
    done = dbnd(*command)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == dbnd(*command, "--help").stdout


def test_init_writes_every_key_as_a_comment(dbnd, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    where = {"HOME": str(tmp_path), "DBND_HOME": ""}
    defaults = json.loads(dbnd("config", "show", "--json", **where).stdout)
    done = dbnd("init", **where)
    assert done.returncode == 0, done.stderr
    text = Path("databand.cfg").read_text()
    assert json.loads(dbnd("config", "show", "--json", **where).stdout) == defaults
    again = dbnd("init", **where)
    assert (again.returncode, Path("databand.cfg").read_text()) == (2, text)
    assert "databand.cfg exists already" in again.stderr
    # Without the signs, the file sets every key to what it is by default.
    Path("databand.cfg").write_text(re.sub(r"^#(?=\S)", "", text, flags=re.MULTILINE))
    shown = json.loads(dbnd("config", "show", "--json", **where).stdout)
    assert [{**row, "source": "default", "value": row["value"].removesuffix(".0")} for row in shown] == [
        {**row, "value": row["value"].removesuffix(".0")} for row in defaults
    ]
    assert all("databand.cfg, line" in row["source"] for row in shown)


def test_init_sets_what_the_command_line_says(dbnd, tmp_path):
    settings = ("core.databand_url=http://h:1", "run.heartbeat_interval_s=3", "run_info.description=a\nb")
    done = dbnd("init", *(f"-c{setting}" for setting in settings), DBND_HOME=f"{tmp_path}/new")
    assert done.returncode == 0, done.stderr
    lines = (tmp_path / "new/databand.cfg").read_text().splitlines()
    set_lines = [line for line in lines if line and line[0] not in "#["]
    assert set_lines == ["databand_url = http://h:1", "heartbeat_interval_s = 3", "description = a", "    b"]
    refused = dbnd("init", DBND_HOME=str(tmp_path / "new/databand.cfg"))
    assert refused.returncode == 1
    assert "cannot be written" in refused.stderr


def test_an_unknown_command_is_a_usage_error(dbnd):
    done = dbnd("nothing")
    assert done.returncode == 2
    assert "No such command 'nothing'" in done.stderr


def test_a_pipe_that_closes_early_is_no_error():
    command = f"{Path(sysconfig.get_path('scripts')) / 'dbnd'} config show | head -n 1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr
