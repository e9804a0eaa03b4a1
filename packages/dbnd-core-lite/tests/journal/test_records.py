from __future__ import annotations

import json
import math
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbnd._journal import records

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(st.characters(codec="utf-8", exclude_characters="\0")),
    lambda children: (
        st.lists(children) | st.dictionaries(st.text(st.characters(codec="utf-8", exclude_characters="\0")), children)
    ),
    max_leaves=10,
)


@given(values)
def test_what_is_framed_is_read_back(value):
    line = records.frame(["call", value])
    assert line.count(b"\n") == 1
    (record,) = records.parse([line], 1, 0)
    assert (record.sequence, record.end, record.call, record.body) == (1, len(line), "call", value)


def test_numbers_that_json_does_not_know_are_kept():
    body = [["a", "user", ["x", math.inf, 0, None, None, "y", math.nan, 0, None, None]]]
    (record,) = records.parse([records.frame(("log_metrics", body))], 1, 0)
    infinity, nan = record.body[0][2][1::5]
    assert infinity == math.inf
    assert math.isnan(nan)


def test_a_line_carries_the_checksum_of_its_json():
    line = records.frame({"text": "ünïcode\n\u2028"})
    checksum, _, data = line.rstrip(b"\n").partition(b" ")
    assert int(checksum, 16) == zlib.crc32(data)
    assert json.loads(data) == {"text": "ünïcode\n\u2028"}


@given(st.data())
def test_a_torn_line_is_recognised(data):
    line = records.frame(["call", {"n": 12345}])
    cut = data.draw(st.integers(0, len(line) - 1))
    assert records.content(line[:cut]) is None


@given(st.data())
def test_a_changed_byte_is_recognised(data):
    line = bytearray(records.frame(["call", {"n": 12345}]))
    place = data.draw(st.integers(0, len(line) - 1))
    line[place] ^= data.draw(st.sampled_from([1, 2, 4, 8, 16, 64]))
    changed = records.content(bytes(line))
    # A hex digit may change its case, which says the same.
    assert changed is None or (place < 8 and chr(line[place]).upper() in "ABCDEF")


def test_damaged_lines_are_named_and_keep_their_numbers():
    lines = [records.frame(("call", number)) for number in range(4)]
    lines[1] = lines[1].replace(b"call", b"cull")
    found = records.parse(lines, 10, 100)
    assert [(r.sequence, r.body, r.is_damaged) for r in found] == [
        (10, 0, False),
        (11, None, True),
        (12, 2, False),
        (13, 3, False),
    ]
    assert found[1].line == lines[1]
    assert found[-1].end == 100 + sum(map(len, lines))


@pytest.mark.parametrize("byte", [b"\x0b", b"\x8a", b" ", b"a", b"\r", b"\x00"])
def test_two_records_between_which_the_line_break_is_damaged_are_both_whole(byte):
    lines = [records.frame(("call", number)) for number in range(4)]
    joined = [lines[0], lines[1].removesuffix(b"\n") + byte + lines[2], lines[3]]
    found = records.parse(joined, 10, 100)
    assert [(r.sequence, r.body, r.trouble) for r in found] == [(10 + n, n, "") for n in range(4)]
    assert [r.end for r in found] == [100 + sum(map(len, lines[: n + 1])) for n in range(4)]


def line_of(data):
    return b"%08x %b\n" % (zlib.crc32(data), data)


@pytest.mark.parametrize(
    "data",
    [
        b'["log_metrics",[["a","user",["p",%b,0,null,"j"]]]]' % (b"9" * 5001),
        b'["log_metrics",[["a","user",["p",%b1%b,0,null,"j"]]]]' % (b"[" * 2000, b"]" * 2000),
        b'{"no":"event"}',
        b"7",
        b"[]",
        b'["log_metrics",[7]]',
        b'["log_metrics",[["a","user",7]]]',
        b'["call",{}],["call",{}]',
    ],
)
def test_a_line_that_cannot_be_read_spoils_none_of_its_neighbours(data):
    lines = [records.frame(("a", 1)), line_of(data), records.frame(("b", 2))]
    first, poison, last = records.parse(lines, 1, 0)
    assert [(r.call, r.body, r.trouble) for r in (first, last)] == [("a", 1, ""), ("b", 2, "")]
    assert (poison.sequence, poison.line) == (2, lines[1])
    assert "it cannot be read" in poison.trouble or "not the form of an event" in poison.trouble
    assert not poison.is_damaged


def test_a_line_is_extended_without_being_read():
    line = line_of(b'["call",%b]' % (b"9" * 5001))
    assert records.content(records.extended(line, "why", 3)) == b'["call",%b,"why",3]' % (b"9" * 5001)


def test_nothing_is_parsed_to_nothing():
    assert records.parse([], 1, 0) == []


def test_points_of_a_journal_of_2_0_are_read():
    body = [["a", "user", [["x", 1, 5], ["y", 0.5, 6, 7], ["z", "t", 8, None, "s"]]], ["b", "user", []]]
    (record,) = records.parse([records.frame(("log_metrics", body))], 1, 0)
    points = ["x", 1, 5, None, None, "y", 0.5, 6, 7, None, "z", "t", 8, None, "s"]
    assert (record.body, record.points) == ([["a", "user", points], ["b", "user", []]], 3)


def test_points_are_counted():
    body = [["a", "user", ["x", 1, 0, None, None] * 3], ["b", "user", ["x", 1, 0, None, None] * 2]]
    lines = [records.frame(("log_metrics", body)), records.frame(("init_run", {"a": [1, 2, 3]}))]
    assert [r.points for r in records.parse(lines, 1, 0)] == [5, 1]
