from __future__ import annotations

from datetime import date
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from dbnd_tracker._errors import PayloadError, UnknownCallError
from dbnd_tracker._schemas.fields import Day, Time

_TIME = TypeAdapter(Time)
_DAY = TypeAdapter(Day)


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
    "value",
    [
        *(12345, 1.5, True, [], "12345", "yesterday", "2026-03-04", "2026-03-04T", "2026-13-04T05:06:07"),
        *("2026-03-04T05:06:61", "2026-03-04t05:06:07z", " 2026-03-04T05:06:07", "0001-01-01T00:00:00+14:00"),
    ],
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


@pytest.mark.parametrize("text", ["2026-03-04", "2026-3-4", "2026-03-04T05:06:07.5Z", "2026-03-04 05:06"])
def test_a_day_may_come_as_a_time(text: str) -> None:
    assert _DAY.validate_python(text) == date(2026, 3, 4)


@pytest.mark.parametrize("value", [0, 86400, "86400", True, "2026-02-30", "2026-03-04T", "today", []])
def test_other_things_are_no_days(value: object) -> None:
    with pytest.raises(ValidationError):
        _DAY.validate_python(value)


@pytest.mark.parametrize(
    "path",
    [
        *("task_run_env", "af_with_monitor", "update_existing", "task_runs_info.dynamic_task_run_update"),
        *("task_runs_info.targets", "task_runs_info.task_run_env_uid", "new_run_info.name", "new_run_info.state"),
        *("new_run_info.user", "new_run_info.root_run", "new_run_info.is_archived", "new_run_info.start_time"),
    ],
)
def test_what_may_be_missing_may_not_be_null_for_that(tracker: Any, make_run: Any, path: str) -> None:
    body = make_run().init()
    *above, name = path.split(".")
    place = body["init_args"]
    for key in above:
        place = place[key]
    place[name] = None
    with pytest.raises(PayloadError, match=f"wrong at init_args.{path}: "):
        tracker.call("init_run", body)
    del place[name]
    assert tracker.call("init_run", body) == {}


def test_what_may_be_null(tracker: Any, make_run: Any) -> None:
    run = make_run()
    body = run.init()
    info = body["init_args"]["new_run_info"]
    names = ("project_name", "description", "end_time", "target_date", "cmd_name", "version", "env_name")
    info.update(dict.fromkeys((*names, "task_executor", "sends_heartbeat", "scheduled_run")))
    body["init_args"].update(dict.fromkeys(("scheduled_run_info", "source", "af_context", "tracking_source")))
    body["init_args"]["tracking_source_uid"] = None
    assert tracker.call("init_run", body) == {}


def test_airflow_and_tracking_source_as_clients_send_them(tracker: Any, make_run: Any) -> None:
    """The Python client sends null for what it does not know of them, the Java client numbers as text."""
    run = make_run()
    body = run.init()
    of_airflow = {"dag_id": "d", "task_id": "t", "execution_date": "2026-03-04", "airflow_instance_uid": None}
    source = {"name": "s", "url": None, "env": None, "source_instance_uid": None}
    body["init_args"]["af_context"] = {**of_airflow, "try_number": "3", "airflow_name": "main"}
    body["init_args"]["tracking_source"] = {**source, "source_type": "UpdateSource.generic_tracking"}
    tracker.call("init_run", body)
    facts = tracker.run(run).facts
    assert facts["af_context"] == {
        "dag_id": "d",
        "task_id": "t",
        "execution_date": "2026-03-04",
        "try_number": 3,
        "airflow_name": "main",
    }
    assert facts["tracking_source"] == {"name": "s", "source_type": "generic_tracking"}
    for change in ({"try_number": "third"}, {"dag_id": 5}, {"airflow_instance_uid": "x"}):
        body["init_args"]["af_context"] = {**of_airflow, **change}
        with pytest.raises(PayloadError, match=r"wrong at init_args\.af_context"):
            tracker.call("init_run", body)


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
