"""The table of runs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from kit.site import environment_of, expect, serve
from kit.warm import Warm


def names(page: Any) -> list[str]:
    return [text.strip() for text in page.locator("td.name").all_inner_texts()]


def test_it_shows_what_the_database_says(site: Any, visit: Any) -> None:
    page = visit(site.url)
    rows = site.query(
        "SELECT uid, name, state, job_name, user_name, start_time FROM runs ORDER BY start_time DESC, id DESC"
    )

    assert names(page) == [row[1] for row in rows]
    for uid, name, state, job, user, start in rows:
        row = page.locator(f"#run-{uid}")
        text = row.inner_text()
        for shown in (name, state, job, user, start[:19]):
            assert shown in text
    expect(page.locator("#total")).to_contain_text(f"{len(rows)} runs")


def test_columns_filters_and_sorting_stand_in_the_address(site: Any, visit: Any) -> None:
    page = visit(site.url, "/app/jobs/sweep")
    page.get_by_text(re.compile(r"Columns \(")).click()
    for box in page.locator("#columns input[type=checkbox]").all():
        if box.is_checked():
            box.uncheck()
    page.locator("#columns").get_by_label("score").check()
    page.locator("#columns").get_by_role("button", name="Apply").click()
    page.wait_for_url(re.compile("col=metrics.score"))
    page.get_by_role("columnheader", name="metric score").get_by_role("link").click()
    page.wait_for_url(re.compile(r"sort=-metrics.score"))

    sql = """SELECT runs.name, s.last_value FROM runs JOIN task_runs t ON t.run_uid = runs.uid
        JOIN attempts a ON a.task_run_uid = t.uid JOIN metric_series s ON s.attempt_id = a.id
        WHERE runs.job_name = 'sweep' ORDER BY s.last_value DESC"""
    expected = site.query(sql)
    assert len(expected) == 3
    assert names(page) == [name for name, _ in expected]
    assert [float(text) for text in page.locator("td.value").all_inner_texts()] == [
        pytest.approx(value) for _, value in expected
    ]
    expect(page.locator("th[aria-sort=descending]")).to_contain_text("score")

    page.get_by_label("Condition on metrics, params and tags").fill("metrics.score > 3 and params.rate <= 0.2")
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile("where="))
    assert names(page) == [expected[1][0]]
    again = visit(site.url, page.url.removeprefix(site.url))
    assert names(again) == names(page)


def test_a_condition_that_is_wrong_is_said(site: Any, visit: Any) -> None:
    page = visit(site.url, "/?where=score+%3E", ignored=("status of 400",))
    expect(page.get_by_role("alert")).to_contain_text("cannot be understood")


def test_search_and_states(site: Any, visit: Any) -> None:
    page = visit(site.url)
    page.get_by_text("State", exact=True).first.click()
    page.locator(".menu[open]").get_by_label("failed", exact=True).check()
    page.locator(".menu[open]").get_by_role("button", name="Apply").click()
    page.wait_for_url(re.compile("state=failed"))
    assert names(page) == [row[0] for row in site.query("SELECT name FROM runs WHERE state = 'failed'")]

    page.get_by_role("link", name="show all").click()
    page.wait_for_url(f"{site.url}/")
    page.keyboard.press("/")
    expect(page.get_by_role("searchbox")).to_be_focused()
    page.keyboard.type("PIPEL")
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile("q=PIPEL"))
    assert names(page) == [row[0] for row in site.query("SELECT name FROM runs WHERE job_name = 'pipeline'")]


def test_the_keyboard_walks_the_rows_selects_and_opens(site: Any, visit: Any) -> None:
    page = visit(site.url, "/app/jobs/sweep")
    expect(page.locator("#compare-button")).to_be_disabled()
    page.keyboard.press("j")
    page.keyboard.press("x")
    page.keyboard.press("j")
    page.keyboard.press("j")
    page.keyboard.press("k")
    expect(page.locator("tbody tr").nth(1)).to_have_class("current")
    page.keyboard.press("x")
    expect(page.locator("#compare-button")).to_have_text("Compare 2 selected")
    page.keyboard.press("c")
    page.wait_for_url(re.compile("/app/compare"))
    expect(page.get_by_role("heading", level=1)).to_have_text("Comparison of 2 runs")

    page.go_back()
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile("/app/jobs/sweep/"))
    page.keyboard.press("u")
    page.wait_for_url(re.compile("/app/jobs/sweep$"))
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()


def test_the_selection_stays_when_the_table_is_turned_sorted_and_filtered(
    tmp_path: Path, visit: Any, warm: Warm
) -> None:
    code = (
        "from dbnd import dbnd_tracking, log_metric\n"
        "for n in range(30):\n"
        "    with dbnd_tracking(job_name='many', run_name=f'run {n:02}'): log_metric('score', n)\n"
    )
    assert warm.start({"code": code}, tmp_path / "log", env=environment_of(tmp_path), cwd=tmp_path).wait(400) == 0
    with serve(warm, tmp_path) as url:
        page = visit(url, "/?limit=25")
        button, elsewhere = page.locator("#compare-button"), page.locator("#elsewhere")
        clear = page.get_by_role("button", name="Clear selection")
        expect(clear).to_be_hidden()
        page.keyboard.press("j")
        page.keyboard.press("x")
        expect(button).to_have_text("Compare 1 selected")

        page.get_by_role("link", name="Next").click()
        page.wait_for_url(re.compile("after="))
        expect(elsewhere).to_have_text("1 not on this page")
        page.keyboard.press("j")
        page.keyboard.press("x")
        expect(button).to_have_text("Compare 2 selected")

        page.get_by_role("columnheader", name="score").get_by_role("link").click()
        page.wait_for_url(re.compile(r"sort=-metrics\.score"))
        assert names(page)[0] == "run 29"
        expect(page.get_by_role("checkbox", name="Select run 29")).to_be_checked()
        expect(elsewhere).to_have_text("1 not on this page")
        page.get_by_role("searchbox").fill("run 07")
        page.keyboard.press("Enter")
        page.wait_for_url(re.compile("q=run"))
        expect(elsewhere).to_have_text("2 not on this page")
        page.get_by_role("checkbox", name="All runs on this page").check()
        expect(button).to_have_text("Compare 3 selected")
        page.keyboard.press("Escape")
        page.keyboard.press("c")
        page.wait_for_url(re.compile("/app/compare"))
        compared = page.locator("table.comparison thead th a:not(.plain)").all_inner_texts()
        assert sorted(compared) == ["run 04", "run 07", "run 29"]

        page.go_back()
        expect(button).to_have_text("Compare 3 selected")
        # A fetch of the live page leaves the selection as it is.
        with page.expect_response(lambda answer: answer.url == page.url):
            pass
        expect(button).to_have_text("Compare 3 selected")
        expect(page.get_by_role("checkbox", name="Select run 07")).to_be_checked()
        clear.focus()
        page.keyboard.press("Enter")
        expect(button).to_have_text("Compare selected")
        expect(button).to_be_disabled()
        expect(page.get_by_role("checkbox", name="Select run 07")).not_to_be_checked()
        page.keyboard.press("j")
        page.keyboard.press("x")
        page.keyboard.press("Shift+X")
        expect(clear).to_be_hidden()
