"""What a person sees of ``dbnd run``: real runs in a real pseudo-terminal, and the screen compared line by line."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

TASKS = '''
import os, subprocess, sys, time
from pathlib import Path
from dbnd import task, log_metric, log_metrics

def hold(name):
    """Stay until the test has seen what it wants to see."""
    deadline = time.monotonic() + 90
    while not Path(name).exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)

@task
def load(path="data.csv"):
    print("loading", path)

@task
def fit(epochs: int):
    for epoch in range(epochs):
        log_metrics({"loss": 1 / 2 ** epoch, "accuracy": 1 - 1 / 2 ** epoch}, step=epoch)
    print("fitted")
    hold("fit")

@task
def train(epochs: int = 4, fail: bool = False):
    load()
    fit(epochs)
    if fail:
        raise ValueError("the data is bad")

@task
def read(n: int):
    log_metrics({"rows": n, "mean": 1 / n})
    if n == 3:
        raise KeyError("column")

@task
def reads():
    for n in (3, 6):
        try:
            read(n)
        except KeyError:
            print("skipped")
    nested()

@task
def nested():
    log_metric("rows", 1)
    read(3)

@task
def short():
    log_metric("rows", 12)

@task
def writes():
    hold("start")
    print("by print")
    print("by stderr", file=sys.stderr)
    os.write(1, b"by descriptor\\n")
    subprocess.run(["sh", "-c", "echo by a child; printf 'half a ' > /dev/tty"])
    hold("half")
    subprocess.run(["sh", "-c", "echo line > /dev/tty"])
    for percent in (0, 50, 100):
        print(f"\\rprogress {percent}%", end="", file=sys.stderr, flush=True)
    hold("end")
    print(file=sys.stderr)

@task
def scrolls():
    hold("start")
    for number in range(100):
        print("line", number)
    hold("end")

@task
def forks():
    hold("start")
    child = os.fork()
    if child == 0:
        log_metric("in_child", 1)
        sys.exit()
    os.waitpid(child, 0)
    hold("end")

@task
def long(path="s3://bucket/" + "deep/" * 30, fail: bool = False):
    for step in range(4):
        log_metrics({"validation/" + "a" * 60: step, "loss": 1 / 2 ** step}, step=step)
    if fail:
        raise ValueError("cannot read the file " + "deep/" * 30)

@task
def wide():
    name = "日本語のとても長い名前の指標がここにあります"
    log_metric(name, 1.5)
    log_metric("\\x1b[31mred\\x07", "text\\x1b[2J")
    hold("end")
'''


@pytest.fixture(autouse=True)
def tasks():
    Path("tasks.py").write_text(TASKS)


@pytest.fixture
def tracked(terminal, server):
    """Run a task in a terminal, tracked by the scripted server."""

    def run(*args, **options):
        return terminal(
            "run", *args, "--run-name", "bold_curie", **(TRACKER | {"DBND__CORE__DATABAND_URL": server.url} | options)
        )

    return run


TRACKER = {"DBND__CORE__DATABAND_ACCESS_TOKEN": "t"}


def normalised(lines):
    """Lines without what differs between runs: ports, uids and times."""
    text = "\n".join(lines)
    text = re.sub(r"127\.0\.0\.1:\d+", "HOST", text)
    text = re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}", "UID", text)
    text = re.sub(r"runs show [0-9a-f]{8}", "runs show UID", text)
    text = re.sub(r"[⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏]", "*", text)
    text = re.sub(r"─{3,}", "────", text)
    text = re.sub(r"events wait|\d+ wait", lambda found: re.sub(r"\d+", "N", found[0]), text)
    return re.sub(r" *\b(\d+ms|\d+\.\ds|\d+s|\d+m \d\ds)", " TIME", text).split("\n")


def lines_of(text):
    return [line[4:] for line in text.rstrip().split("\n")[1:]]


def has(*texts):
    return lambda lines: all(any(text in line for line in lines) for text in texts)


def block_of(lines):
    """The lines of the live block: from its header on."""
    (start,) = [place for place, line in enumerate(lines) if line.startswith("── ")]
    return lines[start:]


def test_success(tracked):
    shown = tracked("tasks.train", columns=100)
    live = normalised(shown.wait_for(has("└─ ● fit", "accuracy 0.875")))
    assert live[:3] == lines_of("""
    dbnd: Run bold_curie of train, tracked in http://HOST.
    loading data.csv
    fitted
    """)
    assert block_of(live) == lines_of("""
    ── * bold_curie · train · TIME ────
    ● train TIME
    ├─ ✓ load TIME
    └─ ● fit TIME  loss 0.125  accuracy 0.875
    """)
    Path("fit").touch()
    assert shown.end() == 0
    assert normalised(shown.lines) == lines_of("""
    dbnd: Run bold_curie of train, tracked in http://HOST.
    loading data.csv
    fitted
    dbnd: Run bold_curie succeeded after TIME.
      tasks    3 succeeded
      params   epochs=4  fail=False  load.path=data.csv  fit.epochs=4
      metrics  loss      0.125  min 0.125  max 1      █▄▂▁
               accuracy  0.875  min 0      max 0.875  ▁▅▇█
      tracked  http://HOST/app/jobs/train/UID
    """)
    assert shown.has_whole_screen


def test_failure(tracked):
    Path("fit").touch()
    shown = tracked("tasks.train", "--fail", columns=250)
    assert shown.end() == 10
    lines = normalised(shown.lines)
    lines[4] = re.sub('File ".*/tasks.py", line [0-9]+', "File PLACE", lines[4])
    assert lines == lines_of("""
    dbnd: Run bold_curie of train, tracked in http://HOST.
    loading data.csv
    fitted
    Traceback (most recent call last):
      File PLACE, in train
        raise ValueError("the data is bad")
    ValueError: the data is bad
    dbnd: error: Run bold_curie failed after TIME: ValueError: the data is bad
      tasks    2 succeeded, 1 failed
      failed   train  ValueError: the data is bad
      params   epochs=4  fail=True  load.path=data.csv  fit.epochs=4
      metrics  loss      0.125  min 0.125  max 1      █▄▂▁
               accuracy  0.875  min 0      max 0.875  ▁▅▇█
      tracked  http://HOST/app/jobs/train/UID
    """)


def test_failed_tasks_and_metrics_by_task(tracked):
    shown = tracked("tasks.reads", columns=250)
    assert shown.end() == 10
    lines = normalised(shown.lines)
    start = lines.index("  tasks    4 failed, 1 succeeded")
    assert lines[start + 1 : -1] == lines_of("""
      failed   read    KeyError: 'column'
               read_3  KeyError: 'column'
      params   read.n=3  read_2.n=6  read_3.n=3
      metrics  read
                 rows  3       min 3       max 3
                 mean  0.3333  min 0.3333  max 0.3333
               read_2
                 rows  6       min 6       max 6
                 mean  0.1667  min 0.1667  max 0.1667
               nested
                 rows  1       min 1       max 1
               read_3
                 rows  3       min 3       max 3
                 mean  0.3333  min 0.3333  max 0.3333
    """)


def test_tracker_down(terminal, free_port):
    shown = terminal(
        *("run", "tasks.train", "--run-name", "bold_curie"),
        DBND__CORE__DATABAND_URL=f"http://127.0.0.1:{free_port}",
        DBND__CORE__FLUSH_TIMEOUT="0.1",
        columns=100,
    )
    live = normalised(shown.wait_for(has("└─ ● fit", "! The tracker does not take events")))
    assert block_of(live)[1].startswith("! The tracker does not take events, N wait: ")
    assert block_of(live)[2:] == lines_of("""
    ● train TIME
    ├─ ✓ load TIME
    └─ ● fit TIME  loss 0.125  accuracy 0.875
    """)
    Path("fit").touch()
    assert shown.end() == 0
    lines = normalised(shown.lines)
    end = lines.index("dbnd: Run bold_curie succeeded after TIME.")
    assert any("events are not delivered" in line for line in lines[:end])
    assert lines[-2] == "  tracked  no: the tracker has not taken this run"
    assert re.fullmatch(r"  unsent   \d+ events wait: `dbnd sync`", lines[-1])


def test_narrow_terminal(tracked):
    shown = tracked("tasks.train", columns=40)
    live = normalised(shown.wait_for(has("└─ ● fit", "accuracy 0.875")))
    assert block_of(live) == lines_of("""
    ── * bold_curie · train · TIME ────
    ● train TIME
    ├─ ✓ load TIME
    └─ ● fit TIME
           loss 0.125  accuracy 0.875
    """)
    Path("fit").touch()
    assert shown.end() == 0
    lines = normalised(shown.lines)
    start = lines.index("  tasks    3 succeeded")
    assert lines[start : start + 7] == lines_of("""
      tasks    3 succeeded
      params   epochs=4  fail=False
               load.path=data.csv
               fit.epochs=4
      metrics  loss      0.125  █▄▂▁
               accuracy  0.875  ▁▅▇█
      tracked  http://HOST/app/jo
    """)


def test_long_values_on_a_narrow_terminal(terminal, free_port):
    shown = terminal(
        *("run", "tasks.long", "--fail", "--run-name", "bold_curie"),
        DBND__CORE__DATABAND_URL=f"http://127.0.0.1:{free_port}",
        DBND__CORE__FLUSH_TIMEOUT="0.1",
        columns=48,
        lines=60,
    )
    assert shown.end() == 10
    lines = normalised(shown.lines)
    # Messages break at blanks, and say where things are once.
    (warned,) = [place for place, line in enumerate(lines) if line.endswith("events are not delivered,")]
    assert lines[warned + 1].startswith("  because the tracker")
    start = lines.index("  tasks    1 failed")
    assert lines.pop(start + 1).startswith("  failed   long  ValueError: cannot read ")
    (failed,) = [place for place, line in enumerate(lines) if line.startswith("dbnd: error:")]
    headline = " ".join(line.strip() for line in lines[failed:start])
    assert re.fullmatch(r"dbnd: error: Run bold_curie failed after .*: ValueError: cannot read the .*…", headline)
    assert lines[start:-3] == lines_of("""
      tasks    1 failed
      params   path=s3://bucket/deep/deep/deep/dee…
               fail=True
      metrics  validation/aaaaaaaaaaa…  3      ▁▃▆█
               loss                     0.125  █▄▂▁
    """)
    assert re.fullmatch(r"  unsent   \d+ events wait: `dbnd sync`", lines[-1])


@pytest.mark.parametrize("env", [{"CI": "true"}, {"TERM": "dumb"}])
def test_plain_lines_where_nothing_may_change_in_place(tracked, env):
    Path("fit").touch()
    shown = tracked("tasks.train", "-v", NO_COLOR="1", **env)
    assert shown.end() == 0
    assert b"\x1b" not in shown.output
    assert normalised(shown.lines)[:7] == lines_of("""
    dbnd: Run bold_curie of train, tracked in http://HOST.
    loading data.csv
    fitted
    dbnd: ✓ load succeeded after TIME
    dbnd: ✓ fit succeeded after TIME
    dbnd: ✓ train succeeded after TIME
    dbnd: Run bold_curie succeeded after TIME.
    """)


def test_piped_output(dbnd, server):
    Path("fit").touch()
    env = {"DBND__CORE__DATABAND_URL": server.url, "NO_COLOR": "", **TRACKER}
    done = dbnd("run", "tasks.train", "--run-name", "bold_curie", **env)
    assert done.returncode == 0
    assert done.stdout == "loading data.csv\nfitted\n"
    assert "\x1b" not in done.stderr
    assert normalised(done.stderr.splitlines()) == lines_of("""
    dbnd: Run bold_curie of train, tracked in http://HOST.
    dbnd: Run bold_curie succeeded after TIME.
      tasks    3 succeeded
      params   epochs=4  fail=False  load.path=data.csv  fit.epochs=4
      metrics  loss      0.125  min 0.125  max 1      █▄▂▁
               accuracy  0.875  min 0      max 0.875  ▁▅▇█
      tracked  http://HOST/app/jobs/train/UID
    """)


@pytest.mark.parametrize(("variable", "coloured"), [("NO_COLOR", False), ("FORCE_COLOR", True)])
def test_colours_can_be_turned_off_and_on(tracked, variable, coloured):
    shown = tracked("tasks.train", **{variable: "1"}, TERM="xterm" if variable == "NO_COLOR" else "dumb")
    shown.wait_for(has("fitted"))
    if not coloured:
        shown.wait_for(has("└─ ● fit"))
    Path("fit").touch()
    assert shown.end() == 0
    assert bool(re.search(rb"\x1b\[[1-9][0-9]*m", shown.output)) is coloured


def test_quiet_says_only_what_goes_wrong(tracked):
    Path("fit").touch()
    shown = tracked("tasks.train", "-q")
    assert shown.end() == 0
    assert shown.lines == ["loading data.csv", "fitted"]
    shown = tracked("tasks.train", "--fail", "-q")
    assert shown.end() == 10
    assert normalised(shown.lines)[-1] == "dbnd: error: Run bold_curie failed after TIME: ValueError: the data is bad"


def test_what_others_write_stays_untouched_above_the_block(tracked):
    shown = tracked("tasks.writes")
    shown.wait_for(has("● writes"))
    Path("start").touch()
    lines = shown.wait_for(has("half a"))
    assert lines[1:6] == ["by print", "by stderr", "by descriptor", "by a child", "half a"]
    frame = shown.wait_for(has("● writes"))
    shown.wait_for(lambda lines: lines != frame)  # the block was drawn again meanwhile
    Path("half").touch()
    lines = shown.wait_for(has("progress 100%"))
    assert lines[5:7] == ["half a line", "progress 100%"]
    assert block_of(lines)[1].startswith("● writes")
    Path("end").touch()
    assert shown.end() == 0
    lines = normalised(shown.lines)
    assert lines[6:9] == ["progress 100%", "dbnd: Run bold_curie succeeded after TIME.", "  tasks    1 succeeded"]


def test_long_output_scrolls_above_the_block(tracked):
    shown = tracked("tasks.scrolls", lines=20)
    shown.wait_for(has("● scrolls"))
    Path("start").touch()
    lines = shown.wait_for(lambda lines: lines[16:18] == ["line 99", ""] and "● scrolls" in lines[-1])
    assert lines[:17] == [f"line {number}" for number in range(83, 100)]
    Path("end").touch()
    assert shown.end() == 0
    assert [line for line in shown.lines if line.startswith("line ")][-1] == "line 99"
    assert shown.has_whole_screen


@pytest.mark.parametrize("size", [(120, 40), (60, 16)])
def test_a_terminal_that_changes_its_size(tracked, size):
    shown = tracked("tasks.train")
    shown.wait_for(has("└─ ● fit"))
    shown.resize(*size)
    shown.wait_for(lambda lines: len(lines) == size[1] and has("└─ ● fit")(lines[-2:]))
    Path("fit").touch()
    assert shown.end() == 0
    assert has("  tasks    3 succeeded")(shown.lines)
    assert shown.has_whole_screen


def test_the_terminal_is_given_back_when_the_process_is_killed(tracked):
    shown = tracked("tasks.train")
    shown.wait_for(has("└─ ● fit"))
    assert not shown.has_whole_screen
    shown.process.signal(signal.SIGKILL)
    shown.wait_for(lambda _: shown.has_whole_screen)
    assert not has("└─ ● fit")(shown.wait_for(lambda _: True))


@pytest.mark.parametrize("key", [b"\x03", None])
def test_an_interrupted_run_gives_the_terminal_back(tracked, key):
    shown = tracked("tasks.train")
    shown.wait_for(has("└─ ● fit"))
    if key:
        shown.type(key)
    else:
        shown.process.signal(signal.SIGTERM)
    assert shown.end() == (130 if key else 10)
    assert shown.has_whole_screen
    assert has("bold_curie was cancelled", "  tasks    2 cancelled, 1 succeeded")(shown.lines)
    assert not has("└─ ● fit")(shown.lines)


def test_a_forked_child_leaves_the_terminal_alone(tracked):
    shown = tracked("tasks.forks")
    shown.wait_for(has("● forks"))
    Path("start").touch()
    before = shown.wait_for(has("● forks"))
    shown.wait_for(lambda lines: block_of(lines) != block_of(before))
    assert not shown.has_whole_screen
    Path("end").touch()
    shown.end()
    assert shown.has_whole_screen


def test_wide_and_dangerous_characters(tracked):
    shown = tracked("tasks.wide", columns=50)
    shown.wait_for(has("日本語のとても長い名前の指標がここにあります…"))
    Path("end").touch()
    assert shown.end() == 0
    assert b"\x1b[31mred" not in shown.output
    assert b"\x1b[2J" not in shown.output
    assert has(r"\x1b[31mred\x07", r"text\x1b[2J")(shown.lines)
    assert shown.has_whole_screen


def test_a_short_run_shows_no_block(tracked):
    shown = tracked("tasks.short")
    assert shown.end() == 0
    if b"\xe2\x94\x80\xe2\x94\x80" in shown.output:
        pytest.skip("the machine was so busy that the run was no short one")
    assert has("  metrics  rows  12  min 12  max 12")(shown.lines)


def test_no_process_more_stands_in_the_users_way(tracked):
    """The guard of the terminal is an orphan: code that waits for its children must not find it."""
    Path("lonely.py").write_text(
        "import os, time\nfrom pathlib import Path\nfrom dbnd import task\n@task\ndef lonely():\n"
        "    while not Path('go').exists(): time.sleep(0.02)\n"
        "    try:\n        os.waitpid(-1, os.WNOHANG)\n    except ChildProcessError:\n        print('no children')\n"
    )
    shown = tracked("lonely.lonely")
    shown.wait_for(has("● lonely"))
    Path("go").touch()
    assert shown.end() == 0
    assert has("no children")(shown.lines)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(dbnd, shell):
    done = dbnd("completion", shell)
    assert done.returncode == 0, done.stderr
    assert "_DBND_COMPLETE" in done.stdout


@pytest.fixture
def bash_offers(dbnd):
    """What bash offers for a line, with functions of a test's own."""
    Path("complete.bash").write_text(dbnd("completion", "bash").stdout)
    script = (
        'compopt() { echo "compopt $2"; }\nsource complete.bash\n'
        'COMP_LINE=$1 COMP_POINT=${#1}; _dbnd_completion dbnd; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"

    def offers(line, functions="", **env):
        env = {**os.environ, "PATH": path, **env}
        command = ["bash", "-c", f"{functions}\n{script}", "-", line]
        done = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
        assert done.stderr == ""
        return done.stdout.split("\n")[:-1]

    return offers


@pytest.fixture
def completed(bash_offers, dbnd):
    """What bash offers for a line, where `dbnd` starts at once."""

    def completed(line):
        said = dbnd(_DBND_COMPLETE="bash_complete", COMP_LINE=line, COMP_WORDBREAKS="=:").stdout
        return bash_offers(line, 'dbnd() { printf "%s" "$SAID"; }', SAID=said)

    return completed


def test_completion_in_a_real_shell(bash_offers):
    assert bash_offers("dbnd comp") == ["completion"]
    # Files complete where no installed package registers a task.
    assert bash_offers("dbnd run ") == sorted(entry.name for entry in entry_points(group="dbnd.tasks"))
    assert bash_offers("dbnd run zz -c core.delivery=r") == ["relay"]


def test_completion_of_parameters_reads_the_target_and_does_not_run_it(completed):
    Path("tasks.py").write_text("raise SystemExit('imported')\n" + TASKS)
    for target in ("tasks.py::train", "tasks.train"):
        assert completed(f"dbnd run {target} --ep") == ["--epochs"]
        assert {"--epochs", "--fail", "--job-name"} <= set(completed(f"dbnd run {target} --epochs 3 -"))
        assert completed(f"dbnd run {target} -s f") == ["compopt nospace", "fail="]
        assert completed(f"dbnd run {target} --epochs ") == ["compopt default", ""]
    for target in ("tasks.py::none", "tasks.none", "none.py::train", "none.train", "none"):
        assert completed(f"dbnd run {target} --ep") == [""]
    Path("tasks.py").write_text("def train(:")
    assert completed("dbnd run tasks.train --ep") == [""]


def test_completion_of_the_configuration(completed):
    assert completed("dbnd run zz") == ["compopt default", ""]
    assert completed("dbnd config show -c core.del") == ["compopt nospace", "core.delivery="]
    assert completed("dbnd run -c core.delivery=r") == ["relay"]
    assert completed("dbnd run -c core.journal_fsync=") == ["True", "False"]
    assert completed("dbnd config show core.journal_f") == ["core.journal_folder", "core.journal_fsync"]
    assert "tracker.port=" in completed("dbnd -c ")
