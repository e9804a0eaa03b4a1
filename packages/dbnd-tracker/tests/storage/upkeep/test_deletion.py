"""What is deleted stays deleted, whoever still sends it, and nothing of it lands elsewhere."""

from __future__ import annotations

import uuid
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import func, select, text

from dbnd._model.points import group
from dbnd._tracking.contracts import Batch
from dbnd_tracker._ingest import apply_batch, apply_call, apply_points
from dbnd_tracker._storage.base import Base
from dbnd_tracker._storage.models import Deleted
from dbnd_tracker._storage.upkeep.deletion import delete_runs


def _delete(tracker: Any, *runs: Any) -> None:
    uids = [run.uid for run in runs]
    assert tracker.database.write(lambda writer: delete_runs(writer.session, uids)) == len(runs)


def _rows(tracker: Any) -> dict[str, int]:
    """How many rows each table has, but for the record itself and names, which are kept."""
    with tracker.database.read() as session:
        return {
            name: session.scalar(select(func.count()).select_from(table))
            for name, table in Base.metadata.tables.items()
            if name not in {"deleted", "metric_keys"}
        }


def _dropped(tracker: Any) -> dict[str, int]:
    with tracker.database.read() as session:
        found = session.execute(select(Deleted.uid, Deleted.dropped).where(Deleted.uid == Deleted.run_uid))
        return {row.uid: row.dropped for row in found}


def test_a_deleted_id_is_never_used_again(tracker: Any, database_url: str, open_tracker: Any) -> None:
    """Neither by the process that has deleted it nor by another one, whose cache knows it."""
    first, loss = tracker.started()
    tracker.call("log_metrics", loss.floats("loss", 3))
    other = open_tracker(database_url)
    _delete(other, first)
    _, accuracy = other.started()
    other.call("log_metrics", accuracy.floats("accuracy", 10))

    tracker.call("log_metrics", loss.metrics(loss.metric("loss", value_float=1001.0)))
    tracker.call("log_metrics", loss.metrics(loss.metric("late", "mlflow.param", value_str="0.1")))
    tracker.call("log_artifact", {"task_run_attempt_uid": loss.attempt, "name": "a", "path": "/a"})

    [metric] = other.task(accuracy).metrics
    assert (metric.key, metric.points, metric.max) == ("accuracy", 10, 9.0)
    assert [param.name for param in other.task(accuracy).params] == ["lr"]
    assert _dropped(tracker) == {first.uid: 3}


@pytest.mark.parametrize("table", ["attempts", "metric_keys", "metric_series", "runs", "task_definitions", "task_runs"])
def test_ids_go_on_where_they_were_when_all_rows_are_deleted(sqlite_tracker: Any, table: str) -> None:
    _, task = sqlite_tracker.started()
    sqlite_tracker.call("log_metrics", task.floats("m", 1))
    with sqlite_tracker.database.read() as session:
        last = session.scalar(text(f"SELECT max(id) FROM {table}"))
        for name in ("metrics", "metric_series", "metric_keys", "params", "attempts", "task_runs", "runs"):
            session.execute(text(f"DELETE FROM {name}"))
        session.execute(text("DELETE FROM task_definitions"))
        session.commit()

    _, task = sqlite_tracker.started()
    sqlite_tracker.call("log_metrics", task.floats("m", 1))

    with sqlite_tracker.database.read() as session:
        assert session.scalar(text(f"SELECT min(id) FROM {table}")) == last + 1


def _later_calls(run: Any, task: Any) -> list[tuple[str, Any, int]]:
    """What a run may still send, and how many events each is."""
    attempt, late = {"task_run_attempt_uid": task.attempt}, run.task("late")
    again = replace(task, attempt=str(uuid.uuid4()))
    target = {
        "run_uid": run.uid,
        "task_run_uid": task.uid,
        "task_run_name": "t",
        **attempt,
        "param_name": "p",
        "target_path": "/t",
        "operation_type": "read",
        "operation_status": "OK",
        **dict.fromkeys(("value_preview", "data_dimensions", "data_schema", "data_hash")),
    }
    return [
        ("init_run", run.init(), 1),
        ("add_task_runs", run.add(task), 1),
        ("add_task_runs", run.add(late), 1),
        ("log_metrics", late.floats("loss", 2), 2),
        ("update_task_run_attempts", late.update("SUCCESS"), 1),
        ("log_metrics", task.floats("loss", 4), 4),
        ("log_metrics", task.metrics(task.metric("lr", "mlflow.param", value_str="1")), 1),
        ("update_task_run_attempts", task.update("SUCCESS"), 1),
        ("update_task_run_attempts", again.update("RUNNING"), 1),
        ("log_metrics", again.floats("loss", 3), 3),
        ("set_task_reused", {"task_run_uid": task.uid, "task_outputs_signature": "1"}, 1),
        ("save_task_run_log", {**attempt, "log_body": "text"}, 1),
        ("save_external_links", {**attempt, "external_links_dict": {"a": "b"}}, 1),
        ("log_artifact", {**attempt, "name": "a", "path": "/a"}, 1),
        ("log_dbt_metadata", {**attempt, "dbt_run_metadata": {"a": 1}}, 1),
        ("set_run_state", run.state("SUCCESS"), 1),
        ("set_unfinished_tasks_state", run.state("FAILED"), 1),
        ("log_targets", {"targets_info": [target]}, 1),
    ]


def test_what_a_deleted_run_still_sends_is_dropped_and_counted(tracker: Any) -> None:
    run, task = tracker.started()
    tracker.call("log_metrics", task.floats("loss", 2))
    _delete(tracker, run)
    before, expected = _rows(tracker), 0
    for call, body, events in _later_calls(run, task):
        applied = apply_call(tracker.database, call, body)
        expected += events
        assert applied.dropped == {run.uid: events}, call
    assert tracker.call("heartbeat", {"run_uid": run.uid}) == "running"

    assert _rows(tracker) == before
    assert _dropped(tracker) == {run.uid: expected}


def test_a_batch_of_two_runs_keeps_the_points_of_the_one_that_is_there(tracker: Any) -> None:
    (gone, lost), (_, kept) = tracker.started(), tracker.started()
    _delete(tracker, gone)

    applied = apply_points(
        tracker.database,
        [
            group(lost.attempt, "user", [("m", 1.0, 5, 1, None)] * 3),
            group(kept.attempt, "user", [("m", 2.0, 5, 1, None)] * 2),
            group(lost.attempt, "mlflow.tag", [("t", "x", 5, None, "s")]),
        ],
    )

    assert applied.dropped == {gone.uid: 4}
    assert [point.value for point in tracker.history(kept, "m")] == [2.0, 2.0]


def test_what_is_started_below_a_deleted_run_is_deleted_with_it(tracker: Any, make_run: Any) -> None:
    run, task = tracker.started()
    _delete(tracker, run)
    before = _rows(tracker)
    for above in ({"root_run_uid": run.uid}, {"parent_task_run_uid": task.uid}):
        child = make_run()
        body = child.init()
        body["init_args"]["root_run_uid"] = above.get("root_run_uid", child.uid)
        body["init_args"]["task_runs_info"]["parent_task_run_uid"] = above.get("parent_task_run_uid")
        tracker.call("init_run", body)
        tracker.call("add_task_runs", child.add(deep := child.task()))
        tracker.call("log_metrics", child.root.floats("m", 2))
        tracker.call("log_metrics", deep.floats("m", 2))
        tracker.call("set_run_state", child.state("SUCCESS"))

    assert _rows(tracker) == before
    assert _dropped(tracker) == {run.uid: 14}


def test_a_child_run_that_is_there_already_stays(tracker: Any, make_run: Any) -> None:
    run, _ = tracker.started()
    child = make_run()
    body = child.init()
    body["init_args"]["root_run_uid"] = run.uid
    tracker.call("init_run", body)
    _delete(tracker, run)

    tracker.call("init_run", body)
    tracker.call("log_metrics", child.root.floats("m", 2))

    assert tracker.run(child).task_runs[0].metrics[0].points == 2


def test_a_deleted_run_is_made_again_when_a_person_asks_for_it(tracker: Any) -> None:
    run, task = tracker.started()
    tracker.call("log_metrics", task.floats("m", 3))
    _delete(tracker, run)

    body = run.init()
    body["init_args"]["task_runs_info"]["recreate"] = True
    tracker.call("init_run", body)
    tracker.call("add_task_runs", run.add(task))
    tracker.call("log_metrics", task.floats("m", 2))

    assert tracker.run(run).name == run.name
    assert len(tracker.history(task, "m")) == 2
    assert _dropped(tracker) == {}


def test_a_journal_that_is_delivered_after_the_deletion_changes_nothing(tracker: Any) -> None:
    """Each batch once, and a batch that is sent again is not counted again."""
    run, task = tracker.started()
    _delete(tracker, run)
    journal = uuid.uuid4().hex
    batches = [Batch("log_metrics", task.floats("m", 3), journal, 1, 3), Batch("init_run", run.init(), journal, 4, 4)]

    for batch in [*batches, *batches]:
        apply_batch(tracker.database, batch)

    assert _dropped(tracker) == {run.uid: 4}
    assert _rows(tracker)["runs"] == 0


@pytest.mark.alike
def test_a_server_says_what_it_has_dropped(tracker: Any, server: Any) -> None:
    run, task = tracker.started()
    server.post("log_metrics", task.floats("m", 2))
    assert "X-Databand-Dropped" not in server.post("log_metrics", task.floats("m", 2)).headers
    _delete(tracker, run)

    answer = server.post("log_metrics", task.floats("m", 2))

    assert (answer.status_code, answer.headers["X-Databand-Dropped"]) == (200, f"{run.uid}=2")
    assert "databand_tracker_dropped_events_total 2.0" in server.get("/metrics").text
