"""Points in both forms: what the protocol's schema says, and what our own client sends."""

from __future__ import annotations

import json
import math
import re
import uuid
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbnd._base.clock import LATEST
from dbnd._model.points import Mark, deleted_point, group, point, text_point, wire_text
from dbnd._model.values import storable
from dbnd_tracker._errors import PayloadError
from dbnd_tracker._ingest.points import TEXT_SOURCES, Group, from_groups
from dbnd_tracker._ingest.wire import of_metrics, plain
from dbnd_tracker._schemas.logged import LogMetrics
from dbnd_tracker._schemas.validation import validated
from dbnd_tracker._storage.encoding import encode

UID = "0a1b2c3d-0000-4000-8000-0123456789ab"
TIME = 1_772_600_767_123_456


def _contents(groups: list[Group]) -> Any:
    """What is stored of ``groups``."""
    series: dict[Any, list[Any]] = {}
    for some in groups:
        for key, value, time_us, step, mark in zip(
            some.keys, some.values, some.times, some.steps, some.marks, strict=True
        ):
            is_text = some.source in TEXT_SOURCES
            point = (storable(value), mark == Mark.DELETED) if is_text else (time_us, step, encode(value))
            series.setdefault((some.attempt_uid, key, some.source), []).append(point)
    return series


def from_wire(body: Any) -> list[Group]:
    """What the schema makes of a body."""
    return of_metrics(validated("log_metrics", LogMetrics, body).metrics_info)


_VALUES = st.one_of(st.floats(), st.integers(-(10**15), 10**15), st.text(), st.none(), st.lists(st.integers()))
_POINTS = st.builds(
    point,
    st.text(max_size=20),
    _VALUES,
    st.integers(-(10**17), 10**17),
    st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1)),
)
_TEXTS = st.one_of(
    st.builds(text_point, st.text(max_size=20), st.text(), st.integers(0, 10**16)),
    st.builds(deleted_point, st.text(max_size=20), st.integers(0, 10**16)),
)
_GROUPS = st.one_of(
    st.tuples(st.just(UID), st.sampled_from(["user", "mlflow", None, "x" * 70]), st.lists(_POINTS, min_size=1)),
    st.tuples(st.just(UID), st.just("mlflow.tag"), st.lists(_TEXTS, min_size=1)),
)


@given(st.lists(_GROUPS.map(lambda parts: group(*parts)), max_size=5))
def test_both_forms_say_the_same(groups: Any) -> None:
    compact = from_groups(json.loads(json.dumps(groups)))
    assert _contents(compact) == _contents(from_wire(json.loads(wire_text(groups))))


_MEMBER = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.just("2026-01-02T03:04:05+00:00")
)
_TIMES = st.one_of(
    st.datetimes().map(lambda time: f"{time.isoformat()}+00:00"),
    st.sampled_from(["2026-02-30T00:00:00+00:00", "2026-01-02T03:04:05.123456Z", "2026-01-02 03:04:05+00:00"]),
    _MEMBER,
)
_METRICS = st.fixed_dictionaries(
    {"key": st.one_of(st.text(), st.sampled_from(["a", "b"]), _MEMBER), "timestamp": _TIMES},
    optional={
        "value": _MEMBER,
        "value_int": st.one_of(st.integers(), _MEMBER),
        "value_float": st.one_of(st.floats(), _MEMBER),
        "step": st.one_of(st.integers(-(2**63) - 1, 2**63), _MEMBER),
        "source": st.one_of(st.sampled_from(["user", "mlflow.param", "mlflow.tag", "x" * 70]), _MEMBER),
        **dict.fromkeys(("value_str", "value_json", "text", "deleted", "odd"), _MEMBER),
    },
)
_UIDS = st.sampled_from([UID, UID.upper(), UID.replace("-", ""), "no uid"])
_INFOS = st.fixed_dictionaries(
    {"task_run_attempt_uid": _UIDS, "metric": _METRICS},
    optional={
        "source": st.sampled_from(["user", "mlflow.param", None, 5]),
        "target_meta_uid": st.sampled_from([None, UID]),
    },
)


@given(st.lists(_INFOS, max_size=3))
def test_what_is_plain_says_what_the_schema_says(infos: Any) -> None:
    body = {"metrics_info": infos}
    found = plain(json.dumps(body).encode())
    if found is not None:
        assert _contents(found) == _contents(from_wire(body))


def test_the_numbers_that_clients_send_are_plain() -> None:
    metric = {
        "key": "loss",
        "timestamp": "2026-03-04T05:06:07.000008+00:00",
        "value": 0.5,
        "value_int": None,
        "value_float": 0.5,
        "value_str": None,
        "value_json": None,
        "source": "user",
    }
    original = [
        {"task_run_attempt_uid": UID, "source": "user", "metric": {**metric, **changed}}
        for changed in ({}, {"value": 5, "value_int": 5, "value_float": None}, {"step": 2**63 - 1})
    ]
    ours = wire_text([group(UID, "mlflow", [point("loss", 0.5, TIME, 7), point("loss", -3, TIME)])]).encode()
    for raw in (json.dumps({"metrics_info": original}).encode(), ours):
        found = plain(raw)
        assert found is not None
        assert _contents(found) == _contents(from_wire(json.loads(raw)))


@pytest.mark.parametrize(
    "raw",
    [b"", b"nonsense", b"[]", b"{}", b'{"metrics_info": {}}', b"[" * 100_000, b'{"metrics_info": [\xff]}'],
)
def test_what_is_no_body_of_metrics_is_not_plain(raw: bytes) -> None:
    assert plain(raw) is None


def test_a_refusal_names_the_element_that_is_wrong() -> None:
    good = {
        "task_run_attempt_uid": UID,
        "metric": {"key": "a", "timestamp": "2026-03-04T05:06:07+00:00", "value_int": 1},
    }
    bad = {**good, "metric": {**good["metric"], "value_int": "many"}}  # type: ignore[dict-item]
    with pytest.raises(PayloadError, match=r"wrong at metrics_info\.2\.metric\.value_int: "):
        from_wire({"metrics_info": [good, good, bad]})


def _number(key: Any, value: Any, time_us: Any, step: Any = None, mark: Any = None) -> list[Any]:
    """A group of three points, of which one may be wrong."""
    return [group(UID, "user", [point("a", 1.5, TIME, 3), (key, value, time_us, step, mark), point("b", 2, TIME)])]


@pytest.mark.parametrize(
    "groups",
    [
        None,
        {},
        "points",
        [None],
        [[UID, "user"]],
        [[UID, "user", [], 1]],
        [["x", "user", []]],
        [[7, "user", []]],
        [[UID, 7, []]],
        [[UID, "user", {}]],
        [[UID, "user", ["abc"]]],
        [[UID, "user", [None] * 5]],
        [[UID, "user", [["k", 1.0, TIME]]]],
        [[UID, "user", ["k", 1.0, TIME]]],
        [[UID, "user", ["k", 1.0, TIME, 1, None, 1]]],
        _number(5, 1.0, TIME),
        _number(["k"], 1.0, TIME),
        _number("k", True, TIME),
        _number("k", "text without a mark", TIME),
        _number("k", None, TIME),
        _number("k", [1], TIME),
        _number("k", 1.0, "2026"),
        _number("k", 1.0, 1.5),
        _number("k", 1.0, True),
        _number("k", 1.0, TIME, 1.5),
        _number("k", 1.0, TIME, True),
        _number("k", 1.0, TIME, "1"),
        _number("k", 1.0, TIME, 2**63),
        _number("k", 1.0, TIME, -(2**63) - 1),
        _number("k", 1.0, TIME, None, "s"),
        _number("k", "x", TIME, None, "x"),
        _number("k", "x", TIME, None, ["s"]),
        _number("k", 1, TIME, None, "d"),
    ],
)
def test_points_of_another_form_are_refused_in_one_sentence(groups: Any) -> None:
    with pytest.raises(PayloadError) as caught:
        from_groups(groups)
    text = str(caught.value)
    assert re.search("points|point is", text)
    assert text.endswith(".")
    assert "\n" not in text


@pytest.mark.alike
def test_a_refusal_of_points_is_a_client_error(server: Any) -> None:
    answer = server.post("log_metrics", {"points": _number("k", True, TIME)}, headers={"X-Databand-Points": "1"})
    assert answer.status_code == 400
    assert answer.json()["detail"].startswith("The group 0 of points is wrong: a point is key, value, time in µs,")


def test_points_over_http_are_stored_once(tracker: Any, server: Any) -> None:
    _, task = tracker.started()
    values = [1, 2.5, math.nan, -math.inf, 2**60]
    body = {
        "points": [
            group(task.attempt.upper(), "user", (point("m", value, TIME + i, i) for i, value in enumerate(values))),
            group(task.attempt, "mlflow.param", [text_point("deep", "0.10", TIME)]),
            group(task.attempt, "mlflow.tag", [text_point("team", "risk", TIME), text_point("gone", "x", TIME)]),
            group(task.attempt, "mlflow.tag", [deleted_point("gone", TIME)]),
            group(task.attempt, "user", [point("t", "text", TIME), point("far", 1, LATEST + 5)]),
        ]
    }
    headers = {"X-Databand-Points": "1", "X-Databand-Batch": f"{uuid.uuid4().hex}:1-9"}
    for _ in range(2):
        answer = server.post("log_metrics", data=json.dumps(body), headers=headers)
        assert (answer.status_code, answer.json()) == (200, {})

    found = tracker.history(task, "m")
    assert [p.value for p in found] == [1, 2.5, "NaN", "-Infinity", 2**60]
    assert [(p.step, p.timestamp) for p in found] == [(i, TIME // 1000) for i in range(5)]
    view = tracker.task(task)
    assert [p.value for p in view.params if p.name == "deep"] == ["0.10"]
    assert [(tag.name, tag.value) for tag in view.tags] == [("team", "risk")]
    assert [p.value for p in tracker.history(task, "t")] == ["text"]


@pytest.mark.alike
def test_every_answer_says_which_points_the_tracker_takes(server: Any) -> None:
    answers = [
        server.get("/api/v1/auth/ping"),
        server.get("/api/v1/auth/csrf"),
        server.get("/api/v1/runs"),
        server.get("/api/v1/no/such/thing"),
        server.post("log_metrics", {"metrics_info": 5}),
        server.post("log_metrics", data=b"\x1f\x8bnonsense"),
        server.get("/api/v1/runs", headers={"Host": "elsewhere"}),
    ]
    assert [answer.headers.get("X-Databand-Points") for answer in answers] == ["1"] * len(answers)
    assert "X-Databand-Points" not in server.get("/").headers


@pytest.mark.parametrize(
    ("form", "body", "detail"),
    [
        ("2", {"points": []}, "takes points of the form 1, not '2'"),
        ("1", {"metrics_info": []}, 'is not {"points": [group, …]}'),
        ("1", [], 'is not {"points": [group, …]}'),
    ],
)
@pytest.mark.alike
def test_a_form_that_is_not_known_is_refused(server: Any, form: str, body: Any, detail: str) -> None:
    answer = server.post("log_metrics", body, headers={"X-Databand-Points": form})
    assert answer.status_code == 400
    assert detail in answer.json()["detail"]
