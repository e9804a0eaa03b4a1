from __future__ import annotations

from datetime import timedelta

import pytest

from dbnd.plugins import web_url
from dbnd_tracker._format import cell_text, duration_text, type_name, value_text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0001, "0ms"),
        (0.25, "250ms"),
        (3.24, "3.2s"),
        (245, "4m 05s"),
        (7380, "2h 03m"),
        (360000, "100h 00m"),
        (-5, "0ms"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration_text(timedelta(seconds=seconds)) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, ""), (1, "1"), (0.1, "0.1"), ("a\n b", "a b"), ({"é": [1]}, '{"é": [1]}'), ("x" * 11, "x" * 9 + "…")],
)
def test_values_stand_on_one_line(value: object, text: str) -> None:
    assert value_text(value, 10) == text


def test_a_cell_keeps_its_line_breaks_for_the_table_to_show() -> None:
    assert cell_text("a\n b", 10) == "a\n b"
    assert cell_text("x" * 11, 10) == "x" * 9 + "…"


def test_a_cell_shows_four_digits_of_a_number() -> None:
    assert [cell_text(value) for value in (1 / 3, 0.1 + 0.2, 12, "0.123456", "NaN")] == [
        *("0.3333", "0.3", "12", "0.123456", "NaN"),
    ]


@pytest.mark.parametrize("url", ["javascript:alert(1)", "data:text/html,x", "//host", "http://[", 5, None])
def test_only_addresses_of_the_web_become_links(url: object) -> None:
    assert web_url(url) is None
    assert web_url("https://host/x") == "https://host/x"


@pytest.mark.parametrize(
    ("text", "name"), [("<class 'ValueError'>", "ValueError"), ("a.B", "a.B"), ("<class 'a.b.C'>", "a.b.C")]
)
def test_type_names(text: str, name: str) -> None:
    assert type_name(text) == name
