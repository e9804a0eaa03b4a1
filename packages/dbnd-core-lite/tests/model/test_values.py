from __future__ import annotations

import itertools
import json
import math
import re
import sys
from collections import UserDict, deque
from datetime import datetime, timezone
from decimal import Decimal
from fractions import Fraction
from types import MappingProxyType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic_core import from_json

from dbnd._model.encoding import encode
from dbnd._model.points import point
from dbnd._model.values import MAX_PREVIEW, MAX_TEXT, describe, metric_value, param_text, preview, storable


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


def nested(depth, wrap=lambda inner: [inner]):
    value = 1
    for _ in range(depth):
        value = wrap(value)
    return value


def holding_itself():
    value = {"a": 1}
    value["b"] = [value]
    return value


def widening(depth):
    """Few objects that would be 2**depth elements."""
    value = [1]
    for _ in range(depth):
        value = [value, value]
    return value


class Mapped(UserDict):
    pass


class Russian:
    """Its value is another one of its kind."""

    def item(self):
        return Russian()


def raising(base, *names):
    """An object of a class derived from ``base`` whose methods raise."""

    def fail(*_):
        raise KeyError

    return type(f"Broken{base.__name__}", (base,), dict.fromkeys(names, fail))()


class Endless(list):
    def __iter__(self):
        return itertools.repeat(1)


@pytest.mark.parametrize(
    "value",
    [
        raising(object, "__repr__", "__str__"),
        raising(object, "__getattr__", "__repr__"),
        raising(object, "item"),
        raising(str, "__len__", "__getitem__", "__str__"),
        raising(dict, "items", "__len__"),
        raising(list, "__len__"),
        raising(float, "__float__"),
        raising(int, "__int__"),
        [1, raising(object, "__repr__")],
        {raising(object, "__repr__"): raising(float, "__float__")},
        Endless([1, 2]),
        np.timedelta64(5, "s"),
        np.datetime64("NaT"),
        np.longdouble("1e4000"),
        np.zeros(1, dtype=[("a", int)])[0],
        deque(range(10**6)),
        10**5000,
        -(10**5000),
        [10**5000],
        {"n": {10**5000}},
        {10**5000: 1},
        Fraction(10**5000),
        Decimal("sNaN"),
        nested(980),
        nested(980, lambda inner: {"a": inner}),
        nested(400, lambda inner: (inner,)),
        nested(400, lambda inner: Mapped(a=inner)),
        nested(5_000),
        "[" * 2_000 + "]" * 2_000,
        "9" * 1_000,
        holding_itself(),
        widening(60),
        [[list(range(1_000))] * 1_000] * 1_000,
        Russian(),
        b"\xff" * 10**6,
        "\ud800",
        '"\\ud800"',
        {"\ud800": "\0"},
        {b"\xff": 1, (1, 2): 2, math.nan: 3, None: 4, Russian(): 5},
        (n for n in range(3)),
        np.array([object()], dtype=object),
        np.str_("x"),
        np.datetime64("2024-01-02"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_any_value_becomes_what_everybody_reads_back(value):
    made = point("key", value, 0, 1)
    assert len(json.dumps(made)) < 3 * MAX_TEXT
    data = encode(made)
    read = from_json(data)
    assert read[0] == "key"
    assert re.search("[\0\ud800-\udfff]", json.dumps(read, ensure_ascii=False)) is None
    limit = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(640)  # the least that an interpreter can be set to
    try:
        assert json.loads(data) == read
    finally:
        sys.set_int_max_str_digits(limit)


def test_a_key_that_is_no_text_is_no_reason_to_leave_its_value_out():
    _, value = metric_value({(1, 2): 3, b"a": 4, None: 5, 1.5: 6})
    assert value == {"(1, 2)": 3, "b'a'": 4, "null": 5, "1.5": 6}


def test_an_integer_of_thousands_of_digits_is_told_by_its_size():
    assert metric_value(-(10**5000)) == ("value_str", "-1.000000e+5000")
    assert metric_value(10**600) == ("value_json", 10**600)
    assert preview(12345 * 10**4000) == "1.234500e+4004"


def test_values_that_cannot_be_kept_as_they_are_are_said_once(capsys, monkeypatch):
    monkeypatch.setattr("dbnd._terminal.console._warned", set())
    for _ in range(3):
        metric_value(10**5000)
    metric_value(nested(980))
    said = capsys.readouterr().err
    assert said.count("kept in a short text form, because it is an integer of more than 640 digits") == 1
    assert said.count("because it is nested too deep") == 1
    assert said.count("\n") == 2


def test_a_container_holds_what_it_says_to_hold():
    assert metric_value(Endless([1, 2])) == ("value_json", [1, 1])


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (np.datetime64("2024-01-02T03:04:05", "ns"), "2024-01-02T03:04:05.000000000"),
        (np.timedelta64(5, "s"), "5 seconds"),
        (np.timedelta64("NaT"), "NaT"),
    ],
    ids=str,
)
def test_a_time_of_numpy_keeps_its_unit(value, text):
    assert metric_value(value) == ("value_str", text)


def test_a_param_of_a_broken_class_is_text_all_the_same():
    assert param_text("a", raising(str, "__len__", "__str__")) == ""
    assert param_text("a", raising(object, "__getattr__", "__repr__")).startswith("<Brokenobject ")


@pytest.mark.parametrize(
    ("step", "kept"),
    [
        (None, None),
        (True, 1),
        (np.int64(3), 3),
        (2.0, 2),
        ("4", 4),
        (2**70, 2**63 - 1),
        (-(10**5000), -(2**63)),
        (math.nan, None),
        (math.inf, None),
        ("last", None),
        ([1], None),
        (raising(object, "__int__"), None),
    ],
    ids=["none", "bool", "numpy", "float", "text", "large", "huge", "nan", "inf", "word", "list", "broken"],
)
def test_a_step_of_any_type_is_one_of_64_bits(step, kept):
    assert point("key", 1.0, 0, step)[3] == kept
    assert type(point("key", 1.0, 0, step)[3]) in {int, type(None)}


@pytest.mark.parametrize(
    ("text", "kept"), [("aé\U0001f600", "aé\U0001f600"), ("a\0é\ud83d", "a\ufffdé?"), ("\0", "\ufffd")]
)
def test_one_function_says_what_text_can_be_stored(text, kept):
    assert storable(text) == kept


def test_a_short_text_form_takes_bounded_work():
    steps = 0

    class Counted:
        def __repr__(self):
            nonlocal steps
            steps += 1
            return "x"

    preview([[[[Counted()] * 100] * 100] * 100] * 100)
    assert 0 < steps <= 1_000


def test_facts_about_a_value_are_bounded_and_can_be_stored():
    class Table:
        shape = (10**5000, True, 3)
        columns = ()
        dtypes = MappingProxyType({f"\ud800{n}": "\0" for n in range(100_000)})

    facts = describe(Table())
    assert facts["shape"] == [2**63 - 1, 1, 3]
    assert len(facts["columns"]) == len(facts["dtypes"]) == 1_000
    assert facts["columns"][0] == "?0"
    assert json.loads(json.dumps(facts).encode()) == facts


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
