from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from dbnd._terminal.text import cut, duration, number, pad, plain, sparkline, width, wrap


@given(st.text(), st.integers(0, 60))
def test_cut_text_is_never_wider_than_asked_for(text, columns):
    shown = cut(text, columns)
    assert width(shown) <= columns
    assert shown == text or columns == 0 or shown.endswith("…")


@given(st.text(max_size=20))
def test_plain_text_is_one_line_that_a_terminal_does_not_obey(text):
    shown = plain(text)
    assert all(character.isprintable() or character == "\u200d" for character in shown)
    assert width(pad(shown, 50)) == max(50, width(shown))


@given(st.lists(st.floats() | st.integers(-(10**300), 10**300)), st.integers(1, 40))
def test_a_sparkline_has_a_bar_for_each_finite_value(values, columns):
    line = sparkline(values, columns)
    assert len(line) == min(len(values), columns)
    assert set(line) <= set(" ▁▂▃▄▅▆▇█")
    if len(values) <= columns:
        assert [bar == " " for bar in line] == [not math.isfinite(value) for value in values]


@given(st.lists(st.text("ab日 ", max_size=12)), st.integers(4, 30), st.integers(0, 3))
def test_wrapped_text_has_the_same_words_on_lines_that_fit(parts, columns, used):
    text = " ".join(parts)
    lines = wrap(text, columns, used=used, indent="  ").split("\n")
    assert " ".join(line.removeprefix("  ") if place else line for place, line in enumerate(lines)) == text
    for place, line in enumerate(lines):
        own = line.removeprefix("  ") if place else line
        assert width(line) + (0 if place else used) <= columns or " " not in own.strip(" ")


def test_a_long_word_stays_whole():
    assert wrap("see http://127.0.0.1:8080/app for more", 12, used=6, indent="  ") == (
        "see\n  http://127.0.0.1:8080/app\n  for more"
    )


def test_sparklines():
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7], 8) == "▁▂▃▄▅▆▇█"
    assert sparkline([3.0, 3.0], 8) == "▁▁"
    assert sparkline([0, float("nan"), 8], 8) == "▁ █"
    assert sparkline([0, 0, 8, 8], 2) == "▁█"
    assert sparkline([], 8) == ""


def test_widths():
    assert width("日本") == 4
    assert width("e\u0301") == 1
    assert cut("日本語", 5) == "日本…"
    assert cut("日本語", 4) == "日…"
    assert cut("abc", 3) == "abc"


def test_numbers_and_durations():
    assert [number(value) for value in (0.1 + 0.2, 12, 1e-9, float("nan"), 10**30, True, "a\nb")] == [
        *("0.3", "12", "1e-09", "nan", "1e+30", "True", "a b"),
    ]
    assert number(10**400) == "inf"
    assert [duration(seconds) for seconds in (-1, 0.26, 59.9, 245, 7380)] == ["0.0s", "0.3s", "59s", "4m 05s", "2h 03m"]
