from __future__ import annotations

import gc
import json
import math
import zlib
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbnd._journal import records
from dbnd._model.points import MAX_POINTS, SIZE

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
        b'["log_metrics",[["a","user",["p",%b1%b,0,null,"j"]]]]' % (b"[" * 100_000, b"]" * 100_000),
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


@given(
    st.lists(
        st.sampled_from(
            [
                ("log_metrics", [["a", "user", ["x", 1, 0, None, None]]]),
                ("log_metrics", [["a", "user", ["x", 0.5, 0, 7, None, "y]],[", "{", 0, None, "s"]]]),
                ("log_metrics", [["a", "mlflow", ["x", math.inf, 0, None, None]]]),
                ("log_metrics", [["b", None, ["]]]]", 1, 0, None, None]], ["a", "user", ["x", 2, 0, None, None]]]),
                ("log_metrics", [["a", "user", ["x", [[1]], 0, None, "j"]]]),
                ("log_metrics", [["a", "user", ["x", {"a,b": 1}, 0, None, "j"]]]),
                ("log_metrics", [["a", 'us",["er', ["x", 3, 0, None, None]]]),
                ("log_metrics", [["a", "user", []]]),
                ("log_metrics", [["a", "user", ["x", 4, 0, None, None] * 2_000]]),
                ("set_run_state", {"log_metrics": []}),
            ]
        )
    )
)
def test_merged_events_say_what_they_say_one_by_one(events):
    lines = [records.frame(event) for event in events]
    merged, single = records.parse(lines, 5, 100, merged=True), records.parse(lines, 5, 100)
    assert said(merged) == said(single)
    assert sum(record.points for record in merged) == sum(record.points for record in single)
    assert max((record.points for record in merged), default=0) <= MAX_POINTS
    ends = {record.sequence: record.end for record in single}
    assert [ends.get(record.sequence) for record in merged] == [record.end for record in merged]
    numbers = [4, *(record.sequence for record in merged)]
    assert [record.events for record in merged] == [end - start for start, end in pairwise(numbers)]
    assert numbers[-1] == 4 + len(events)


def said(found):
    """What records say, point by point."""
    points = []
    for record in found:
        groups = record.body if record.call == "log_metrics" else []
        points += [(attempt, source, *one) for attempt, source, some in groups for one in batched(some)]
        points += [] if groups else [(record.call, record.body)]
    return points


def batched(values):
    return zip(*[iter(values)] * SIZE, strict=True)


def test_events_that_are_merged_make_no_objects_for_the_garbage_collector():
    lines = [records.frame(("log_metrics", [["a", "user", ["loss", n / 7, n, n, None]]])) for n in range(4_000)]
    gc.collect()
    passes = []
    gc.callbacks.append(lambda _, info: passes.append(info["generation"]))
    try:
        (record,) = records.parse(lines, 1, 0, merged=True)
    finally:
        gc.callbacks.pop()
    assert (record.events, record.points, passes) == (4_000, 4_000, [])


def test_an_event_that_cannot_be_read_is_merged_with_none():
    lines = [records.frame(("log_metrics", [["a", "user", ["loss", n, n, n, None]]])) for n in range(4)]
    lines[2] = line_of(b'["log_metrics",[["a","user",[,]]]]')
    found = records.parse(lines, 1, 0, merged=True)
    assert [(record.sequence, record.events, bool(record.trouble)) for record in found] == [
        (1, 1, False),
        (2, 1, False),
        (3, 1, True),
        (4, 1, False),
    ]
