from __future__ import annotations

import math
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbnd._terminal.text import (
    Shown,
    cut,
    did_you_mean,
    duration,
    number,
    pad,
    parse_duration,
    plain,
    sparkline,
    together,
    width,
    wrap,
)


@given(st.text(), st.integers(0, 60))
def test_cut_text_is_never_wider_than_asked_for(text, columns):
    shown = cut(text, columns)
    assert width(shown) <= columns
    assert shown == text or columns == 0 or shown.endswith("…")


@given(st.text(max_size=20) | st.text("a日\u0301☁👩🏽💻\u200d\ufe0f\u20e31\x1b\n\t\x9b\u202e\udc9b", max_size=20))
def test_plain_text_is_one_line_that_a_terminal_does_not_obey(text):
    shown = plain(text)
    for place, character in enumerate(shown):
        if character == "\u200d":  # joins two emoji
            assert all(unicodedata.category(x) in {"So", "Sk", "Cn", "Mn", "Sm"} for x in shown[place - 1 :: 2][:2])
        else:
            assert unicodedata.category(character) not in {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}
    assert plain(str.__str__(shown)) == shown
    assert len(shown) >= len(text)
    assert width(pad(shown, 200)) == 200
    assert plain(text, lines=True) == "\n".join("\t".join(map(plain, x.split("\t"))) for x in text.split("\n"))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\0\a\b\t\n\v\f\r\x1b\x7f", r"\x00\x07\x08\t\n\x0b\x0c\r\x1b\x7f"),
        ("\x80\x85\x9b\x9d\x9f", r"\x80\x85\x9b\x9d\x9f"),
        ("\u202a\u202e\u2066\u2069\u200e\u200f\u061c", r"\u202a\u202e\u2066\u2069\u200e\u200f\u061c"),
        ("\u2028\u2029", r"\u2028\u2029"),
        ("a\u200bb\u200cc\u200dd\u2060\ufeff\xad", r"a\u200bb\u200cc\u200dd\u2060\ufeff\xad"),
        ("\u034f\u115f\u3164\uffa0\ufe00a\ufe0f", r"\u034f\u115f\u3164\uffa0\ufe00a\ufe0f"),
        ("\U000e0041\U000e0100\ufff9\U0001d173", r"\U000e0041\U000e0100\ufff9\U0001d173"),
        ("\udc9b\ud800\ue000\uffff", r"\udc9b\ud800\ue000\uffff"),
        ("👩\u200da\u200d💻 ☁\ufe0f\ufe0f", r"👩\u200da\u200d💻 ☁\ufe0f".replace(r"☁", "☁\ufe0f")),
    ],
)
def test_what_is_obeyed_or_unseen_is_shown_as_an_escape(text, shown):
    assert plain(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        *("naïve e\u0301 Å", "日本語　全角", "한국어", "\u1112\u1161\u11ab", "Ελλάς", "שלום", "سلام", "ไทย", "हिन्दी"),
        *("👍🏽", "👩\u200d💻", "🏳\ufe0f\u200d🌈", "👨\u200d👩\u200d👧", "☁\ufe0f", "1\ufe0f\u20e3", "🇩🇪"),
        *("1\xa0000 €", "C:\\new\\x1b", "a  b ", "∑ ½ → ✓ ▁▂", ""),
    ],
)
def test_what_people_write_stays(text):
    assert plain(text) == text


def test_only_what_is_shown_keeps_its_colours():
    ours = Shown("\x1b[1mtitle\x1b[0m")
    assert together([ours, "\x1b[1mname\n"], "\n") == "\x1b[1mtitle\x1b[0m\n\\x1b[1mname\\n"
    assert plain(f"{ours}!") == "\\x1b[1mtitle\\x1b[0m!"
    assert str(ValueError(ours)) is ours


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
    assert width("\u1112\u1161\u11ab") == 2
    assert cut("日本語", 5) == "日本…"
    assert cut("日本語", 4) == "日…"
    assert cut("abc", 3) == "abc"


def test_numbers_and_durations():
    assert [number(value) for value in (0.1 + 0.2, 12, 1e-9, float("nan"), 10**30, True, "a\nb")] == [
        *("0.3", "12", "1e-09", "nan", "1e+30", "True", r"a\nb"),
    ]
    assert [number(value) for value in (2 / 3, -1234.56, 9999.6, 12345.678, 2.5e12)] == [
        *("0.6667", "-1235", "10000", "12346", "2.5e+12"),
    ]
    assert number(10**400) == "inf"
    assert [duration(seconds) for seconds in (-1, 0.26, 59.9, 245, 7380)] == ["0ms", "260ms", "59s", "4m 05s", "2h 03m"]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), (" 30m ", 1800), ("12 h", 43_200), ("2w", 1_209_600), ("0d", 0)]
    + [(text, None) for text in ("", "2", "w", "2y", "-1d", "1.5h", "36501d", "999999999w", "1d 2h")],
)
def test_durations_as_people_write_them(text, seconds):
    span = parse_duration(text)
    assert (None if span is None else span.total_seconds()) == seconds


def test_what_may_have_been_meant():
    assert did_you_mean("trian", ["train", "test"]) == " Did you mean 'train'?"
    assert did_you_mean("urll", ["url"], "core.") == " Did you mean 'core.url'?"
    assert did_you_mean("x", ["train"]) == ""
