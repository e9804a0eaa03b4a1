from __future__ import annotations

import html
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kit.clock import processor_time

from dbnd_tracker._content.terminal import Sheet


def _lines(printed: str) -> str:
    return html.unescape(re.sub("<[^>]*>", "", Sheet(printed).html(100)))


@pytest.mark.parametrize(
    ("printed", "shown"),
    [
        ("one\ntwo\n", "one\ntwo"),
        ("one\r\ntwo\r\n", "one\ntwo"),
        ("  1%\r 50%\r100%\n", "100%"),
        ("longer line\rshort", "shortr line"),
        ("longer line\r\x1b[Kshort", "short"),
        ("longer line\r\x1b[2Kshort", "short"),
        ("abc\x1b[1Kd", "abcd"),
        ("ab\bc", "ac"),
        ("a\tb", "a       b"),
        ("one\ntwo\n\x1b[2A\x1b[Knew\n", "new\ntwo"),
        ("one\ntwo\nthree\x1b[2F\x1b[Jnew", "new"),
        ("one\ntwo\x1b[9Aup", "oneup\ntwo"),
        ("x\x1b[5Gy\x1b[2Dz\x1b[Cw", "x  zyw"),
        ("\x1b]0;a title\x07text \x1b]8;;http://x/\x1b\\link\x1b]8;;\x1b\\", "text link"),
        ("\x1b[?25lhidden cursor\x1b[?25h\x1b(B\x1b=\x07\x00", "hidden cursor"),
        ("unfinished \x1b[", "unfinished"),
        ("unfinished \x1b", "unfinished"),
    ],
)
def test_codes_do_what_they_do_in_a_terminal(printed: str, shown: str) -> None:
    assert _lines(printed) == shown


@pytest.mark.parametrize(
    ("printed", "shown"),
    [
        ("\x1b[31mred\x1b[0m plain", '<span class="ansi-red">red</span> plain'),
        (
            "\x1b[1;32mok\x1b[22m ok\x1b[m",
            '<span class="ansi-bold ansi-green">ok</span><span class="ansi-green"> ok</span>',
        ),
        ("\x1b[91;44mx\x1b[39;49my", '<span class="ansi-red ansi-on-blue">x</span>y'),
        ("\x1b[38;5;208mx\x1b[m", '<span class="ansi-red">x</span>'),
        ("\x1b[38;2;40;200;40mx\x1b[m", '<span class="ansi-green">x</span>'),
        ("\x1b[38;5;244mx\x1b[m", '<span class="ansi-quiet">x</span>'),
        ("\x1b[97;90mx\x1b[37my", '<span class="ansi-quiet">x</span>y'),
        ("\x1b[4;3;9;7mx", '<span class="ansi-underline ansi-italic ansi-strike ansi-inverse">x</span>'),
        ('\x1b[31m<b>&"\x1b[0m<i>', '<span class="ansi-red">&lt;b&gt;&amp;&#34;</span>&lt;i&gt;'),
        ('\x1b[31"><script>m', "31&#34;&gt;&lt;script&gt;m"),
        ("\x1b[99999999999999999999m\x1b[38m\x1b[38;5mx", "x"),
    ],
)
def test_colours_are_classes_and_text_is_text(printed: str, shown: str) -> None:
    assert Sheet(printed).html(9) == shown


def test_nested_progress_bars_are_a_line_each() -> None:
    # As tqdm writes them: the inner one stands below, and is erased by blanks when it has ended.
    printed = ""
    for outer in range(1, 4):
        for inner in range(20):
            printed += f"\n\rinner: {inner:3}/20 [00:00<00:00, 9.1it/s]\x1b[A"
        printed += f"\n\r{' ' * 40}\x1b[A\router: {outer}/3 [00:00<00:00]"
    assert _lines(printed + "\ndone\n").split("\n") == ["outer: 3/3 [00:00<00:00]", f"done{' ' * 36}".rstrip()]


@given(st.lists(st.sampled_from([*"ab<&\n\r\b\t\x1b[;1290ABCDEFGJKmn]", "\x1b[", "\x1b[31m", "\x1b[2K"])))
def test_whatever_is_printed_becomes_lines_of_escaped_text(parts: list[str]) -> None:
    sheet = Sheet("".join(parts))
    made = sheet.html(1_000_000)
    assert made.count("\n") >= len(sheet) - 1
    rest = made.replace("</span>", "")
    assert all(part.startswith('span class="ansi-') for part in rest.split("<")[1:])
    assert not set(rest) & set("\x1b\r\b\t")


@pytest.mark.parametrize(
    "part",
    [
        "\x1b[1000Cx\n",
        "\x1b[1000C",
        "\x1b[1000Gx\r",
        "\x1b[999A\x1b[999Bx",
        "\x1b[1J",
        "\x1b[J\n",
        "\x1b[1000C\x1b[1Kx",
        "\x1b[",
        "\x1b[0;0;0;0;0",
        "\x1b]",
        "\x1b]0;",
        "x\x1b[31m",
        "\x1b[31mx\x1b[0m",
        "x",
        "\t",
        "\t\r",
        "\b",
        "x\n",
        "\x9b",
    ],
)
def test_no_text_takes_more_than_time_in_proportion_to_its_length(part: str) -> None:
    count = 8_000 // len(part)
    short, long = (processor_time(lambda times=times: Sheet(part * times).html(200)) for times in (count, 10 * count))
    assert long < 50 * short + 0.1  # ten times as long; a hundred times the time, were it quadratic


def test_the_page_of_a_run_shows_the_logs_of_all_its_tasks(tracker: Any, server: Any) -> None:
    run, task = tracker.started()
    for uid, text in (
        (run.root.attempt, "the root <b>prints</b>\n"),
        (task.attempt, "10%\r100%\n\x1b[31mred\x1b[0m\n"),
    ):
        tracker.call("save_task_run_log", {"task_run_attempt_uid": uid, "log_body": text, "local_log_path": None})
    page = server.get(f"/app/jobs/x/{run.uid}").text
    assert "the root &lt;b&gt;prints&lt;/b&gt;" in page
    assert '<span>100%\n<span class="ansi-red">red</span></span></pre>' in page
    assert page.count('<details class="task-log"') == 2
    assert (
        '<span>100%\n<span class="ansi-red">red</span></span></pre>'
        in server.get(f"/app/jobs/x/{run.uid}/{task.uid}").text
    )


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_of_a_long_log_the_end_is_shown(tracker: Any, server: Any, end: str) -> None:
    run, task = tracker.started()
    body = end.join(f"line {i} of many" for i in range(50_000))
    log = {"task_run_attempt_uid": task.attempt, "log_body": body, "local_log_path": None}
    tracker.call("save_task_run_log", log)
    page = server.get(f"/app/jobs/x/{run.uid}/{task.uid}").text
    assert "last 200 lines" in page
    assert f"<span>line {50_000 - 200} of many\n" in page
    assert "line 49999 of many</span></pre>" in page
    assert server.get(f"/app/logs/{task.uid}").text == body
