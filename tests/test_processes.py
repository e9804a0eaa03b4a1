"""Fork, spawn and threads, and runs that several processes share: promises 8 and 10."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from kit.jobs import journals
from kit.progress import TELLING, wait_until
from kit.scale import scaled
from kit.trackers import reading

PROCESSES, THREADS, POINTS = 8, 4, scaled(100, 1_000)

# A module, because a spawned child imports what it is to do.
LOGGING = f"""
import os
import threading

from dbnd import log_metric

def log(rank, thread):
    for n in range({POINTS}):
        log_metric(f"{{rank}}.{{thread}}", n, step=n)

def work(rank):
    threads = [threading.Thread(target=log, args=(rank, n)) for n in range({THREADS})]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
"""


@pytest.fixture(autouse=True)
def logging_module():
    Path("logging_ranks.py").write_text(LOGGING)


def found(tracker, run_uid):
    """All points of a run: the values by key, in the order in which they came, and the states of its task runs."""
    values: dict[str, list[int]] = {}
    with reading(tracker.database) as reader:
        run = reader.run(run_uid)
        for task_run in run.task_runs:
            for metric in reader.task_run(task_run.task_run_uid)["metrics"]:
                key = metric["key"]
                values.setdefault(key, []).extend(p["value"] for p in reader.points(task_run.task_run_uid, key))
    return values, {run.state, *(task_run.state for task_run in run.task_runs)}


def check(tracker, run_uid, report, how, processes=PROCESSES):
    values, states = found(tracker, run_uid)
    logged = processes * THREADS * POINTS
    count = sum(map(len, values.values()))
    report(f"{processes} processes x {THREADS} threads x {POINTS} points into one run, {how}: {count} points.")
    assert count == logged
    assert values == {f"{p}.{t}": list(range(POINTS)) for p in range(processes) for t in range(THREADS)}
    assert states == {"success"}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_children_of_every_kind_log_into_the_run_in_order(jobs, tracker, report, home, method):
    count = PROCESSES if method == "fork" else scaled(3, PROCESSES)  # the others import everything anew
    _, progress = jobs.run(
        f"{TELLING}\n"
        "import multiprocessing, sys\n"
        "sys.path.insert(0, os.getcwd())\n"
        "from logging_ranks import work\n"
        "if __name__ == '__main__':\n"
        f"    context = multiprocessing.get_context({method!r})\n"
        "    with dbnd_tracking('children'):\n"
        "        began()\n"
        f"        processes = [context.Process(target=work, args=(rank,)) for rank in range({count})]\n"
        "        for process in processes: process.start()\n"
        "        for process in processes: process.join()\n"
        "        assert [process.exitcode for process in processes] == [0] * len(processes)\n"
    )
    check(tracker, progress.run, report, method, count)
    assert journals(home) == []


@pytest.mark.timeout(600)
def test_ranks_write_into_the_run_that_their_environment_names(warm, jobs, tracker, report, tmp_path, home):
    """As data-parallel launchers do it: every rank is started with the uid of a run, and runs the same script."""
    code = (
        "import os, sys\n"
        "sys.path.insert(0, os.getcwd())\n"
        "from logging_ranks import work\n"
        "from dbnd import dbnd_tracking\n"
        "with dbnd_tracking('ranks'):\n"
        "    work(int(os.environ['RANK']))\n"
    )
    enough = tmp_path / "enough"
    launcher, progress = jobs.start(
        f"{TELLING}\n"
        "import time\n"
        "with dbnd_tracking('launcher'):\n"
        "    began()\n"
        "    while not os.path.exists(os.environ['ENOUGH']): time.sleep(0.01)\n",
        ENOUGH=str(enough),
    )
    wait_until(lambda: bool(progress.task_run), lambda: launcher.output)
    ranks = [
        warm.python(code, tmp_path / f"rank-{rank}", DBND_RUN_UID=progress.run, RANK=str(rank), **jobs.env)
        for rank in range(PROCESSES)
    ]
    for rank in ranks:
        assert rank.wait() == 0, rank.output
    enough.touch()
    assert launcher.wait() == 0, launcher.output
    check(tracker, progress.run, report, "ranks")
    assert journals(home) == []


def test_fork_while_threads_log_and_locks_are_held(jobs, tracker, home):
    """The child logs, too, and neither hangs nor sends what is its parent's."""
    _, progress = jobs.run(
        f"{TELLING}\n"
        "import threading\n"
        "def log(key, count):\n"
        "    for n in range(count): log_metric(key, n)\n"
        "with dbnd_tracking('forks'):\n"
        "    began()\n"
        "    threads = [threading.Thread(target=log, args=(f'parent.{t}', 5000)) for t in range(3)]\n"
        "    for thread in threads: thread.start()\n"
        "    children = []\n"
        "    for child in range(10):\n"
        "        pid = os.fork()\n"
        "        if pid == 0:\n"
        "            from dbnd import get_databand_context\n"
        "            log(f'child.{child}', 100)\n"
        "            os._exit(0 if get_databand_context().client.flush(60) else 1)\n"
        "        children.append(pid)\n"
        "    for pid in children:\n"
        "        assert os.waitpid(pid, 0)[1] == 0\n"
        "    for thread in threads: thread.join()\n"
    )
    jobs.dbnd("sync")
    values, states = found(tracker, progress.run)
    expected = {f"parent.{t}": list(range(5000)) for t in range(3)}
    expected |= {f"child.{child}": list(range(100)) for child in range(10)}
    assert values == expected
    assert states == {"success"}
    assert journals(home) == []


def test_a_pool_of_processes_delivers_what_its_workers_logged(jobs, tracker, home):
    _, progress = jobs.run(
        f"{TELLING}\n"
        "from concurrent.futures import ProcessPoolExecutor\n"
        "import multiprocessing, sys\n"
        "sys.path.insert(0, os.getcwd())\n"
        "from logging_ranks import log\n"
        "with dbnd_tracking('pool'):\n"
        "    began()\n"
        "    with ProcessPoolExecutor(3, mp_context=multiprocessing.get_context('fork')) as pool:\n"
        "        list(pool.map(log, range(6), [0] * 6))\n"
    )
    values, _ = found(tracker, progress.run)
    assert values == {f"{rank}.0": list(range(POINTS)) for rank in range(6)}
    assert journals(home) == []


def test_context_crosses_to_processes_that_a_task_starts(jobs, tracker, home):
    """A program that a task starts becomes part of its run, without a word about it in either."""
    Path("program.py").write_text("from dbnd import log_metric\nfor n in range(1000): log_metric('program', n)\n")
    _, progress = jobs.run(
        f"{TELLING}\n"
        "import subprocess\n"
        "from dbnd import task\n"
        "@task\n"
        "def job():\n"
        "    log_metric('before', 1)\n"
        f"    subprocess.run([{sys.executable!r}, 'program.py'], check=True)\n"
        "    log_metric('after', 1)\n"
        "with dbnd_tracking('context'):\n"
        "    began()\n"
        "    job()\n"
    )
    values, states = found(tracker, progress.run)
    assert values == {"program": list(range(1000)), "before": [1], "after": [1]}
    assert states == {"success"}
    assert journals(home) == []


def test_context_of_a_run_that_a_task_starts_names_its_parent(jobs, tracker):
    Path("program.py").write_text(
        "from dbnd import dbnd_tracking, log_metric\nwith dbnd_tracking('inner') as run:\n    print('inner', run.uid)\n"
    )
    process, progress = jobs.run(
        f"{TELLING}\n"
        "import subprocess\n"
        "with dbnd_tracking('outer'):\n"
        "    began()\n"
        f"    subprocess.run([{sys.executable!r}, 'program.py'], check=True)\n"
    )
    inner = process.output.split("inner ")[1].split()[0]
    with reading(tracker.database) as reader:
        run = reader.run(inner)
    assert run.root_run_uid == progress.run
    assert run.parent_task_run_uid == progress.task_run


@pytest.mark.parametrize("kind", ["embedded", "http"])
def test_the_senders_thread_imports_nothing(warm, tracker, tmp_path, kind):
    """A process that is forked while another thread imports inherits the lock of that module, for ever."""
    url = tracker.url.replace("127.0.0.1", "localhost") if kind == "http" else f"sqlite:///{tmp_path}/own.db"
    process = warm.python(
        "import sys\n"
        "from dbnd import Config\n"
        "from dbnd._context.registry import create_transport, load_config\n"
        "from dbnd._tracking.client import TrackingAPIClient\n"
        "from dbnd._model.points import group, point\n"
        f"client = TrackingAPIClient({url!r}, load_config(), create_transport)\n"
        "before = set(sys.modules)\n"
        "client.log_metrics([group('1' * 8 + '-1111' * 3 + '-' + '1' * 12, 'user', [point('n', 1, 1, 1)])])\n"
        "assert client.flush(60), client.trouble\n"
        "print(sorted(set(sys.modules) - before))\n",
        tmp_path / "log",
    )
    assert process.wait() == 0, process.output
    assert process.output == "[]\n"
