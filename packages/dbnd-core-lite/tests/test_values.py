from __future__ import annotations

import json
import math
from datetime import datetime, timezone
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbnd._values import MAX_PREVIEW, MAX_TEXT, describe, metric_value, preview


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (3, ("value_int", 3)),
        (True, ("value_int", 1)),
        (10**15, ("value_int", 10**15)),
        (10**15 + 1, ("value_json", 10**15 + 1)),
        (0.5, ("value_float", 0.5)),
        (Decimal("0.5"), ("value_float", 0.5)),
        (math.inf, ("value_float", math.inf)),
        (np.float32(0.5), ("value_float", 0.5)),
        (np.int64(7), ("value_int", 7)),
        (np.array([7]), ("value_int", 7)),
        (None, ("value_str", "None")),
        ("", ("value_str", "")),
        ("two words", ("value_str", "two words")),
        ("NaN", ("value_str", "NaN")),
        ("12.5", ("value_json", 12.5)),
        ('{"a": 1}', ("value_json", {"a": 1})),
        ([1, "a"], ("value_json", [1, "a"])),
        ({"k": {2, 1}}, ("value_json", {"k": [1, 2]})),
        (datetime(2024, 1, 2, 3, 4, 5, tzinfo=timezone.utc), ("value_str", "2024-01-02T03:04:05+00:00")),
    ],
)
def test_values_go_to_the_member_that_the_protocol_names(value, expected):
    member, simple = metric_value(value)
    assert (member, simple) == expected
    assert type(simple) is type(expected[1])


def test_nan_is_a_float():
    member, value = metric_value(math.nan)
    assert member == "value_float"
    assert math.isnan(value)


def test_long_text_is_cut_to_the_limit_with_a_note():
    member, text = metric_value("x" * 6000)
    assert member == "value_str"
    assert len(text) == MAX_TEXT
    assert text.endswith("of 6000)")
    assert MAX_PREVIEW - 5 <= len(preview("x" * 20_000)) <= MAX_PREVIEW


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
anything = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8)


@given(anything)
def test_every_value_becomes_json(value):
    member, simple = metric_value(value)
    assert json.loads(json.dumps(simple)) is not NotImplemented
    assert member in {"value_int", "value_float", "value_str", "value_json"}


class Unprintable:
    def __repr__(self):
        raise RuntimeError


def test_a_value_that_cannot_be_printed_does_not_raise():
    assert preview(Unprintable()).startswith("<Unprintable")


def test_huge_containers_are_abbreviated():
    assert len(preview(list(range(10**6)))) < 1000


def test_describe_names_type_shape_and_columns():
    pandas = pytest.importorskip("pandas")
    facts = describe(pandas.DataFrame({"a": [1], "b": ["x"]}))
    assert facts["type"] == "DataFrame"
    assert facts["shape"] == [1, 2]
    assert facts["columns"] == ["a", "b"]
    assert facts["dtypes"]["a"] == "int64"
    assert describe(3) == {"type": "int"}
