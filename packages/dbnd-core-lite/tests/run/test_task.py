from __future__ import annotations

import asyncio
import contextlib
import functools
import io
import os
import sys
import threading

import pytest

import dbnd
from dbnd import (
    ConfigError,
    TrackingError,
    UsageError,
    current_task_run,
    dbnd_tracking,
    get_databand_context,
    log_artifact,
    log_metric,
    log_metrics,
    new_dbnd_context,
    task,
)
from dbnd._run import log


@task
def add(a: int, b: int = 2) -> int:
    log_metric("sum", a + b, step=1)
    return a + b


@task
def outer(n):
    return add(n) + add(n, b=5)


@task
def bad(x, password="hunter2"):
    raise ValueError(f"boom: password={password} x={x}")


@task
def calls_bad(x):
    return bad(x)


@task(name="renamed")
async def asynchronous(n: int) -> int:
    await asyncio.sleep(0)
    return n + 1


@pytest.fixture
def conf(free_port):
    """A tracker that is down: every event stays in the journal, to be looked at."""
    return {"core": {"databand_url": f"http://127.0.0.1:{free_port}", "flush_timeout": 0}}


def states(events):
    return [
        (names[update["task_run_uid"]], update["state"])
        for names in [task_names(events)]
        for call, body in events
        if call == "update_task_run_attempts"
        for update in body["task_run_attempt_updates"]
    ]


def task_runs(events):
    infos = [
        body["init_args"]["task_runs_info"] if call == "init_run" else body["task_runs_info"]
        for call, body in events
        if call in {"init_run", "add_task_runs"}
    ]
    return [(info, task_run) for info in infos for task_run in info["task_runs"]]


def task_names(events):
    return {task_run["task_run_uid"]: task_run["task_af_id"] for _, task_run in task_runs(events)}


def test_outside_of_a_run_a_task_just_runs(home):
    assert outer(1) == 9
    assert asyncio.run(asynchronous(1)) == 2
    assert current_task_run() is None
    assert not (home / "dbnd").exists()


def test_logging_outside_of_a_run_says_so_once(capsys):
    log._say_untracked.cache_clear()
    log_metric("a", 1)
    log_artifact("a", "b")
    assert capsys.readouterr().err.count("outside of a run") == 1


def test_a_tracked_script_makes_the_calls_of_the_protocol_in_order(conf, journalled):
    with dbnd_tracking("job", "name", "project", conf) as run:
        assert outer(1) == 9
        log_metrics({"x": 1, "y": 2.5})
    events = journalled()
    assert [call for call, _ in events] == [
        "init_run",
        "update_task_run_attempts",
        *("add_task_runs", "update_task_run_attempts"),  # outer
        *("add_task_runs", "update_task_run_attempts", "log_metrics", "log_targets", "update_task_run_attempts"),
        *("add_task_runs", "update_task_run_attempts", "log_metrics", "log_targets", "update_task_run_attempts"),
        *("log_targets", "update_task_run_attempts"),
        "log_metrics",
        "update_task_run_attempts",
        "set_run_state",
    ]
    info = events[0][1]["init_args"]["new_run_info"]
    assert (info["job_name"], info["name"], info["project_name"]) == ("job", "name", "project")
    assert info["run_uid"] == run.uid
    assert [name for name, state in states(events) if state == "SUCCESS"] == ["add", "add_2", "outer", "job"]
    assert events[-1][1]["state"] == "SUCCESS"
    names = task_names(events)
    pairs = [[names[uid] for uid in pair] for info, _ in task_runs(events) for pair in info["parent_child_map"]]
    assert pairs == [["job", "outer"], ["outer", "add"], ["outer", "add_2"]]
    metrics = [m["metric"] for call, body in events if call == "log_metrics" for m in body["metrics_info"]]
    assert [(m["key"], m["value"], m.get("step")) for m in metrics] == [
        ("sum", 3, 1),
        ("sum", 6, 1),
        ("x", 1, None),
        ("y", 2.5, None),
    ]


def test_arguments_become_params_with_secrets_masked(conf, journalled):
    with pytest.raises(ValueError, match="boom"), dbnd_tracking("job", conf=conf):
        bad(x=[1, 2])
    (params,) = [t["task_run_params"] for _, t in task_runs(journalled()) if t["name"] == "bad"]
    assert {p["parameter_name"]: p["value"] for p in params} == {"x": "[1, 2]", "password": "***"}


def test_a_failing_task_blames_itself_and_its_callers_but_not_the_script(conf, journalled):
    with pytest.raises(ValueError, match="password=hunter2 x=7"), dbnd_tracking("job", conf=conf):
        calls_bad(7)
    events = journalled()
    assert states(events)[-3:] == [("bad", "FAILED"), ("calls_bad", "FAILED"), ("job", "UPSTREAM_FAILED")]
    updates = [u for c, b in events if c == "update_task_run_attempts" for u in b["task_run_attempt_updates"]]
    errors = [update["error"] for update in updates[-3:]]
    assert errors[2] is None
    for error in errors[:2]:
        assert error["msg"] == "boom: password=*** x=7"
        assert error["exc_type"] == "<class 'ValueError'>"
        assert "hunter2 x" not in str(error)
        assert "/dbnd/_" not in error["traceback"]
        assert "raise ValueError" in error["traceback"]
    assert [body["state"] for call, body in events if call == "set_run_state"] == ["FAILED"]
    assert [body["state"] for call, body in events if call == "set_unfinished_tasks_state"] == ["FAILED"]


def test_a_script_that_raises_itself_is_blamed(conf, journalled):
    with pytest.raises(KeyError), dbnd_tracking("job", conf=conf):
        add(1)
        raise KeyError("mine")
    events = journalled()
    assert states(events)[-1] == ("job", "FAILED")
    assert events[-1][0] == "set_unfinished_tasks_state"


@pytest.mark.parametrize(
    ("error", "state", "run_state"),
    [
        (KeyboardInterrupt(), "CANCELLED", "CANCELLED"),
        (SystemExit(0), "SUCCESS", "SUCCESS"),
        (SystemExit(3), "FAILED", "FAILED"),
    ],
)
def test_interruption_and_exit_have_their_states(conf, journalled, error, state, run_state):
    with pytest.raises(type(error)), dbnd_tracking("job", conf=conf):
        raise error
    events = journalled()
    assert states(events)[-1] == ("job", state)
    assert next(body["state"] for call, body in events if call == "set_run_state") == run_state


def test_coroutines_are_tasks(conf, journalled):
    async def both():
        return await asyncio.gather(asynchronous(1), asynchronous(2))

    with dbnd_tracking("job", conf=conf):
        assert asyncio.run(both()) == [2, 3]
    assert sorted(task_names(journalled()).values()) == ["job", "renamed", "renamed_2"]


def test_threads_belong_to_the_run(conf, journalled):
    with dbnd_tracking("job", conf=conf):
        threads = [threading.Thread(target=add, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(task_names(journalled()).values()) == ["add", "add_2", "add_3", "add_4", "job"]


def test_the_wrapper_is_still_the_function():
    assert add.__name__ == "add"
    assert add.__wrapped__(1, 2) == 3
    with pytest.raises(TypeError, match="missing 1 required positional argument"):
        add()


@pytest.mark.parametrize("annotation", ["os.no_such_name", "no_such_name", "list[int"])
def test_an_annotation_that_cannot_be_evaluated_harms_nobody(conf, annotation):
    def function(x=1.5):
        return x

    function.__annotations__["x"] = annotation
    with dbnd_tracking("job", conf=conf):
        assert task(function)(2.5) == 2.5


def test_what_a_task_prints_is_logged_once_whatever_its_caller_has_replaced(conf, journalled):
    @task
    def prints():
        sys.stdout.write("out\n")
        sys.stderr.write("err\n")

    @task
    def redirects():
        with contextlib.redirect_stdout(io.StringIO()):
            prints()

    with dbnd_tracking("job", conf=conf) as run:
        run.captures_output = True
        redirects()
    assert [body["log_body"] for call, body in journalled() if call == "save_task_run_log"] == ["out\nerr\n"]


def test_names_of_any_type_are_texts(conf, journalled):
    with dbnd_tracking(5, 6, 7, conf=conf):  # type: ignore[arg-type]
        task(functools.partial(abs, -1))()
        task(name=8)(abs)(1)  # type: ignore[call-overload]
    events = journalled()
    info = events[0][1]["init_args"]["new_run_info"]
    assert (info["job_name"], info["name"], info["project_name"]) == ("5", "6", "7")
    assert sorted(task_names(events).values()) == ["5", "8", "partial"]


def test_generators_are_refused():
    with pytest.raises(UsageError, match="a generator's body does not run"):

        @task
        def generator():
            yield 1


def test_a_run_started_by_a_task_names_its_parent(conf, journalled, python):
    script = f"from dbnd import dbnd_tracking\nwith dbnd_tracking('child', conf={conf}): pass"
    with dbnd_tracking("parent", conf=conf) as run:
        assert python(script).returncode == 0
        root = run.root
    assert "DBND_ROOT_RUN_UID" not in os.environ
    inits = {b["init_args"]["new_run_info"]["job_name"]: b["init_args"] for c, b in journalled() if c == "init_run"}
    child = inits["child"]
    assert child["root_run_uid"] == run.uid
    assert child["new_run_info"]["root_run"]["root_task_run_uid"] == root.uid
    info = child["task_runs_info"]
    assert info["parent_task_run_uid"] == root.uid
    assert info["parent_task_run_attempt_uid"] == root.attempt_uid
    assert info["parent_child_map"] == info["upstreams_map"] == [[root.uid, child["driver_task_uid"]]]
    assert inits["parent"]["root_run_uid"] == run.uid


def test_contexts_nest_and_end(conf):
    assert get_databand_context() is None
    with new_dbnd_context(conf) as first:
        assert get_databand_context() is first
        with new_dbnd_context({**conf, "run_info.name": "inner"}) as second:
            assert dbnd.config.get("run_info", "name") == "inner"
            assert get_databand_context() is second
        assert get_databand_context() is first
    assert get_databand_context() is None


def test_a_context_with_wrong_configuration_is_not_entered():
    with pytest.raises(ConfigError, match=r"core\.flush_timeout"), new_dbnd_context({"core.flush_timeout": "x"}):
        pytest.fail("entered")
    assert get_databand_context() is None


def test_unknown_schemes_are_configuration_errors():
    with pytest.raises(ConfigError, match="its scheme is none of"), new_dbnd_context({"core.databand_url": "ftp://h"}):
        pytest.fail("entered")


def test_failing_at_the_end_is_opt_in(conf, capsys):
    with dbnd_tracking("job", conf=conf):
        pass
    assert "events are not delivered" in capsys.readouterr().err
    conf["core"]["tracker_raise_on_error"] = True
    with pytest.raises(TrackingError, match="events are not delivered"), dbnd_tracking("job", conf=conf):
        pass


def test_a_run_that_ends_while_another_thread_logs_has_delivered_its_own(server):
    core = {"databand_url": server.url, "databand_access_token": "t", "tracker_raise_on_error": True}
    is_over = threading.Event()

    def log_on():
        while not is_over.is_set():
            log_metric("n", 1)

    other = threading.Thread(target=log_on)
    try:
        with dbnd_tracking("outer", conf={"core": core}):
            other.start()
            for _ in range(3):
                with dbnd_tracking("inner", conf={"core": core}):
                    pass
            is_over.set()
            other.join()
    finally:
        is_over.set()


def test_public_names_are_importable_and_no_more():
    for name in dbnd.__all__:
        assert getattr(dbnd, name) is not None
    assert set(dbnd.__all__) <= set(dir(dbnd))
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = dbnd.nothing
