from __future__ import annotations

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from dbnd_tracker._errors import PayloadError, UnknownCallError
from dbnd_tracker._schemas.fields import Time

_TIME = TypeAdapter(Time)


@pytest.mark.parametrize(
    ("text", "iso"),
    [
        ("2026-03-04T05:06:07+00:00", "2026-03-04T05:06:07+00:00"),
        ("2026-03-04T05:06:07Z", "2026-03-04T05:06:07+00:00"),
        ("2026-03-04T05:06:07", "2026-03-04T05:06:07+00:00"),
        ("2026-03-04 05:06", "2026-03-04T05:06:00+00:00"),
        ("2026-3-4T5:6:7.5+02", "2026-03-04T03:06:07.500000+00:00"),
        ("2026-3-4 5:6-0130", "2026-03-04T06:36:00+00:00"),
        ("2026-03-04T05:06:07.123456789012+00:00", "2026-03-04T05:06:07.123456+00:00"),
    ],
)
def test_times_in_every_form_of_the_protocol(text: str, iso: str) -> None:
    assert _TIME.validate_python(text).isoformat() == iso


@pytest.mark.parametrize(
    "value", [12345, 1.5, True, "yesterday", "2026-13-04T05:06:07", "0001-01-01T00:00:00+14:00", []]
)
def test_other_things_are_no_times(value: object) -> None:
    with pytest.raises(ValidationError):
        _TIME.validate_python(value)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"key": None}, "metrics_info.0.metric.key: input should be a valid string."),
        ({"key": 5}, "metrics_info.0.metric.key: input should be a valid string."),
        ({"step": 2**63}, "metrics_info.0.metric.step: input should be less than or equal to 9223372036854775807."),
        ({"timestamp": "soon"}, "metrics_info.0.metric.timestamp: 'soon' is no time such as"),
        ({"value_float": "fast"}, "metrics_info.0.metric.value_float: "),
    ],
)
def test_a_wrong_field_is_named(tracker: Any, make_run: Any, change: Any, sentence: str) -> None:
    task = make_run().task()
    info = task.metric("k", value_int=1)
    info["metric"].update(change)

    with pytest.raises(PayloadError) as caught:
        tracker.call("log_metrics", {"metrics_info": [info]})

    assert str(caught.value).startswith("The body of log_metrics is wrong at ")
    assert sentence in str(caught.value)


def test_a_missing_field_is_named(tracker: Any, make_run: Any) -> None:
    run = make_run()
    body = run.init()
    del body["init_args"]["task_runs_info"]["task_runs"][0]["task_signature"]
    with pytest.raises(PayloadError, match=r"init_args\.task_runs_info\.task_runs\.0\.task_signature: field required"):
        tracker.call("init_run", body)


@pytest.mark.parametrize("body", [None, [], "x", 5])
def test_a_body_that_is_no_object_is_refused(tracker: Any, body: Any) -> None:
    with pytest.raises(PayloadError, match="wrong at its top"):
        tracker.call("set_run_state", body)


def test_states_travel_by_name(tracker: Any, make_run: Any) -> None:
    run = make_run()
    with pytest.raises(PayloadError, match="state: one of SCHEDULED, RUNNING"):
        tracker.call("set_run_state", run.state("running"))


def test_secrets_in_a_wrong_body_are_not_repeated(tracker: Any, make_run: Any) -> None:
    task = make_run().task()
    with pytest.raises(PayloadError) as caught:
        tracker.call("log_metric", {**task.metric("k"), "metric": "hunter2"})
    assert "hunter2" not in str(caught.value)


def test_unknown_keys_are_ignored_and_unknown_calls_are_not(tracker: Any, make_run: Any) -> None:
    run = make_run()
    assert tracker.call("init_run", {**run.init(), "extra": 1}) == {}
    with pytest.raises(UnknownCallError, match="no tracking call 'log_thoughts'"):
        tracker.call("log_thoughts", {})
