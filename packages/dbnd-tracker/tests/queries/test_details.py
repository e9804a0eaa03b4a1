"""Runs and task runs in full: what is read for one task run does not grow with its run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.engine import Engine

from dbnd_tracker._queries.details import children_of, run_detail, task_run_detail
from dbnd_tracker._queries.table.rows import rows_by_uid
from dbnd_tracker._reader import DatabaseReader
from dbnd_tracker._storage.models import Base


def _read(ask: Callable[[], object]) -> tuple[int, int]:
    """How many statements ``ask`` executes, and how many rows it loads."""
    counts = [0, 0]

    def statement(*_: object) -> None:
        counts[0] += 1

    def row(*_: object) -> None:
        counts[1] += 1

    event.listen(Engine, "before_cursor_execute", statement)
    event.listen(Base, "load", row, propagate=True)
    try:
        ask()
    finally:
        event.remove(Engine, "before_cursor_execute", statement)
        event.remove(Base, "load", row)
    return counts[0], counts[1]


def _family(tracker: Any, make_run: Any, children: int) -> tuple[Any, Any, Any]:
    """A run in which one task has started many others, each of which has logged something; the last one of these."""
    run = make_run()
    parent = run.task("parent")
    tasks = [run.task(f"t{i}") for i in range(children)]
    tracker.call("init_run", run.init())
    infos = run.infos(*(task.info() for task in (parent, *tasks)), children=tuple((parent, task) for task in tasks))
    tracker.call("add_task_runs", {"task_runs_info": infos})
    logged = [task.metric(key, value_float=1.0) for task in tasks for key in ("a", "b")]
    tracker.call("log_metrics", parent.metrics(*logged))
    return run, parent, tasks[-1]


@pytest.mark.parametrize("question", ["detail", "reader", "page", "clients"])
def test_one_task_run_costs_the_same_in_a_run_of_any_size(
    sqlite_tracker: Any, serve: Any, make_run: Any, question: str
) -> None:
    server = serve(sqlite_tracker.database)
    costs = []
    for children in (3, 300):
        run, _, task = _family(sqlite_tracker, make_run, children)

        def ask(run: Any = run, task: Any = task) -> object:
            if question == "page":
                return server.get(f"/app/jobs/x/{run.uid}/{task.uid}").raise_for_status()
            if question == "clients":
                return server.post("task/tasks", {"uids": [task.uid]}).raise_for_status()
            if question == "reader":
                return DatabaseReader(sqlite_tracker.database, "it").task_run(task.uid)
            with sqlite_tracker.database.read() as session:
                return task_run_detail(session, task.uid)

        ask()
        costs.append(_read(ask))
    small, large = costs
    assert large == small
    assert large[1] < 20


@pytest.mark.alike
def test_a_task_run_is_the_same_alone_and_in_its_run(tracker: Any, make_run: Any) -> None:
    """Also where task runs name their parents in a circle, and one is below it."""
    run = make_run()
    one, two, three, below, outside = tasks = [run.task(name) for name in ("one", "two", "three", "below", "outside")]
    arrows = ((one, two), (two, three), (three, one), (one, below), (run.root, outside))
    tracker.call("init_run", run.init())
    tracker.call("add_task_runs", {"task_runs_info": run.infos(*(task.info() for task in tasks), children=arrows)})
    tracker.call("log_metrics", two.floats("loss", 3))
    with tracker.database.read() as session:
        whole = run_detail(session, run.uid)
        assert whole is not None
        assert len(whole.task_runs) == 6
        for view in whole.task_runs:
            assert task_run_detail(session, view.task_run_uid) == view
        depths = {view.name: view.depth for view in whole.task_runs}
        assert sorted(depths[name] for name in ("one", "two", "three")) == [0, 1, 2]
        assert depths["below"] == depths["one"] + 1
        first = min(one.uid, two.uid, three.uid)
        assert {view.task_run_uid for view in whole.task_runs if view.depth == 0} == {run.root.uid, first}


@pytest.mark.alike
def test_what_is_nested_deep_takes_a_bounded_number_of_queries(tracker: Any, make_run: Any) -> None:
    run = make_run()
    tasks = [run.task(f"t{number}") for number in range(300)]
    tracker.call("init_run", run.init())
    body = run.add(*tasks)
    pairs = zip([run.root, *tasks], tasks, strict=False)
    body["task_runs_info"]["parent_child_map"] = [[parent.uid, child.uid] for parent, child in pairs]
    tracker.call("add_task_runs", body)
    found: list[Any] = []

    def ask() -> None:
        with tracker.database.read() as session:
            found.append(task_run_detail(session, tasks[-2].uid))
            found.extend(children_of(session, tasks[-2].uid))
            found.extend(rows_by_uid(session, [tasks[-1].uid]))

    assert _read(ask)[0] < 150
    detail, child, row = found
    assert (detail.parent_task_run_uid, detail.depth, child.depth) == (tasks[-3].uid, 299, 300)
    assert row.nested_in[-2:] == ["t297", "t298"]
