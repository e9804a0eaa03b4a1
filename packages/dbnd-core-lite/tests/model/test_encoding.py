from __future__ import annotations

import json
import math
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dbnd._model import encoding
from dbnd._model.values import storable

texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"))
# NUL and halves of surrogate pairs, too: Python's strings may hold them.
any_texts = st.text(st.characters(codec=None))
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts,
    lambda children: st.lists(children) | st.dictionaries(texts, children),
    max_leaves=10,
)


@given(values)
@example(-0.0)
@example(5e-324)
@example(1e22)
@example(2**64)
@example("\n\u2028\U0001f600")
def test_what_is_encoded_is_what_json_reads_and_writes(value):
    data = encoding.encode(value)
    for back in (encoding.decode(data), json.loads(data), encoding.decode(json.dumps(value).encode())):
        assert back == value
        assert repr(back) == repr(value)
    assert b"\n" not in data


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_beyond_json_have_the_names_that_python_gives_them(value):
    assert encoding.encode(value) == json.dumps(value).encode()
    assert repr(encoding.decode(json.dumps(value).encode())) == repr(value)


@given(any_texts, any_texts)
@example("\ud800", "\0")
def test_what_is_encoded_holds_only_text_that_can_be_stored(key, text):
    assert encoding.decode(encoding.encode([{key: [text]}])) == [{storable(key): [storable(text)]}]
    assert not re.search("[\0\ud800-\udfff]", storable(text))


@pytest.mark.parametrize("value", [object(), b"\xff", {object(): {b"\xff"}}])
def test_what_json_cannot_hold_gets_its_text_form(value):
    (found,) = encoding.decode(encoding.encode([value]))
    assert "xff" in str(found) or "object object" in str(found)


def test_what_contains_itself_is_refused():
    value = []
    value.append(value)
    with pytest.raises(ValueError, match="contains itself"):
        encoding.encode(value)


@pytest.mark.parametrize("data", [b"9" * 5000, b"[" * 100_000 + b"]" * 100_000])
def test_what_python_cannot_read_is_refused_as_a_value(data):
    with pytest.raises(ValueError, match=r"nested too deep|digits"):
        encoding.decode(data)


def test_journals_of_earlier_versions_may_hold_halves_of_surrogate_pairs():
    assert encoding.decode(b'["\\ud800"]') == ["\ud800"]


@pytest.mark.parametrize("data", [b"", b"[1", b"nonsense", b"\xff"])
def test_what_is_no_json_is_refused(data):
    with pytest.raises(ValueError, match=r"."):
        encoding.decode(data)
