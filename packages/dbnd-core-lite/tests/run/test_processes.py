"""Runs across processes: forked and fresh children, ranks, signals, and ways to end."""

from __future__ import annotations

import os
import signal
import textwrap
import time
import uuid
from pathlib import Path

import pytest
from kit.scale import leading, scaled

from dbnd import dbnd_tracking, log_metric, task
from dbnd._model.run import Run, TaskDefinition

pytestmark = pytest.mark.process

PATIENCE = 60

HEADER = """
import os, sys, time, signal
from dbnd import dbnd_tracking, log_artifact, log_metric, task, current_task_run, get_databand_context
conf = {"core": {"databand_url": os.environ["TRACKER"], "databand_access_token": "t"}}
"""


@pytest.fixture
def script(server, warm):
    """Run a script that is tracked by the scripted server, from a file, as multiprocessing needs it."""

    def run(code, *, returncode=0, **env):
        file = Path("script.py").absolute()
        file.write_text(HEADER + textwrap.dedent(code), encoding="utf-8")
        run_file = f"import runpy; runpy.run_path({str(file)!r}, run_name='__main__')"
        done = warm.run({"code": run_file}, 2 * PATIENCE, TRACKER=server.url, **env)
        assert done.returncode == returncode, done.stderr
        return done

    return run


def bodies(server, call):
    return [body for name, body in server.tracked() if name == call]


def points(server):
    """Values by attempt."""
    found = {}
    for body in bodies(server, "log_metrics"):
        for info in body["metrics_info"]:
            found.setdefault(info["task_run_attempt_uid"], []).append(info["metric"]["value"])
    return found


def run_states(server):
    return [body["state"] for body in bodies(server, "set_run_state")]


def root_attempts(server):
    return [
        b["init_args"]["task_runs_info"]["task_runs"][0]["task_run_attempt_uid"] for b in bodies(server, "init_run")
    ]


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_children_of_multiprocessing_log_into_the_run(script, server, method):
    script(
        f"""
        import multiprocessing
        def work(n):
            for i in range(10): log_metric("n", n * 10 + i)
        if __name__ == "__main__":
            with dbnd_tracking("job", conf=conf):
                context = multiprocessing.get_context({method!r})
                children = [context.Process(target=work, args=(n,)) for n in range(2)]
                for child in children: child.start()
                for child in children: child.join()
                assert [child.exitcode for child in children] == [0, 0]
        """
    )
    (root,) = root_attempts(server)
    found = points(server)
    assert sorted(found) == [root]
    assert sorted(found[root]) == list(range(20))
    for child in range(2):
        assert [n for n in found[root] if n // 10 == child] == [child * 10 + i for i in range(10)]
    assert run_states(server) == ["SUCCESS"]


@pytest.mark.parametrize("method", leading(["fork", "spawn"]))
def test_workers_of_a_pool_log_into_the_run(script, server, method):
    script(
        f"""
        import multiprocessing
        from concurrent.futures import ProcessPoolExecutor
        def work(n):
            log_metric("n", n)
            return n
        if __name__ == "__main__":
            with dbnd_tracking("job", conf=conf):
                with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context({method!r})) as pool:
                    assert sorted(pool.map(work, range(20))) == list(range(20))
        """
    )
    assert sorted(points(server)[root_attempts(server)[0]]) == list(range(20))


def test_a_forked_child_that_leaves_the_block_does_not_end_the_run(script, server):
    script(
        """
        @task
        def inner():
            if not (child := os.fork()):
                log_metric("from", "child")
                sys.exit(3)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3
            log_metric("from", "parent")
        with dbnd_tracking("job", conf=conf): inner()
        """
    )
    assert run_states(server) == ["SUCCESS"]
    (values,) = points(server).values()
    assert sorted(values) == ["child", "parent"]
    updates = [u["state"] for b in bodies(server, "update_task_run_attempts") for u in b["task_run_attempt_updates"]]
    assert sorted(updates) == ["RUNNING", "RUNNING", "SUCCESS", "SUCCESS"]


def test_task_runs_of_forked_children_have_names_and_attempts_of_their_own(script, server):
    script(
        """
        @task
        def inner(n): log_metric("n", n)
        with dbnd_tracking("job", conf=conf):
            inner(0)
            for n in (1, 2):
                if not (child := os.fork()):
                    inner(n)
                    from dbnd._tracking.outbox import close_all
                    close_all()
                    os._exit(0)
                os.waitpid(child, 0)
            inner(3)
        """
    )
    found = points(server)
    assert sorted(found.values()) == [[0], [1], [2], [3]]
    names = [t["task_af_id"] for b in bodies(server, "add_task_runs") for t in b["task_runs_info"]["task_runs"]]
    assert len(set(names)) == 4
    assert {"inner", "inner_2"} <= set(names)


def test_a_fork_while_other_threads_log_hangs_nobody(script, server):
    script(
        f"""
        import threading
        def log():
            while not end.is_set(): log_metric("thread", 1)
        with dbnd_tracking("job", conf=conf):
            end = threading.Event()
            threads = [threading.Thread(target=log) for _ in range(4)]
            for thread in threads: thread.start()
            for n in range({scaled(8, 50)}):
                if not (child := os.fork()):
                    log_metric("child", n)
                    os._exit(0)
                assert os.waitpid(child, 0)[1] == 0
            end.set()
            for thread in threads: thread.join()
        """
    )
    assert run_states(server) == ["SUCCESS"]


def test_what_a_child_leaves_with_os_exit_is_delivered_by_its_parent(script, server, home):
    """So workers of a pool end, which multiprocessing terminates."""
    script(
        """
        with dbnd_tracking("job", conf=conf):
            if not (child := os.fork()):
                log_metric("n", 7)
                os._exit(0)
            os.waitpid(child, 0)
        """
    )
    assert list(points(server).values()) == [[7]]
    assert not list((home / "dbnd/journal").iterdir())


def test_what_a_parent_leaves_with_os_exit_is_delivered_by_its_child(script, server):
    """So a daemon begins."""
    script(
        """
        before = os.pipe()
        with dbnd_tracking("job", conf=conf):
            log_metric("n", 7)
            after = os.pipe()
            if os.fork():
                os._exit(0)
            for read, write in (before, after):  # closed when the parent has ended with all of its threads
                os.close(write)
                assert not os.read(read, 1)
            log_metric("n", 8)
        """
    )
    deadline = time.monotonic() + PATIENCE
    while (found := {n for each in points(server).values() for n in each}) != {7, 8} and time.monotonic() < deadline:
        time.sleep(0.05)
    assert found == {7, 8}


def test_a_fresh_child_logs_into_the_task_run_that_started_it(script, server):
    script(
        """
        import subprocess
        code = "from dbnd import log_metric, log_artifact; log_metric('n', 7); log_artifact('a', 's3://b/c')"
        with dbnd_tracking("job", conf=conf): subprocess.run([sys.executable, "-c", code], check=True)
        """
    )
    (root,) = root_attempts(server)
    assert points(server) == {root: [7]}
    assert [b["task_run_attempt_uid"] for b in bodies(server, "log_artifact")] == [root]


def test_a_fresh_child_that_cannot_be_tracked_says_so_once_and_goes_on(script, server):
    done = script(
        """
        import subprocess
        code = "from dbnd import log_metric; log_metric('n', 1); log_metric('n', 2); print('went on')"
        env = {"DBND__CORE__FLUSH_TIMEOUT": "soon"}
        with dbnd_tracking("job", conf=conf):
            subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, **env})
        """
    )
    assert "went on" in done.stdout
    assert done.stderr.count("core.flush_timeout = 'soon'") == 1
    assert points(server) == {}


def test_the_environment_of_a_run_ends_with_it(server):
    conf = {"core": {"databand_url": server.url, "databand_access_token": "secret"}}
    with dbnd_tracking("job", conf=conf) as run:
        assert os.environ["DBND_PARENT_TASK_RUN_ATTEMPT_UID"] == run.root.attempt_uid
        assert os.environ["DBND__CORE__DATABAND_URL"] == server.url
        assert os.environ["DBND__CORE__DATABAND_ACCESS_TOKEN"] == "secret"
    assert not [name for name in os.environ if name.startswith("DBND_") and name != "DBND_HOME"]


def test_ranks_take_part_in_one_run(script, server):
    uid = str(uuid.uuid4())
    for rank in range(2):
        script(
            """
            with dbnd_tracking("train", conf=conf) as run:
                assert "DBND_RUN_UID" not in os.environ
                for n in range(10): log_metric("n", int(os.environ["RANK"]) * 10 + n)
            """,
            DBND_RUN_UID=uid,
            RANK=str(rank),
        )
    inits = [body["init_args"] for body in bodies(server, "init_run")]
    assert [(args["run_uid"], args["new_run_info"]) for args in inits] == [(uid, None)] * 2
    assert sorted(points(server).values()) == [[rank * 10 + n for n in range(10)] for rank in range(2)]
    assert len(set(root_attempts(server))) == 2
    assert run_states(server) == []
    assert bodies(server, "set_unfinished_tasks_state") == []


def test_a_rank_that_fails_leaves_the_run_to_others(script, server):
    uid = str(uuid.uuid4())
    script("with dbnd_tracking('train', conf=conf): raise ValueError('mine')", returncode=1, DBND_RUN_UID=uid)
    updates = [u["state"] for b in bodies(server, "update_task_run_attempts") for u in b["task_run_attempt_updates"]]
    assert updates == ["RUNNING", "FAILED"]
    assert run_states(server) == []


def test_a_run_that_is_done_once_more_has_new_attempts(script, server):
    uid = str(uuid.uuid4())
    script("with dbnd_tracking('train', conf=conf): pass", DBND_RUN_UID=uid, DBND_RESUBMIT_RUN="true")
    (args,) = [body["init_args"] for body in bodies(server, "init_run")]
    assert args["new_run_info"]["run_uid"] == uid
    assert root_attempts(server) == [str(uuid.uuid5(uuid.UUID(uid), "train.train:1-resubmit"))]
    assert run_states(server) == ["SUCCESS"]


def test_a_uid_that_is_none_is_one_sentence(script):
    done = script("with dbnd_tracking('train', conf=conf): pass", returncode=1, DBND_RUN_UID="seven")
    assert "The environment variable DBND_RUN_UID = 'seven' is no uid of a run" in done.stderr


def test_attempts_of_the_first_process_are_those_of_the_original_client():
    run = Run("job", "run")
    uids = [run.new_task_run(TaskDefinition("t"), parent=None).attempt_uid for _ in range(2)]
    assert uids == [str(uuid.uuid5(uuid.UUID(run.uid), f"DBND_RUN.job.{name}:1")) for name in ("t", "t_2")]


SIGTERM = "os.kill(os.getpid(), signal.SIGTERM); time.sleep(60)"


def test_sigterm_ends_a_tracked_script_as_cancelled(script, server):
    done = script(
        f"""
        with dbnd_tracking("job", conf=conf):
            log_metric("n", 1)
            {SIGTERM}
        """,
        returncode=143,
    )
    assert run_states(server) == ["CANCELLED"]
    assert bodies(server, "set_unfinished_tasks_state")[0]["state"] == "UPSTREAM_FAILED"
    assert list(points(server).values()) == [[1]]
    (update,) = bodies(server, "update_task_run_attempts")[-1]["task_run_attempt_updates"]
    assert update["state"] == "CANCELLED"
    assert "SIGTERM" in update["error"]["msg"]
    assert "Traceback" not in done.stderr


def test_a_signal_that_comes_while_a_run_begins_leaves_none_without_a_name(script, server):
    script(
        """
        from dbnd import TrackingAPIClient
        begin = TrackingAPIClient.init_run

        def interrupted(self, run, root):
            TrackingAPIClient.init_run = begin
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)

        TrackingAPIClient.init_run = interrupted
        with dbnd_tracking("job", conf=conf):
            pass
        """,
        returncode=128 + signal.SIGTERM,
    )
    assert [body["init_args"]["new_run_info"]["job_name"] for body in bodies(server, "init_run")] == ["job"]
    assert run_states(server) == ["CANCELLED"]


def test_sigterm_cancels_the_run_after_one_that_was_stopped_in_another_thread(script, server):
    script(
        f"""
        import threading
        from dbnd._base.signals import request_end
        first = dbnd_tracking("first", conf=conf).start()
        stopping = threading.Thread(target=first.stop)
        stopping.start(); stopping.join()
        request_end()  # nobody's: it ends no process that has no run
        with dbnd_tracking("second", conf=conf):
            {SIGTERM}
        """,
        returncode=143,
    )
    assert run_states(server) == ["SUCCESS", "CANCELLED"]


def test_a_handler_of_the_users_own_is_left_alone(script, server):
    done = script(
        """
        signal.signal(signal.SIGTERM, lambda *_: print("mine"))
        with dbnd_tracking("job", conf=conf): os.kill(os.getpid(), signal.SIGTERM)
        print(signal.getsignal(signal.SIGTERM).__name__)
        """
    )
    assert done.stdout.split() == ["mine", "<lambda>"]
    assert run_states(server) == ["SUCCESS"]


def test_a_handler_that_is_set_within_the_run_stays(script):
    done = script(
        """
        with dbnd_tracking("job", conf=conf): signal.signal(signal.SIGTERM, lambda *_: None)
        print(signal.getsignal(signal.SIGTERM).__name__)
        with dbnd_tracking("job", conf=conf): pass
        """
    )
    assert done.stdout.split() == ["<lambda>"]


def test_after_the_run_sigterm_is_what_it_was(server):
    with dbnd_tracking("job", conf={"core": {"databand_url": server.url, "databand_access_token": "t"}}):
        assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_forked_child_dies_of_sigterm_as_it_would_without_us(script, server):
    script(
        f"""
        with dbnd_tracking("job", conf=conf):
            if not (child := os.fork()):
                {SIGTERM}
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM
        """
    )
    assert run_states(server) == ["SUCCESS"]


@pytest.mark.parametrize("is_up", [False, True])
def test_terminating_a_process_of_multiprocessing_works(script, server, is_up):
    script(
        f"""
        import multiprocessing
        context = multiprocessing.get_context("fork")
        def work(pipe):
            pipe.send("up")
            time.sleep({2 * PATIENCE})
        with dbnd_tracking("job", conf=conf):
            here, there = context.Pipe()
            child = context.Process(target=work, args=(there,))
            child.start()
            if {is_up}:
                assert here.poll({PATIENCE}) and here.recv() == "up"
            child.terminate()
            child.join({PATIENCE})
            assert child.exitcode == -signal.SIGTERM, child.exitcode
        """
    )
    assert run_states(server) == ["SUCCESS"]


def test_sigterm_is_not_lost_in_a_child_that_has_just_been_forked(script, server):
    script(
        f"""
        with dbnd_tracking("job", conf=conf):
            for _ in range({scaled(12, 50)}):
                if not (child := os.fork()):
                    time.sleep({2 * PATIENCE})
                    os._exit(0)
                os.kill(child, signal.SIGTERM)
                assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM
            assert signal.SIGTERM not in signal.pthread_sigmask(signal.SIG_BLOCK, [])
        """
    )
    assert run_states(server) == ["SUCCESS"]


@pytest.mark.parametrize(
    ("code", "returncode", "state"),
    [
        ("sys.exit()", 0, "SUCCESS"),
        ("sys.exit(4)", 4, "FAILED"),
        ("raise ValueError('boom')", 1, "FAILED"),
        ("os.kill(os.getpid(), signal.SIGINT); time.sleep(60)", -signal.SIGINT, "CANCELLED"),
    ],
)
def test_ways_to_end(script, server, code, returncode, state):
    script(
        f"""
        with dbnd_tracking("job", conf=conf):
            log_metric("n", 1)
            {code}
        """,
        returncode=returncode,
    )
    assert run_states(server) == [state]
    assert list(points(server).values()) == [[1]]


def test_os_exit_leaves_everything_in_the_journal(script, server, dbnd):
    script(
        """
        with dbnd_tracking("job", conf={**conf, "run.heartbeat_interval_s": 0}):
            for n in range(100): log_metric("n", n)
            os._exit(5)
        """,
        returncode=5,
    )
    done = dbnd("sync", DBND__CORE__DATABAND_URL=server.url, DBND__CORE__DATABAND_ACCESS_TOKEN="t")
    assert done.returncode == 0, done.stderr
    (values,) = points(server).values()
    # This server does not tell apart what it has already; ours does.
    assert sorted(set(values)) == list(range(100))


def test_sigterm_in_another_thread_than_the_main_one_is_not_touched(server):
    import threading

    conf = {"core": {"databand_url": server.url, "databand_access_token": "t"}}
    seen = []

    def track():
        with dbnd_tracking("job", conf=conf):
            log_metric("n", 1)
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=track)
    thread.start()
    thread.join(PATIENCE)
    assert seen == [signal.SIG_DFL]
    assert run_states(server) == ["SUCCESS"]


@task
def outside():
    log_metric("n", 1)


def test_variables_that_are_no_uids_cost_a_run_nothing(script, server):
    stray = {"DBND_ROOT_RUN_UID": "x", "DBND_PARENT_TASK_RUN_UID": "y", "DBND_PARENT_TASK_RUN_ATTEMPT_UID": "z"}
    done = script("with dbnd_tracking('job', conf=conf): log_metric('n', 1)", **stray)
    assert done.stderr.count("What has started this process is not known") == 1
    (announced,) = bodies(server, "init_run")
    assert announced["init_args"]["root_run_uid"] == announced["init_args"]["run_uid"]


def test_outside_of_a_run_a_stray_environment_harms_nobody(monkeypatch, server):
    """A child of a run whose tracker is known by its environment calls a task."""
    for name in ("DBND_ROOT_RUN_UID", "DBND_PARENT_TASK_RUN_UID", "DBND_PARENT_TASK_RUN_ATTEMPT_UID"):
        monkeypatch.setenv(name, str(uuid.uuid4()))
    monkeypatch.setenv("DBND__CORE__DATABAND_URL", server.url)
    monkeypatch.setenv("DBND__CORE__DATABAND_ACCESS_TOKEN", "t")
    from dbnd._run import log

    log._client_of_environment.cache_clear()
    outside()
    client = log._client_of_environment()
    assert client.flush(PATIENCE)
    log._client_of_environment.cache_clear()
    assert points(server) == {os.environ["DBND_PARENT_TASK_RUN_ATTEMPT_UID"]: [1]}
    client.close()
