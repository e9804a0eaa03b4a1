from __future__ import annotations

import copy
import itertools
from typing import Any

import pytest

from dbnd_tracker._queries.details import run_detail


def test_a_run_is_shown_as_it_was_told(tracker: Any) -> None:
    run, task = tracker.started(name="bold_hopper", job="etl")
    tracker.call("update_task_run_attempts", task.update("RUNNING", "2026-03-04T05:06:10+00:00"))
    tracker.call("update_task_run_attempts", task.update("SUCCESS", "2026-03-04T05:06:12.5+00:00"))
    tracker.call("set_run_state", run.state("SUCCESS", "2026-03-04T05:07:07.000008+00:00"))

    found = tracker.run(run)

    assert (found.name, found.job_name, found.project_name, found.user) == ("bold_hopper", "etl", "demo", "ada")
    assert (found.state, found.source) == ("success", "generic_tracking")
    assert found.duration is not None
    assert found.duration.total_seconds() == 60
    assert [(view.depth, view.name, view.is_root) for view in found.task_runs] == [
        (0, "etl", True),
        (1, "train", False),
    ]
    view = tracker.task(task)
    assert (view.state, view.type, view.parent_task_run_uid) == ("success", "python", run.root.uid)
    assert view.duration is not None
    assert view.duration.total_seconds() == 2.5
    assert [(p.name, p.value, p.source) for p in view.params] == [("lr", "0.1", "task")]


def test_init_run_said_twice_changes_nothing(tracker: Any) -> None:
    run, task = tracker.started()
    tracker.call("update_task_run_attempts", task.update("FAILED"))
    tracker.call("set_run_state", run.state("FAILED"))
    before = tracker.run(run)

    tracker.call("init_run", run.init())
    tracker.call("add_task_runs", run.add(task))

    assert tracker.run(run) == before
    assert before.state == "failed"


def test_init_run_that_comes_after_the_end_does_not_reopen_the_run(tracker: Any, make_run: Any) -> None:
    run = make_run()
    tracker.call("set_run_state", run.state("SUCCESS"))
    tracker.call("heartbeat", {"run_uid": run.uid})

    tracker.call("init_run", run.init())

    found = tracker.run(run)
    assert (found.state, found.name) == ("success", run.name)
    # The time of receipt that stood in for the start has made way for the start itself.
    assert found.start_time.isoformat() == "2026-03-04T05:06:07.000008+00:00"


def test_an_existing_run_is_joined_without_run_info(tracker: Any) -> None:
    run, _ = tracker.started()
    joining = run.init()
    other = run.task("from_another_process")
    joining["init_args"]["new_run_info"] = None
    joining["init_args"]["task_runs_info"] = run.infos(other.info())

    tracker.call("init_run", joining)

    found = tracker.run(run)
    assert found.name == run.name
    assert {task.name for task in found.task_runs} == {"nightly", "train", "from_another_process"}


def test_everything_about_an_attempt_may_come_before_its_task_run(tracker: Any, make_run: Any) -> None:
    run = make_run()
    task = run.task()
    tracker.call("log_metrics", task.floats("loss", 3))
    tracker.call("save_task_run_log", {"task_run_attempt_uid": task.attempt, "log_body": "hello"})
    tracker.call(
        "save_external_links", {"task_run_attempt_uid": task.attempt, "external_links_dict": {"mlflow": "http://m"}}
    )
    tracker.call("update_task_run_attempts", task.update("SUCCESS"))
    tracker.call("add_task_runs", run.add(task))
    tracker.call("init_run", run.init())

    view = tracker.task(task)
    assert view.state == "success"
    assert view.links == {"mlflow": "http://m"}
    assert [(metric.key, metric.points) for metric in view.metrics] == [("loss", 3)]
    assert len(view.attempts) == 1


def test_states_that_arrive_in_the_wrong_order_keep_their_times(tracker: Any) -> None:
    _, task = tracker.started()
    tracker.call("update_task_run_attempts", task.update("SUCCESS", "2026-03-04T05:06:09+00:00"))
    tracker.call("update_task_run_attempts", task.update("RUNNING", "2026-03-04T05:06:08+00:00"))

    view = tracker.task(task)

    assert view.state == "success"
    assert view.duration.total_seconds() == 1


def test_what_says_later_that_it_runs_is_reopened(tracker: Any) -> None:
    run, task = tracker.started()
    tracker.call("update_task_run_attempts", task.update("RUNNING", "2026-03-04T05:06:10+00:00"))
    tracker.call("update_task_run_attempts", task.update("SUCCESS", "2026-03-04T05:06:12+00:00"))
    tracker.call("set_run_state", run.state("SUCCESS", "2026-03-04T05:06:12+00:00"))

    tracker.call("update_task_run_attempts", task.update("RUNNING", "2026-03-04T05:07:00+00:00"))
    tracker.call("set_run_state", run.state("RUNNING", "2026-03-04T05:07:00+00:00"))
    found, view = tracker.run(run), tracker.task(task)
    assert (found.state, found.end_time, view.state, view.end_time) == ("running", None, "running", None)
    assert view.start_time.second == 10

    tracker.call("update_task_run_attempts", task.update("CANCELLED", "2026-03-04T05:08:00+00:00"))
    tracker.call("set_run_state", run.state("CANCELLED", "2026-03-04T05:08:00+00:00"))
    assert (tracker.run(run).state, tracker.task(task).state) == ("cancelled", "cancelled")


def test_the_end_of_a_run_that_is_a_task_run_of_another_makes_no_run(tracker: Any, make_run: Any) -> None:
    _, task = tracker.started()
    stray = make_run()
    stray.uid = task.uid
    tracker.call("set_run_state", stray.state("SUCCESS"))
    with tracker.database.read() as session:
        assert run_detail(session, task.uid) is None


def test_links_are_merged_and_logs_replaced(tracker: Any) -> None:
    _, task = tracker.started()
    tracker.call("update_task_run_attempts", task.update("RUNNING", external_links_dict={"a": "http://a"}))
    for links in ({"b": "http://b"}, {"a": "http://c"}):
        tracker.call("save_external_links", {"task_run_attempt_uid": task.attempt, "external_links_dict": links})

    assert tracker.task(task).links == {"a": "http://c", "b": "http://b"}


def test_unfinished_tasks_get_the_state_and_finished_ones_keep_theirs(tracker: Any) -> None:
    run, task = tracker.started()
    done = run.task("done")
    tracker.call("add_task_runs", run.add(done))
    tracker.call("update_task_run_attempts", done.update("SUCCESS"))

    tracker.call("set_unfinished_tasks_state", run.state("UPSTREAM_FAILED"))

    assert tracker.task(task).state == "upstream_failed"
    assert tracker.task(done).state == "success"


@pytest.mark.parametrize("known_first", [True, False])
def test_a_reused_task_is_a_success(tracker: Any, make_run: Any, known_first: bool) -> None:
    run = make_run()
    task = run.task()
    calls = [
        ("add_task_runs", run.add(task)),
        ("set_task_reused", {"task_run_uid": task.uid, "task_outputs_signature": "x"}),
    ]
    tracker.call("init_run", run.init())
    for name, body in calls if known_first else reversed(calls):
        tracker.call(name, body)

    view = tracker.task(task)
    assert (view.state, view.is_reused) == ("success", True)


@pytest.mark.alike
def test_the_heartbeat_answers_the_state(tracker: Any) -> None:
    run, _ = tracker.started()
    assert tracker.call("heartbeat", {"run_uid": run.uid}) == "running"
    tracker.call("set_run_state", run.state("SHUTDOWN"))
    assert tracker.call("heartbeat", {"run_uid": run.uid}) == "shutdown"
    assert tracker.run(run).last_heartbeat is not None


def test_an_error_is_kept(tracker: Any, error: Any) -> None:
    _, task = tracker.started()
    tracker.call("update_task_run_attempts", task.update("FAILED", error=error))
    tracker.call("update_task_run_attempts", task.update(None, None))

    view = tracker.task(task)
    assert (view.state, view.error) == ("failed", error)


@pytest.mark.alike
def test_task_runs_that_are_parents_of_each_other_are_all_shown(tracker: Any) -> None:
    run, task = tracker.started()
    first, second = run.task("first"), run.task("second")
    infos = run.infos(first.info(), second.info(), children=((first, second), (second, first)))
    tracker.call("add_task_runs", {"task_runs_info": infos})

    assert sorted(view.name for view in tracker.run(run).task_runs) == ["first", "nightly", "second", "train"]
    assert len(tracker.run(run).task_runs) == 4
    assert tracker.task(task).depth == 1


def test_a_chain_of_a_thousand_nested_tasks_can_be_read(tracker: Any, make_run: Any) -> None:
    run = make_run()
    tasks = [run.task(f"t{i}") for i in range(1000)]
    infos = run.infos(*(t.info(task_run_params=[]) for t in tasks), children=tuple(itertools.pairwise(tasks)))
    tracker.call("init_run", run.init())
    tracker.call("add_task_runs", {"task_runs_info": infos})

    found = tracker.run(run)
    assert max(view.depth for view in found.task_runs) == 999
    assert found.model_dump_json()


def test_targets_datasets_and_artifacts_are_upserts(tracker: Any) -> None:
    run, task = tracker.started()
    uids = {"run_uid": run.uid, "task_run_uid": task.uid, "task_run_attempt_uid": task.attempt}
    dataset = {
        **uids,
        "task_run_name": "train",
        "operation_path": "s3://bucket/x.csv",
        "operation_type": "read",
        "operation_status": "NOK",
        "operation_error": "no access",
        "value_preview": None,
        "data_dimensions": [10, None],
        "data_schema": {"columns": ["a"], "mean": float("nan")},
    }
    target = {
        **uids,
        "target_path": "memory://x",
        "param_name": "result",
        "operation_type": "write",
        "operation_status": "OK",
        "data_schema": '{"type": "int"}',
    }
    for status in ("NOK", "OK"):
        tracker.call("log_datasets", {"datasets_info": [{**dataset, "operation_status": status}]})
        tracker.call("log_targets", {"targets_info": [target]})
        tracker.call("log_artifact", {"task_run_attempt_uid": task.attempt, "name": "m", "path": f"/{status}"})

    view = tracker.task(task)
    assert [(d.path, d.operation_status, d.data_dimensions) for d in view.datasets] == [
        ("s3://bucket/x.csv", "OK", [10, None])
    ]
    assert view.datasets[0].data_schema == {"columns": ["a"], "mean": "NaN"}
    assert [(t.path, t.data_schema) for t in view.targets] == [("memory://x", {"type": "int"})]
    assert [(a.name, a.path) for a in view.artifacts] == [("m", "/OK")]


def test_the_java_client_is_understood(tracker: Any, make_run: Any) -> None:
    run = make_run()
    body = copy.deepcopy(run.init(archived=True, target_date="2026-03-04T05:06:07.000008+00:00"))
    del body["version"]
    body["init_args"]["source"] = "generic_tracking"
    body["init_args"]["new_run_info"].pop("is_archived")
    body["init_args"]["af_context"] = {"dag_id": "d", "try_number": "1", "airflow_instance_uid": None}
    # Java's uids are cut from a hash: version and variant are not those of a uuid.
    run.uid = body["init_args"]["run_uid"] = "14014AAC-852A-0AA7-0000-0123456789AB"
    tracker.call("init_run", body)
    tracker.call("set_run_state", {"run_uid": run.uid, "state": "SUCCESS", "time_stamp": "2026-03-04T05:06:08Z"})

    run.uid = run.uid.lower()
    found = tracker.run(run)
    assert found.state == "success"
    assert found.end_time.isoformat() == "2026-03-04T05:06:08+00:00"
