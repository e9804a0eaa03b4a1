"""Bodies, headers and payloads that nobody meant: refused in a sentence, or stored so that they can be read."""

from __future__ import annotations

import copy
import gzip
import json
import zlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kit.scale import scaled

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
_HEADERS = st.dictionaries(
    st.sampled_from(
        [
            "Content-Encoding",
            "Content-Type",
            "Accept",
            "X-Databand-Batch",
            "X-Databand-Points",
            "X-Request-ID",
            "Cookie",
        ]
    ),
    st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=40)
    | st.sampled_from(["gzip", "deflate", "identity", "gzip, gzip", "1", f"{'0' * 32}:1-1", f"{'0' * 32}:9-2"]),
    max_size=4,
)
_CALLS = ("init_run", "log_metrics", "add_task_runs", "heartbeat", "log_datasets", "save_task_run_log", "nothing")


@st.composite
def _packed(draw: st.DrawFn) -> bytes:
    """Something that is gzip, was gzip, or never was."""
    raw = draw(st.binary(max_size=200) | _JSON.map(lambda value: json.dumps(value).encode()))
    kind = draw(st.integers(0, 5))
    if kind == 0:
        return raw
    packed = zlib.compress(raw) if kind == 1 else gzip.compress(raw)
    if kind == 2:
        return packed[: draw(st.integers(0, len(packed)))]
    if kind == 3:
        place = draw(st.integers(0, len(packed) - 1))
        return packed[:place] + draw(st.binary(min_size=1, max_size=3)) + packed[place + 1 :]
    return packed + draw(st.binary(max_size=5)) if kind == 4 else packed


@pytest.mark.timeout(1800)
def test_any_bytes_are_answered(server: Any) -> None:
    @settings(max_examples=scaled(60, 3000))
    @given(call=st.sampled_from(_CALLS), data=_packed(), headers=_HEADERS)
    def check(call: str, data: bytes, headers: dict[str, str]) -> None:
        answer = server.post(call, data=data, headers=headers)
        assert answer.status_code in {200, 400, 404, 405, 415}, (answer.status_code, answer.text)
        assert answer.status_code == 200 or answer.json()["detail"]

    check()
    assert server.get("/api/v1/auth/ping").ok


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths to all members of a JSON value."""
    members = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [*([path] if path else []), *(place for key, member in members for place in _places(member, (*path, key)))]


def _mutate(body: Any, path: tuple[Any, ...], value: Any) -> Any:
    changed = copy.deepcopy(body)
    parent = changed
    for key in path[:-1]:
        parent = parent[key]
    parent[path[-1]] = value
    return changed


@pytest.mark.timeout(1800)
def test_any_change_of_a_body_is_stored_or_refused(tracker: Any, server: Any, make_run: Any) -> None:
    run = make_run()
    task = run.task()
    dataset = {
        "run_uid": run.uid,
        "task_run_uid": task.uid,
        "task_run_attempt_uid": task.attempt,
        "task_run_name": "train",
        "operation_path": "s3://a",
        "operation_type": "read",
        "operation_status": "OK",
        "value_preview": None,
        "data_dimensions": [3, None],
        "data_schema": {"type": "DataFrame"},
        "columns_stats": [{"column_name": "a", "column_type": "int", "records_count": 3, "mean_value": 1.5}],
    }
    bodies = {
        "init_run": run.init(),
        "add_task_runs": run.add(task),
        "update_task_run_attempts": task.update("RUNNING"),
        "log_metrics": task.metrics(task.metric("loss", value_float=0.5, step=1), task.metric("x", value_json=[1])),
        "log_datasets": {"datasets_info": [dataset]},
        "save_task_run_log": {"task_run_attempt_uid": task.attempt, "log_body": "a"},
        "set_run_state": run.state("RUNNING"),
    }
    for call, body in bodies.items():
        assert tracker.call(call, body) == {}

    @settings(max_examples=scaled(80, 3000))
    @given(data=st.data(), call=st.sampled_from(sorted(bodies)), value=_JSON)
    def check(data: Any, call: str, value: Any) -> None:
        path = data.draw(st.sampled_from(_places(bodies[call])))
        answer = server.post(call, data=json.dumps(_mutate(bodies[call], path, value)))
        assert answer.status_code in {200, 400}, (answer.status_code, answer.text)
        if answer.status_code == 400:
            assert answer.json()["detail"].startswith(("The body of", "The database"))

    check()
    for path in (f"runs/{run.uid}", f"runs/{run.uid}/export", "runs", "jobs", f"task/full-graph?run_uid={run.uid}"):
        answer = server.get(f"/api/v1/{path}")
        assert answer.ok, (path, answer.text)
        answer.json()
