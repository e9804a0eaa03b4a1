"""What released clients say of runs, from their first call to the last one, is read back as they said it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from kit.wire.calls import Call, captured
from kit.wire.conversations import PYTHON, java
from kit.wire.reading import answered, said

from dbnd_tracker._ingest import CALLS
from dbnd_tracker._schemas.validation import unknown_keys

CONVERSATIONS = {**PYTHON, "java": java}
CAPTURES = Path(__file__).parents[5] / "shared" / "captures"


def _replay(server: Any, calls: list[Call]) -> None:
    for call in calls:
        answer = call.send(server.session, server.url)
        assert (answer.status_code, answer.json()) == (200, call.reply), call


def _read(server: Any, run_uid: str) -> Any:
    return answered(lambda path: server.get(path).json(), run_uid)


def _of(told: Any, name: str) -> Any:
    [found] = [task for task in told["tasks"].values() if task["name"] == name]
    return found


@pytest.fixture(params=sorted(CONVERSATIONS))
def calls(request: pytest.FixtureRequest) -> list[Call]:
    return CONVERSATIONS[request.param]()


def test_a_conversation_is_read_back(server: Any, calls: list[Call]) -> None:
    told = said(calls)
    _replay(server, calls)
    assert _read(server, told["run_uid"]) == told


def test_what_is_sent_again_changes_nothing(server: Any, calls: list[Call]) -> None:
    """Clients repeat state calls that were not answered; only points are new ones each time."""
    told = said(calls)
    _replay(server, calls)
    _replay(server, [call for call in calls if call.name not in {"log_metric", "log_metrics", "heartbeat"}])
    assert _read(server, told["run_uid"]) == told


def test_calls_may_come_in_any_order(server: Any, calls: list[Call]) -> None:
    """Several processes tell of one run, and only each of them keeps its order: here, the last one comes first."""
    told = said(calls)
    kept = [call for call in calls if call.name != "set_unfinished_tasks_state"]  # it is about what is known then
    _replay(server, [Call(call.path, call.body, call.headers, call.reply) for call in reversed(kept) if not call.reply])
    found = _read(server, told["run_uid"])
    for both in (found, told):
        for task in both["tasks"].values():
            task["metrics"] = {
                key: (source, sorted(points, key=str)) for key, (source, points) in task["metrics"].items()
            }
    if any(call.name == "heartbeat" for call in calls):
        assert found.pop("sends_heartbeat") == told.pop("sends_heartbeat")
    assert found == told


def test_no_key_of_a_released_client_is_unknown(calls: list[Call]) -> None:
    found = {(call.name, key) for call in calls for key in unknown_keys(CALLS[call.name].body, call.body)}
    assert found == set()


def test_states_of_a_failure(server: Any) -> None:
    calls = PYTHON["failing"]()
    _replay(server, calls)
    told = _read(server, said(calls)["run_uid"])
    assert told["state"] == "failed"
    assert {task["name"]: task["state"] for task in told["tasks"].values()} == {
        "sales": "upstream_failed",
        "report": "failed",
        "price": "failed",
    }
    assert _of(told, "price")["error"]["msg"] == "'EUR'"
    assert _of(told, "sales")["error"] is None
    client = server.get(f"/api/client/v1/run/{told['run_uid']}").json()
    assert Counter(task["latest_task_run_attempt"]["state"] for task in client["task_runs"]) == {
        "failed": 2,
        "upstream_failed": 1,
    }


def test_values_of_every_type(server: Any) -> None:
    calls = PYTHON["values_and_datasets"]()
    _replay(server, calls)
    told = _read(server, said(calls)["run_uid"])
    values = {key: points[0][1] for key, (_, points) in _of(told, "values")["metrics"].items()}
    assert values == {
        "negative": -7,
        "flag": 1,
        "whole": 10**15,
        "larger": 10**15 + 1,
        "real": 0.1,
        "text": "grüße",
        "empty": "",
        "nothing": "None",
        "number_text": 12.5,
        "true_text": True,
        "some": [1, "b", None],
        "facts": {"a": {"b": 1}},
        "moment": "2025-06-01T080000.000000",
        "long": "x" * 4986 + "... (4986 of 6000)",
        "not_a_number": "NaN",
        "infinite": "Infinity",
        "minus_infinite": "-Infinity",
        "loss": 1.0,
    }
    frames = _of(told, "frames")
    assert frames["links"] == {"shop": "http://shop.example.com"}
    assert len(frames["metrics"]["sold.histograms"][1]) == 2
    errors = server.get("/api/v1/client-errors").json()["data"]
    assert [error["stack_trace"] for error in errors] == ["Traceback"]


def test_datasets_as_the_original_clients_ask_for_them(server: Any) -> None:
    calls = PYTHON["values_and_datasets"]()
    _replay(server, calls)
    run_uid = said(calls)["run_uid"]
    operations = server.get(f"/api/v1/runs/{run_uid}/operations").json()
    assert {each["dataset_path"]: (each["operation_type"], each["latest_operation_status"]) for each in operations} == {
        "s3://shop/part=1/sold.csv": ("read", "SUCCESS"),
        "s3://shop/report.csv": ("write", "FAILED"),
        "s3://shop/old.csv": ("delete", "SUCCESS"),
    }
    [failed] = [each for each in operations if each["dataset_path"] == "s3://shop/report.csv"]
    assert failed["issues"] == [{"type": "OperationError", "data": {"operation_error": "the disk is full"}}]


def _captures() -> list[str]:
    return sorted(path.name for path in CAPTURES.iterdir() if path.is_dir()) if CAPTURES.is_dir() else []


@pytest.mark.parametrize("name", _captures() or [None])
def test_captured_traffic_is_read_back(server: Any, name: str | None) -> None:
    if name is None:
        pytest.skip("there is no folder ../shared/captures beside the checkout, with traffic of the released client")
    calls = captured(CAPTURES / name)
    assert {"init_run", "set_run_state"} <= {call.name for call in calls}
    told = said(calls)
    _replay(server, calls)
    assert _read(server, told["run_uid"]) == told
