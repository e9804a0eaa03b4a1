from __future__ import annotations

import json
import math
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbnd._base.clock import micros
from dbnd._model.points import deleted_point, group, point, text_point, time_text, wire_text
from dbnd._model.values import metric_value

NOW = datetime(2026, 3, 4, 5, 6, 7, 80_000, timezone.utc)


def element(made, source="user"):
    (found,) = json.loads(wire_text([group("uid", source, [made])]))["metrics_info"]
    return found


def test_a_number_is_the_element_of_the_protocol():
    assert element(point("loss", 0.5, micros(NOW), 3)) == {
        "task_run_attempt_uid": "uid",
        "metric": {
            "key": "loss",
            "timestamp": "2026-03-04T05:06:07.080000+00:00",
            "value": 0.5,
            "value_int": None,
            "value_float": 0.5,
            "value_str": None,
            "value_json": None,
            "source": "user",
            "step": 3,
        },
        "source": "user",
    }


def test_without_a_step_there_is_no_such_key():
    assert "step" not in element(point("a", 1, 0))["metric"]


values = st.one_of(
    st.floats(allow_nan=False),
    st.integers(),
    st.booleans(),
    st.none(),
    st.text(),
    st.lists(st.integers()),
    st.dictionaries(st.text(), st.integers()),
)


@given(st.text(), values, st.none() | st.integers(-(2**63), 2**63 - 1))
def test_every_value_stands_in_the_member_that_the_protocol_names(key, value, step):
    metric = element(json.loads(json.dumps(point(key, value, 0, step))))["metric"]
    member, simple = metric_value(value)
    members = {name: metric[name] for name in ("value_int", "value_float", "value_str", "value_json")}
    assert members.pop(member) == simple
    assert set(members.values()) == {None}
    assert metric["value"] == simple
    assert (metric["key"], metric.get("step")) == (key, step)


@pytest.mark.parametrize(("value", "token"), [(math.nan, "NaN"), (math.inf, "Infinity"), (-math.inf, "-Infinity")])
def test_values_that_are_no_numbers_are_the_bare_words_of_the_real_client(value, token):
    assert f'"value_float": {token},' in wire_text([group("uid", "user", [point("a", value, 0)])])


def test_text_is_kept_as_it_is_and_whole():
    metric = element(text_point("lr", "1e-3", 0), "mlflow.param")["metric"]
    assert (metric["value_str"], metric["value_json"], metric["source"]) == ("1e-3", None, "mlflow.param")
    assert "text" not in metric
    long = element(text_point("long", "x" * 6_000, 0))["metric"]
    assert len(long["value_str"]) == 5_000
    assert long["text"] == "x" * 6_000


def test_a_deleted_tag_says_so():
    metric = element(deleted_point("team", 0), "mlflow.tag")["metric"]
    assert (metric["value_str"], metric["deleted"]) == ("", True)


@given(st.datetimes(timezones=st.just(timezone.utc)))
def test_times_are_those_of_the_calendar(time):
    assert datetime.fromisoformat(time_text(micros(time))) == time


def test_times_beyond_the_calendar_become_its_ends():
    assert time_text(10**30).startswith("9999-12-31T23:59:59")
    assert time_text(micros(NOW - timedelta(days=40_000))).startswith("1916-")
