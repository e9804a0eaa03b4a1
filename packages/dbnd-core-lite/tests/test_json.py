from __future__ import annotations

import json
import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dbnd import _json

# Halves of surrogate pairs, too: Python's strings may hold them.
texts = st.text(st.characters(codec=None))
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts,
    lambda children: st.lists(children) | st.dictionaries(texts, children),
    max_leaves=10,
)


@given(values)
@example("\ud800")
@example(-0.0)
@example(5e-324)
@example(1e22)
@example(2**64)
@example("\x00\n\u2028\U0001f600")
def test_what_is_encoded_is_what_json_reads_and_writes(value):
    data = _json.encode(value)
    for back in (_json.decode(data), json.loads(data), _json.decode(json.dumps(value).encode())):
        assert back == value
        assert repr(back) == repr(value)
    assert b"\n" not in data


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_beyond_json_have_the_names_that_python_gives_them(value):
    assert _json.encode(value) == json.dumps(value).encode()
    assert repr(_json.decode(json.dumps(value).encode())) == repr(value)


@pytest.mark.parametrize("value", [object(), b"\xff"])
def test_what_json_cannot_hold_is_refused(value):
    with pytest.raises(TypeError):
        _json.encode(["call", value])


def test_what_contains_itself_is_refused():
    value = []
    value.append(value)
    with pytest.raises(ValueError, match="ircular"):
        _json.encode(value)


@pytest.mark.parametrize("data", [b"", b"[1", b"nonsense", b"\xff"])
def test_what_is_no_json_is_refused(data):
    with pytest.raises(ValueError, match=r"."):
        _json.decode(data)
