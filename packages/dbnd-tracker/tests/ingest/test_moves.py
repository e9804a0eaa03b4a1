"""A task run that was a run of its own, and is told to be in another one: what an MLflow run becomes with a parent."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import select

from dbnd_tracker._ingest.moves import current_runs, replace_parents
from dbnd_tracker._storage.models import Attempt, Run, TaskRelation, TaskRun


@pytest.fixture
def own(tracker: Any, make_run: Any) -> Any:
    """A run whose root task run has its uid, with a child below it that has points."""
    run = make_run(name="child")
    run.root.uid = run.uid
    run.below = run.task("below")
    tracker.call("init_run", run.init())
    tracker.call("add_task_runs", run.add(run.below))
    tracker.call("log_metrics", run.below.floats("m", 2))
    return run


def _runs(tracker: Any) -> list[str]:
    with tracker.database.read() as session:
        return list(session.scalars(select(Run.uid)))


def _move(tracker: Any, task: Any, parent: Any) -> None:
    body = {"task_runs_info": parent.run.infos(task.info(run_uid=parent.run.uid), children=((parent, task),))}
    tracker.call("add_task_runs", body)


def test_a_run_of_its_own_moves_below_its_parent_with_all_that_is_in_it(tracker: Any, own: Any) -> None:
    run, parent = tracker.started(name="parent")

    _move(tracker, own.root, parent)
    tracker.call("log_metrics", own.root.floats("n", 3))

    assert _runs(tracker) == [run.uid]
    names = {view.task_run_uid: view for view in tracker.run(run).task_runs}
    assert names.keys() == {run.root.uid, parent.uid, own.uid, own.below.uid}
    assert [metric.points for metric in names[own.below.uid].metrics] == [2]
    assert [metric.points for metric in names[own.uid].metrics] == [3]
    with tracker.database.read() as session:
        assert len(set(session.scalars(select(Attempt.run_id)))) == 1
        arrows = select(TaskRelation.from_uid).where(TaskRelation.to_uid == own.uid, TaskRelation.kind == "child")
        assert list(session.scalars(arrows)) == [parent.uid]


def test_what_names_the_former_run_does_no_harm(tracker: Any, own: Any) -> None:
    run, parent = tracker.started(name="parent")
    _move(tracker, own.root, parent)
    late = own.task("late")

    tracker.call("set_run_state", own.state("FAILED"))
    assert tracker.call("heartbeat", {"run_uid": own.uid}) == "running"
    tracker.call("init_run", own.init(name="renamed", description="of the child"))
    tracker.call("add_task_runs", own.add(late))
    tracker.call("log_metrics", late.floats("m", 1))

    assert _runs(tracker) == [run.uid]
    found = tracker.run(run)
    assert (found.name, found.description, found.state) == ("parent", None, "running")
    assert {view.task_run_uid for view in found.task_runs} >= {late.uid, own.uid}
    assert [view.task_run_uid for view in found.task_runs if view.is_root] == [run.root.uid]


def test_a_task_run_moves_from_one_run_to_another(tracker: Any) -> None:
    (run, task), (other, parent) = tracker.started(name="one"), tracker.started(name="two")
    below = run.task("below")
    tracker.call("add_task_runs", run.add(below, parent=task))

    _move(tracker, task, parent)

    assert {view.task_run_uid for view in tracker.run(run).task_runs} == {run.root.uid}
    moved = {view.task_run_uid for view in tracker.run(other).task_runs}
    assert moved == {other.root.uid, parent.uid, task.uid, below.uid}


def test_runs_that_are_said_to_be_in_each_other_are_both_found(tracker: Any, make_run: Any) -> None:
    one, two = make_run(name="one"), make_run(name="two")
    for run in (one, two):
        run.root.uid = run.uid
        tracker.call("init_run", run.init())

    _move(tracker, one.root, two.root)
    _move(tracker, two.root, one.root)

    [left] = _runs(tracker)
    with tracker.database.read() as session:
        assert set(session.scalars(select(TaskRun.run_uid))) == {left}


def test_a_task_run_hangs_below_the_parent_that_was_said_last(tracker: Any, own: Any) -> None:
    other = own.task("other")
    tracker.call("add_task_runs", own.add(other))
    tracker.call("add_task_runs", own.add(own.below, parent=other))
    with tracker.database.read() as session:
        arrows = select(TaskRelation.kind, TaskRelation.from_uid, TaskRelation.to_uid)
        child, below, parent = own.below.uid, other.uid, own.root.uid
        assert {tuple(row) for row in session.execute(arrows)} == {
            ("child", parent, below),
            ("upstream", below, parent),
            ("child", below, child),
            ("upstream", child, below),
        }
    both = own.infos(children=((own.root, own.below), (other, own.below)))
    tracker.call("add_task_runs", {"task_runs_info": both})
    with tracker.database.read() as session:
        arrows = select(TaskRelation.from_uid).where(TaskRelation.to_uid == child, TaskRelation.kind == "child")
        assert set(session.scalars(arrows)) == {parent, below}


def test_a_run_that_is_detached_is_one_of_its_own_again_with_all_that_is_below_it(tracker: Any, own: Any) -> None:
    run, parent = tracker.started(name="parent")
    _move(tracker, own.root, parent)
    body = own.init(name="alone")
    body["init_args"]["task_runs_info"]["detached"] = True
    for _ in range(2):
        tracker.call("init_run", body)
    assert {view.task_run_uid for view in tracker.run(run).task_runs} == {run.root.uid, parent.uid}
    found = tracker.run(own)
    assert found.name == "alone"
    assert [(v.task_run_uid, v.parent_task_run_uid) for v in found.task_runs] == [
        (own.uid, None),
        (own.below.uid, own.uid),
    ]
    assert [metric.points for view in found.task_runs for metric in view.metrics] == [2]
    with tracker.database.read() as session:
        runs = select(Attempt.run_id).where(Attempt.task_run_uid.in_([own.uid, own.below.uid]))
        assert set(session.scalars(runs)) == {session.scalar(select(Run.id).where(Run.uid == own.uid))}


def test_facts_that_are_said_again_replace_the_old_ones(tracker: Any, own: Any) -> None:
    tracker.call("init_run", own.init(name="new", user="bo", description="text"))
    found = tracker.run(own)
    assert (found.name, found.user, found.description) == ("new", "bo", "text")
    tracker.call("init_run", own.init(name="new", description=""))
    assert tracker.run(own).description == ""


def test_no_statement_names_more_task_runs_than_databases_take(tracker: Any) -> None:
    uids = [f"{number:036x}" for number in range(66_000)]  # SQLite takes some 32,000 in one, PostgreSQL 65,535

    def work(writer: Any) -> None:
        assert current_runs(writer, uids) == dict(zip(uids, uids, strict=True))
        replace_parents(writer, [(uids[0], uid) for uid in uids])

    tracker.database.write(work)
