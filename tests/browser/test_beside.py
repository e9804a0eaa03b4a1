"""What the table of runs draws: charts beside it, sparklines in its cells; and how wide its columns are."""

from __future__ import annotations

import re
from typing import Any

import pytest
from kit.site import Site, expect


def figure(page: Any, title: str, points: int) -> Any:
    found = page.locator(f"figure.chart[data-title='{title}']")
    expect(found.locator(".note")).to_contain_text(f"{points} points")
    return found


def test_rows_are_drawn_in_their_colours_selected_and_grouped(site: Site, visit: Any) -> None:
    """Three runs of twenty points each, whose scores are their rate times the step."""
    runs = dict(site.query("SELECT name, uid FROM runs WHERE job_name = 'sweep' ORDER BY start_time"))
    page = visit(site.url, "/app/jobs/sweep")
    page.get_by_role("link", name="Charts", exact=True).click()
    page.wait_for_url(re.compile("charts=beside"))
    score = figure(page, "score", 60)
    expect(page.locator("td.name .swatch")).to_have_count(3)
    score.locator("canvas").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    expect(score.locator(".tip .row")).to_have_count(3)
    for name, rate in zip(runs, (0.1, 0.2, 0.3), strict=True):
        expect(score.locator(".tip .row").filter(has_text=name)).to_have_text(f"{name}{rate:g}")
    first, last = next(iter(runs)), [*runs][-1]
    page.locator(f"#run-{runs[first]}").hover()
    expect(page.locator("tr.on")).to_have_attribute("id", f"run-{runs[first]}")

    for name in (first, last):
        page.get_by_label(f"Select {name}").check()
    figure(page, "score", 40)
    expect(page.locator("#drawn")).to_have_text("2 runs selected")
    page.get_by_role("button", name="Clear selection").click()
    figure(page, "score", 60)

    page.get_by_text("Axes", exact=True).click()
    page.get_by_label("Smoothing").fill("0.5")
    page.get_by_label("Group by").select_option("layers")
    page.wait_for_url(re.compile("group=params.layers.*smooth=0.5"))
    score = figure(page, "score", 60)
    expect(page.locator("#drawn .legend")).to_have_text(["2"])
    page.get_by_text("Axes", exact=True).click()
    # The chart is drawn anew when its points have come, and points to nothing then.
    with page.expect_response(re.compile("/app/series.*key=score")) as answer:
        page.get_by_label("Smoothing").fill("0")
    answer.value.finished()
    score.locator("canvas").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    expect(score.locator(".tip .row")).to_have_text("2mean 0.2, 0.1 to 0.3 in 3 runs")

    page.get_by_label("Group by").select_option("nothing")
    page.wait_for_url(lambda url: "group=" not in url)
    page.get_by_label("Colour by").select_option("score")
    page.wait_for_url(re.compile("colour=metrics.score"))
    expect(page.locator("#drawn .legend")).to_have_text(["1.95.7"])
    swatches = [page.locator(f"#run-{uid} .swatch").get_attribute("class") for uid in runs.values()]
    assert swatches == ["swatch q0", "swatch q3", "swatch q5"]
    page.get_by_role("link", name="Hide charts").click()
    page.wait_for_url(lambda url: "charts=" not in url)
    expect(page.locator("figure.chart")).to_have_count(0)


def test_nested_runs_are_drawn_when_they_are_unfolded(site: Site, visit: Any) -> None:
    (name,) = site.query("SELECT name FROM runs WHERE job_name = 'pipeline'")[0]
    page = visit(site.url, "/app/jobs/pipeline?charts=beside")
    canvas = figure(page, "loss", 50).locator("canvas")
    expect(canvas).to_have_attribute("aria-label", re.compile(f"{name}: last 0.02"))
    page.get_by_role("link", name=f"What is nested in {name}").click()
    expect(canvas).not_to_have_attribute("aria-label", re.compile(name))  # what stood for the run is drawn once
    expect(canvas).to_have_attribute("aria-label", re.compile("last 0.02"))
    figure(page, "loss", 50)


def test_cells_have_sparklines_and_columns_widths_that_are_kept(site: Site, visit: Any) -> None:
    runs = site.query("SELECT uid FROM runs WHERE job_name = 'sweep'")
    page = visit(site.url, "/app/jobs/sweep")
    page.get_by_text(re.compile(r"Columns \(")).click()
    page.get_by_label("A sparkline in each cell of a metric").check()
    page.locator("#columns").get_by_role("button", name="Apply").click()
    page.wait_for_url(re.compile("lines=all"))
    expect(page.locator("td .sparkline path")).to_have_count(len(runs))
    points = page.locator("td .sparkline path").first.get_attribute("d").split("L")
    assert (len(points), points[0], points[-1]) == (20, "M0.0 18.0", "72.0 0.0"), "a straight line upwards"

    head = page.get_by_role("columnheader", name="score")
    handle, before = head.locator(".resize"), head.bounding_box()["width"]
    box = handle.bounding_box()
    page.mouse.move(box["x"] + 4, box["y"] + 5)
    page.mouse.down()
    page.mouse.move(box["x"] + 104, box["y"] + 5, steps=3)
    page.mouse.up()
    wide = head.bounding_box()["width"]
    assert wide == pytest.approx(before + 100, abs=2)
    page.wait_for_url(re.compile(rf"width={round(wide)}\+metrics.score"))
    handle.focus()
    page.keyboard.press("ArrowLeft")
    page.wait_for_url(re.compile(rf"width={round(wide) - 16}\+metrics.score"))
    address = page.url.removeprefix(site.url)
    page.goto("/app/jobs/sweep")
    expect(head).to_have_css("width", re.compile(rf"^{round(wide) - 16}"))
    other = visit(site.url, address)
    expect(other.get_by_role("columnheader", name="score")).to_have_css("width", re.compile(rf"^{round(wide) - 16}"))
    handle.dblclick()
    expect(head).not_to_have_css("width", re.compile(rf"^{round(wide) - 16}"))


def test_what_is_shown_is_saved_as_a_view_and_forgotten(site: Site, visit: Any) -> None:
    name = 'rates "& more/less'
    page = visit(site.url, "/app/jobs/sweep?where=params.rate+%3E+0.1&sort=-metrics.score")
    page.locator("#views summary").click()
    page.get_by_label("Save what is shown").fill(name)
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.locator("#views summary")).to_have_text("Views (1)")
    other = visit(site.url)
    other.locator("#views summary").click()
    other.get_by_role("link", name=name).click()
    other.wait_for_url(re.compile("sort=-metrics.score"))
    expect(other.locator("td.name a[data-open]")).to_have_count(2)
    other.locator("#views summary").click()
    other.get_by_role("button", name=f"Forget the view {name}").click()
    expect(other.locator("#views summary")).to_have_text("Views")
