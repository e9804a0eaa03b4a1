"""The table of runs."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import pytest
from kit.site import environment_of, expect, serve
from kit.warm import Warm
from PIL import Image

SWEEP = "SELECT uid FROM runs WHERE job_name = 'sweep'"


def names(page: Any) -> list[str]:
    return [text.strip() for text in page.locator("td.name a[data-open]").all_inner_texts()]


def test_it_shows_what_the_database_says(site: Any, visit: Any) -> None:
    page = visit(site.url)
    rows = site.query(
        "SELECT uid, name, state, job_name, user_name, start_time FROM runs ORDER BY start_time DESC, id DESC"
    )

    assert names(page) == [row[1] for row in rows]
    for uid, name, state, job, user, start in rows:
        row = page.locator(f"#run-{uid}")
        text = row.inner_text()
        for shown in (name, state, job, user, "ago" if "ago" in text else "just now"):
            assert shown in text
        assert row.locator("time").get_attribute("datetime").startswith(start[:19].replace(" ", "T"))
    expect(page.locator("#total")).to_contain_text(f"{len(rows)} runs")


def test_columns_filters_and_sorting_stand_in_the_address(site: Any, visit: Any) -> None:
    page = visit(site.url, "/app/jobs/sweep")
    page.get_by_text(re.compile(r"Columns \(")).click()
    for box in page.locator("#columns input[type=checkbox]").all():
        if box.is_checked():
            box.uncheck()
    page.locator("#columns").get_by_label("score", exact=True).check()
    page.locator("#columns").get_by_role("button", name="Apply").click()
    page.wait_for_url(re.compile("col=metrics.score"))
    page.get_by_role("columnheader", name="score").get_by_role("link").click()
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

    page.locator("#q").fill("sweep metrics.score > 3 and params.rate <= 0.2")
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile("q=sweep"))
    expect(page.locator("#q")).to_have_value("sweep")
    expect(page.locator(".chips li")).to_have_count(2)
    assert names(page) == [expected[1][0]]
    again = visit(site.url, page.url.removeprefix(site.url))
    assert names(again) == names(page)


@pytest.mark.parametrize(
    ("path", "width", "element"),
    [("/app/jobs/pipeline", 480, ".grid"), ("/app/compare?job=sweep", 360, "#parallel .scroll")],
)
def test_what_goes_on_beyond_the_right_edge_is_shaded_there(
    site: Any, visit: Any, path: str, width: int, element: str
) -> None:
    if "compare" in path:
        path = "/app/compare?" + "&".join(f"run={uid}" for (uid,) in site.query(SWEEP))
    page = visit(site.url, path, viewport={"width": width, "height": 900}, color_scheme="light")
    page.wait_for_load_state("networkidle")
    place = page.locator(element)
    place.scroll_into_view_if_needed()
    box = place.bounding_box()
    # The lowest pixels beside the edge, where there is nothing else.
    clip = {"x": box["x"] + box["width"] - 4, "y": box["y"] + box["height"] - 8, "width": 2, "height": 4}

    def brightest() -> int:
        return max(Image.open(io.BytesIO(page.screenshot(clip=clip))).convert("L").tobytes())

    assert brightest() < 240
    place.evaluate("e => e.scrollTo({ left: e.scrollWidth, behavior: 'instant' })")
    assert brightest() == 255


def test_columns_are_no_wider_than_what_stands_in_them_so_that_metrics_are_seen(site: Any, visit: Any) -> None:
    page = visit(site.url, viewport={"width": 800, "height": 900})
    assert page.get_by_role("columnheader", name="User").bounding_box()["width"] < 84


def test_a_condition_that_is_wrong_is_said(site: Any, visit: Any) -> None:
    page = visit(site.url, "/?where=score+%3E", ignored=("status of 400",))
    expect(page.get_by_role("alert")).to_contain_text("cannot be understood")


def test_search_and_states(site: Any, visit: Any) -> None:
    page = visit(site.url)
    page.get_by_text("Filters", exact=True).click()
    page.locator(".menu[open]").get_by_label("failed", exact=True).check()
    page.locator(".menu[open]").get_by_role("button", name="Apply").click()
    page.wait_for_url(re.compile("state=failed"))
    assert names(page) == [row[0] for row in site.query("SELECT name FROM runs WHERE state = 'failed'")]

    page.get_by_role("link", name="show all").click()
    page.wait_for_url(f"{site.url}/")
    page.keyboard.press("/")
    expect(page.locator("#q")).to_be_focused()
    page.keyboard.type("PIPEL")
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile("q=PIPEL"))
    assert names(page) == [row[0] for row in site.query("SELECT name FROM runs WHERE job_name = 'pipeline'")]


def test_the_only_run_that_is_found_is_unfolded(site: Any, visit: Any) -> None:
    page = visit(site.url, "/?where=job+%3D+pipeline")
    expect(page.locator("tr[data-depth='1']").first).to_be_visible()
    page.goto("/app/jobs/pipeline")
    page.wait_for_load_state("networkidle")
    expect(page.locator("tr[data-depth='1']")).to_have_count(0)


def test_nested_runs_unfold_are_selected_compared_and_found(site: Any, visit: Any) -> None:
    """By keys, by clicks, and without a script by links; what the table shows is what the database says."""
    (run, name) = site.query("SELECT uid, name FROM runs WHERE job_name = 'pipeline'")[0]
    below = [
        row[0]
        for row in site.query(
            f"""SELECT t.name FROM task_runs t JOIN attempts a ON a.task_run_uid = t.uid
            JOIN task_relations r ON r.to_uid = t.uid AND r.kind = 'child'
            JOIN task_runs p ON p.uid = r.from_uid AND p.is_root
            WHERE t.run_uid = '{run}' ORDER BY a.start_time, t.id"""
        )
    ]
    assert below
    page = visit(site.url, "/app/jobs/pipeline")
    page.wait_for_load_state("networkidle")  # until then there is no script that takes the arrows
    unfold = page.get_by_role("link", name=f"What is nested in {name}")
    page.keyboard.press("j")
    page.keyboard.press("ArrowRight")
    expect(unfold).to_have_attribute("aria-expanded", "true")
    expect(page.locator("tr[data-depth='1']")).to_have_count(len(below))
    assert names(page) == [name, *below]
    page.keyboard.press("j")
    page.keyboard.press("x")
    page.keyboard.press("k")
    page.keyboard.press("x")
    expect(page.locator("#compare-button")).to_have_text("Compare 2 selected")
    page.keyboard.press("ArrowLeft")
    expect(page.locator("tr[data-depth='1']")).to_have_count(0)
    unfold.click()
    expect(page.locator("tr[data-depth='1']").first.get_by_role("checkbox")).to_be_checked()
    page.keyboard.press("c")
    page.wait_for_url(re.compile("/app/compare"))
    expect(page.get_by_role("heading", level=1)).to_have_text("Comparison of 2 runs")

    plain = visit(site.url, "/app/jobs/pipeline", java_script_enabled=False)
    plain.get_by_role("link", name=f"What is nested in {name}").click()
    assert names(plain) == below

    logged = "SELECT t.name, s.last_value, a.mlflow_run_id, t.uid FROM metric_series s JOIN attempts a"
    logged += " ON a.id = s.attempt_id JOIN task_runs t ON t.uid = a.task_run_uid JOIN metric_keys k ON k.id = s.key_id"
    rows = site.query(f"{logged} WHERE k.name = 'loss' AND s.last_value IS NOT NULL")
    found = visit(site.url, "/?q=metrics.loss+is+not+null&sort=metrics.loss&limit=200&col=metrics.loss")
    values = [float(text) for text in found.locator("td.value").all_inner_texts()]
    assert values == pytest.approx(sorted(row[1] for row in rows), rel=1e-3)
    run_id, uid = next((row[2], row[3]) for row in rows if row[2])
    found.goto(f"/app/mlflow/{run_id[:12]}")
    (of_run,) = site.query(f"SELECT run_uid, is_root FROM task_runs WHERE uid = '{uid}'")
    assert of_run[0] in found.url


def test_columns_are_searched_moved_and_kept(site: Any, visit: Any) -> None:
    page = visit(site.url, "/app/jobs/sweep")
    page.get_by_text(re.compile(r"Columns \(")).click()
    page.get_by_label("Find a column").fill("scor")
    expect(page.locator("#columns .choice:visible")).to_have_count(1)
    page.get_by_label("Find a column").fill("")
    page.get_by_label("Value of score").select_option("max")
    page.get_by_label("Move score to the left").click()
    page.get_by_role("button", name="Apply").last.click()
    page.wait_for_url(re.compile("col=max%3Ametrics.score"))
    heads = page.locator("thead tr:last-child th").all_inner_texts()
    assert "score (max)" in heads
    page.goto("/")
    assert "score (max)" in page.locator("thead tr:last-child th").all_inner_texts()
    page.get_by_text(re.compile(r"Columns \(")).click()
    page.get_by_role("button", name="Default").click()
    expect(page.locator("thead")).not_to_contain_text("score (max)")


def test_the_field_suggests_names_and_values(site: Any, visit: Any) -> None:
    page = visit(site.url)
    field = page.locator("#q")
    field.fill("sco")
    expect(page.get_by_role("option").first).to_contain_text("metrics.score")
    field.press("ArrowDown")
    field.press("Enter")
    expect(field).to_have_value(re.compile(r"^metrics\.score "))
    field.fill("job = sw")
    expect(page.get_by_role("option").first).to_contain_text("sweep")
    field.press("ArrowDown")
    field.press("Enter")
    field.press("Enter")
    page.wait_for_url(re.compile("q=job"))
    expect(page.locator("#total")).to_contain_text("3 runs found")


def test_a_wrong_address_is_a_page_with_a_way_back(site: Any, visit: Any) -> None:
    page = visit(site.url, "/app/nowhere", ignored=("status of 404",))
    expect(page.locator("main")).to_contain_text("There is no page /app/nowhere.")
    page.get_by_role("link", name="All runs").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Runs")


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
        page.locator("#q").fill("run 07")
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
