"""How much one call may hold, and what it costs."""

from __future__ import annotations

import tracemalloc
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from kit.clock import processor_time
from sqlalchemy import event

from dbnd._tracking.contracts import Batch, TooLargeError
from dbnd_tracker._embedded import EmbeddedTransport
from dbnd_tracker._errors import PayloadError, TooMuchError
from dbnd_tracker._ingest import CALLS, apply_points, limits
from dbnd_tracker._schemas.validation import UnknownKeys, validated


def _infos(**changes: Any) -> dict[str, Any]:
    return {"task_runs_info": changes}


_WRONG = [0] * 100_000


@pytest.mark.parametrize(
    ("call", "body"),
    [
        ("log_metrics", {"metrics_info": _WRONG}),
        ("log_metrics", {"metrics_info": [{}] * 100_000}),
        ("log_targets", {"targets_info": _WRONG}),
        ("log_datasets", {"datasets_info": _WRONG}),
        ("log_datasets", {"datasets_info": [{"columns_stats": _WRONG, "data_dimensions": ["x"] * 100_000}]}),
        ("save_airflow_task_infos", {"airflow_task_infos": _WRONG}),
        ("update_task_run_attempts", {"task_run_attempt_updates": [{"error": 0}] * 100_000}),
        ("add_task_runs", _infos(task_runs=_WRONG, task_definitions=_WRONG, targets=_WRONG)),
        ("add_task_runs", _infos(parent_child_map=_WRONG, upstreams_map=[[0, 0]] * 100_000)),
        ("add_task_runs", _infos(parent_child_map=[_WRONG])),
        ("add_task_runs", _infos(task_runs=[{"task_run_params": _WRONG}])),
        ("add_task_runs", _infos(task_definitions=[{"task_param_definitions": _WRONG}])),
        ("init_run", {"init_args": _infos(task_runs=_WRONG)}),
        ("init_run", {"init_args": {"task_runs_info": _WRONG}}),
    ],
)
def test_a_body_that_is_wrong_in_many_places_costs_as_much_as_one_error(call: str, body: Any) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(PayloadError) as caught:
            validated(call, CALLS[call].body, body)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8_000_000  # an error for each takes some 90 MB
    assert len(str(caught.value)) < 500


def test_unknown_keys_without_end_are_counted_and_not_kept() -> None:
    body = {"run_uid": str(uuid.uuid4()), **{f"key {number}": 0 for number in range(200_000)}}
    keys = UnknownKeys()
    tracemalloc.start()
    try:
        keys.note("heartbeat", CALLS["heartbeat"].body, body)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert keys.counts() == {"heartbeat": 200_000}
    assert peak < 3_000_000


def test_the_routes_that_ask_for_many_uids_report_the_first_wrong_one(sqlite_tracker: Any, serve: Any) -> None:
    server = serve(sqlite_tracker.database)
    for path, body in (("runs/stop", _WRONG), ("task/tasks", {"uids": _WRONG[:1000]})):
        answer = server.post(path, body)
        assert (answer.status_code, len(answer.content) < 500) == (422, True)
    # What is no tracking call has no large body.
    assert server.post("runs/stop", ["x" * 2_000_000]).status_code == 413


def test_texts_are_no_values(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_VALUES", 10)
    limits.check_json(b'{"log": "' + b'a, [b], {c}, \\", ' * 1000 + b'", "other": "\\\\", "third": [1, 2, 3]}')
    for raw in (b"[" * 11, b"[0" + b",0" * 10 + b"]", b'{"a": "x", "b": [' + b"{}," * 10 + b'0], "c": "y"}'):
        with pytest.raises(TooMuchError, match="more than 10 values"):
            limits.check_json(raw)


def test_texts_that_are_not_closed_are_counted_in_linear_time() -> None:
    def check(size: int) -> None:
        with pytest.raises(TooMuchError):
            limits.check_json(b"," * (limits.MAX_VALUES + 1) + b'"' + b'\\"' * size)

    short, long = (processor_time(lambda size=size: check(size)) for size in (5_000, 500_000))
    assert long < 10 * max(short, 0.1)


def test_very_many_empty_texts_are_too_many_values(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_VALUES", 10_000)
    with pytest.raises(TooMuchError):
        limits.check_json(b'"' + b"," * (limits.MAX_VALUES + 1) + b'"' + b'""' * (2 * limits.MAX_VALUES + 2))


def test_lists_in_lists_are_counted_however_deep_they_are() -> None:
    nested: list[Any] = []
    for _ in range(limits.MAX_ENTRIES):
        nested = [nested]
    limits.check(nested)
    with pytest.raises(TooMuchError, match="more than 50,000 entries"):
        limits.check([nested])


def test_schemas_that_travel_as_text_hold_no_more_than_a_body_may() -> None:
    large = '{"a": [' + "{}," * 80_000 + "{}]}"
    ids = dict.fromkeys(("run_uid", "task_run_uid", "task_run_attempt_uid"), str(uuid.uuid4()))
    targets = [
        {**ids, "target_path": "x", "operation_type": "read", "data_schema": schema}
        for schema in (large, '{"b": 1}', large, '{"c": [1, 2]}')
    ]
    body: Any = validated("log_targets", CALLS["log_targets"].body, {"targets_info": targets})
    found = [info.data_schema for info in body.targets_info]
    assert len(found[0]["a"]) == 80_001
    assert found[1:] == [{"b": 1}, {"text": large}, {"c": [1, 2]}]


def _points(count: int, names: int) -> list[Any]:
    members: list[Any] = []
    for number in range(count):
        members += [f"metric {number % names}", 1.0, 1_700_000_000_000_000 + number, number, None]
    return [[str(uuid.uuid4()), "user", members]]


@pytest.mark.parametrize("form", ["wire", "points", "raw"])
def test_too_much_is_refused_with_413_before_any_of_it_is_written(
    sqlite_tracker: Any, serve: Any, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    monkeypatch.setattr(limits, "MAX_POINTS", 20)
    monkeypatch.setattr(limits, "MAX_NAMES", 10)
    monkeypatch.setattr(limits, "MAX_VALUES", 1000)
    run, task = sqlite_tracker.started()
    server = serve(sqlite_tracker.database)

    def send(names: int, count: int) -> int:
        keys = [f"m{number % names}" for number in range(count)]
        if form == "points":
            members = [part for key in keys for part in (key, 1.0, 1_700_000_000_000_000, None, None)]
            body: Any = {"points": [[task.attempt, "user", members]]}
            headers = {"X-Databand-Points": "1"}
        else:
            extra = {"value_json": None} if form == "wire" else {"text": None}
            body = task.metrics(*(task.metric(key, value_float=1.0, **extra) for key in keys))
            headers = {}
        return int(server.post("log_metrics", body, headers=headers).status_code)

    assert [send(11, 11), send(1, 21), send(1, 500)] == [413, 413, 413]
    assert sqlite_tracker.task(task).metrics == []
    assert send(10, 20) == 200
    assert run.uid


@pytest.mark.parametrize("name", ["add_task_runs", "update_task_run_attempts", "log_targets", "log_datasets"])
def test_lists_are_bounded(sqlite_tracker: Any, make_run: Any, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(limits, "MAX_ENTRIES", 10)
    run = make_run()
    task = run.task()
    ids = {"run_uid": run.uid, "task_run_uid": task.uid, "task_run_attempt_uid": task.attempt}
    target = {**ids, "target_path": "p", "operation_type": "read"}
    members = ("operation_path", "value_preview", "data_dimensions", "data_schema")
    dataset = {
        **ids,
        **dict.fromkeys(members),
        "task_run_name": "t",
        "operation_type": "read",
        "operation_status": "OK",
    }
    bodies = {
        "add_task_runs": run.add(*(run.task(f"t{number}") for number in range(6))),
        "update_task_run_attempts": {
            "task_run_attempt_updates": task.update("RUNNING")["task_run_attempt_updates"] * 11
        },
        "log_targets": {"targets_info": [target] * 11},
        "log_datasets": {"datasets_info": [{**dataset, "data_dimensions": [1, 2]}] * 4},
    }
    with pytest.raises(TooMuchError, match="more than 10 entries"):
        sqlite_tracker.call(name, bodies[name])


def test_the_embedded_tracker_asks_for_parts(sqlite_tracker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_NAMES", 10)
    transport = EmbeddedTransport(f"sqlite:///{sqlite_tracker.database.path}")
    with pytest.raises(TooLargeError, match="more than 10 metrics"):
        transport.send(Batch("log_metrics", _points(11, 11), "0" * 32, 1, 11))
    transport.send(Batch("log_metrics", _points(10, 10), "0" * 32, 1, 10))
    transport.close()


def _questions(tracker: Any, work: Callable[[], object]) -> int:
    """How often ``work`` asks the database."""
    count = 0

    def note(_c: object, _d: object, text: str, *_: object) -> None:
        nonlocal count
        count += text.startswith("SELECT")

    event.listen(tracker.database._engine, "before_cursor_execute", note)
    try:
        work()
    finally:
        event.remove(tracker.database._engine, "before_cursor_execute", note)
    return count


@pytest.mark.alike
def test_many_task_runs_are_not_asked_for_one_by_one(tracker: Any, make_run: Any) -> None:
    run = make_run()
    tasks = [run.task(f"t{number}") for number in range(300)]
    added = _questions(tracker, lambda: tracker.call("add_task_runs", run.add(*tasks)))
    updates = [task.update("RUNNING")["task_run_attempt_updates"][0] for task in tasks]
    body = {"task_run_attempt_updates": updates}
    updated = _questions(tracker, lambda: tracker.call("update_task_run_attempts", body))
    assert added < 10
    assert updated < 10
    tracker.call("init_run", run.init())
    assert {view.state for view in tracker.run(run).task_runs if view.name.startswith("t")} == {"running"}
    assert len(tracker.run(run).task_runs) == 301


def test_series_are_looked_up_by_their_index(tracker: Any) -> None:
    """In the work of the database, new keys cost the same however many there are already."""
    statements: list[tuple[str, Any]] = []

    def note(_c: object, _d: object, text: str, parameters: Any, *_: object) -> None:
        if text.startswith("SELECT known.id"):
            statements.append((text, parameters))

    event.listen(tracker.database._engine, "before_cursor_execute", note)
    apply_points(tracker.database, _points(30, 30))
    event.remove(tracker.database._engine, "before_cursor_execute", note)
    assert len(statements) >= 3  # attempts, keys and series
    if tracker.database.path:
        with tracker.database.read() as session:
            for text, parameters in statements:
                plan = session.connection().exec_driver_sql(f"EXPLAIN QUERY PLAN {text}", parameters).all()
                assert any(row[3].startswith("SEARCH known USING") for row in plan), plan
