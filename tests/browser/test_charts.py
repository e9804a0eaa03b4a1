"""Charts of metrics: what they show, and how they are moved."""

from __future__ import annotations

import csv
import json
import math
import random
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from kit.scale import scaled
from kit.site import Site, dbnd, environment_of, expect, serve, wait_for
from kit.warm import Warm

MANY = scaled(100_000, 1_000_000)
INKED = """canvas => {
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  const colours = new Map();
  for (let i = 0; i < data.length; i += 4) {
    if (data[i + 3] > 200) {
      const key = `${data[i]},${data[i + 1]},${data[i + 2]}`;
      colours.set(key, (colours.get(key) ?? 0) + 1);
    }
  }
  return Object.fromEntries(colours);
}"""


def figure(page: Any, title: str) -> Any:
    """A chart that has drawn its points."""
    found = page.locator(f"figure.chart[data-title='{title}']")
    found.scroll_into_view_if_needed()
    expect(found.locator(".note")).to_contain_text("point")
    return found


def drag(page: Any, canvas: Any, start: float, end: float) -> None:
    """Drag the mouse over a part of a chart's width."""
    box = canvas.bounding_box()
    xs = [box["x"] + 58 + (box["width"] - 70) * part for part in (start, end)]
    y = box["y"] + box["height"] / 2
    page.mouse.move(xs[0], y)
    page.mouse.down()
    page.mouse.move(xs[1], y, steps=2)
    page.mouse.up()


def asked(page: Any) -> dict[str, float]:
    """The part that the address asks for."""
    query = page.evaluate("Object.fromEntries(new URLSearchParams(location.search))")
    return {name: float(query[name]) for name in ("from", "to") if name in query}


def test_a_chart_draws_and_tells_the_values_of_the_database(site: Site, visit: Any) -> None:
    page = visit(site.url, site.task_path("pipeline", "train"))
    loss = figure(page, "loss")
    assert "50 points" in loss.locator(".note").inner_text()
    shown = "(document.body.style.outlineColor = 'var(--c0)', getComputedStyle(document.body).outlineColor)"
    rgb = page.evaluate(shown).removeprefix("rgb(").removesuffix(")").replace(" ", "")
    assert loss.locator("canvas").evaluate(INKED).get(rgb, 0) > 50

    path = f"/api/v1/task-runs/{site.task('pipeline', 'train')}/metrics/history?key=loss"
    stored = [(point["step"], point["value"]) for point in requests.get(site.url + path, timeout=30).json()["data"]]
    assert len(stored) == 50
    canvas = loss.locator("canvas")
    canvas.focus()
    for step, value in stored[:3]:
        page.keyboard.press("ArrowRight")
        expect(loss.locator(".tip")).to_have_text(f"step {step}loss{float(f'{value:.6g}'):g}")
    box = canvas.bounding_box()
    page.mouse.move(box["x"] + box["width"] - 13, box["y"] + 100)
    expect(loss.locator(".tip")).to_contain_text("step 49")
    expect(loss.locator(".tip")).to_contain_text("0.02")


def test_nan_and_infinity_are_shown_as_such(site: Site, visit: Any) -> None:
    page = visit(site.url, site.task_path("pipeline", "train"))
    odd = figure(page, "odd")
    expect(odd.locator(".note")).to_contain_text("has NaN, Infinity")
    odd.locator("canvas").focus()
    seen = []
    for _ in range(6):
        page.keyboard.press("ArrowRight")
        seen.append(odd.locator(".tip").inner_text().split("\n")[-1].strip())
    assert seen == ["1", "2", "NaN", "4", "Infinity", "6"]


def test_axis_scale_smoothing_and_zoom_stand_in_the_address(site: Site, visit: Any) -> None:
    path = site.task_path("pipeline", "train")
    page = visit(site.url, path)
    loss = figure(page, "loss")
    drag(page, loss.locator("canvas"), 0.2, 0.6)
    page.wait_for_url(re.compile("from="))
    part = asked(page)
    assert part["from"] == pytest.approx(0.2 * 49, abs=1)
    assert part["to"] == pytest.approx(0.6 * 49, abs=1)
    page.get_by_label("Scale").select_option("log")
    page.get_by_label("Smoothing").fill("0.6")
    page.wait_for_url(re.compile("scale=log.*smooth=0.6|smooth=0.6.*scale=log"))

    again = visit(site.url, page.url.removeprefix(site.url))
    expect(again.get_by_label("Scale")).to_have_value("log")
    expect(again.get_by_label("Smoothing")).to_have_value("0.6")
    assert asked(again) == part
    loss = figure(again, "loss")
    loss.locator("canvas").focus()
    again.keyboard.press("ArrowRight")
    expect(loss.locator(".tip")).to_contain_text("smoothed")
    again.get_by_role("button", name="Show all", exact=True).click()
    wait_for(again, "!location.search.includes('from=')")

    for axis, text in (("time", r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"), ("relative", "after")):
        again.get_by_label("Axis").select_option(axis)
        again.wait_for_url(re.compile(f"axis={axis}"))
        canvas = loss.locator("canvas")
        for _ in range(100):  # until the points of the other axis are there
            canvas.press("ArrowRight")
            if re.search(text, loss.locator(".tip").inner_text()):
                break
            again.wait_for_timeout(200)
        else:
            pytest.fail(f"The axis {axis} is not shown.")


def test_charts_stand_in_sections_and_move_together(site: Site, visit: Any) -> None:
    page = visit(site.url, site.task_path("pipeline", "train"))
    sections = page.locator("details.chart-section")
    assert sections.locator("> summary").all_inner_texts() == ["Metrics 3", "late/ 1", "System metrics 1"]
    assert [section.get_attribute("open") is not None for section in sections.all()] == [True, True, False]
    loss, late, wide = (figure(page, title) for title in ("loss", "late/score", "wide"))
    assert [each.locator(".last").inner_text() for each in (loss, late, wide)] == ["0.02", "7", "1e-7"]
    scales = [", logarithmic" in each.locator("canvas").get_attribute("aria-label") for each in (loss, late, wide)]
    assert scales == [False, False, True], "values that span orders of magnitude"
    expect(wide).to_be_in_viewport()

    loss.scroll_into_view_if_needed()
    loss.locator("canvas").hover(position={"x": 70, "y": 90})
    expect(wide.locator(".rule")).to_be_visible()
    expect(late.locator(".rule")).not_to_be_visible()

    drag(page, loss.locator("canvas"), 0.2, 0.6)
    page.wait_for_url(re.compile("from="))
    canvas = late.locator("canvas")
    for _ in range(2):
        canvas.focus()
        page.keyboard.press("ArrowRight")
        expect(late.locator(".tip")).to_contain_text("step 1000")
        page.reload()
        figure(page, "late/score")

    page.get_by_label("Filter charts").fill("LATE")
    expect(loss).to_be_hidden()
    expect(late).to_be_visible()
    assert page.locator("details.chart-section:visible").count() == 1


def test_a_tip_stays_in_the_window(site: Site, visit: Any) -> None:
    runs = site.query("SELECT uid FROM runs WHERE job_name = 'sweep' ORDER BY start_time")
    page = visit(site.url, "/app/compare?" + "&".join(f"run={uid}" for (uid,) in runs))
    chart = figure(page, "score")
    box = chart.locator("canvas").bounding_box()
    page.evaluate("y => scrollBy(0, y)", box["y"] - 900 + 60)  # only its upper edge is in the window
    box = chart.locator("canvas").bounding_box()
    page.mouse.move(box["x"] + box["width"] - 40, box["y"] + 50)
    tip = chart.locator(".tip")
    expect(tip).to_be_visible()
    place = tip.bounding_box()
    assert place["y"] + place["height"] <= 900
    assert place["x"] + place["width"] <= 1280


def test_a_chart_has_a_range_full_screen_and_files_of_its_own(site: Site, visit: Any) -> None:
    page = visit(site.url, site.task_path("pipeline", "train"))
    loss = figure(page, "loss")
    menu = loss.locator("details.menu")
    picture = "document.querySelector('figure[data-title=loss] canvas').toDataURL()"
    before = page.evaluate(picture)
    menu.locator("summary").click()
    menu.get_by_label("Highest value shown").fill("0.1")
    page.wait_for_url(re.compile(r"range=\.\.0\.1\+loss"))
    again = visit(site.url, page.url.removeprefix(site.url))
    figure(again, "loss")
    assert again.get_by_label("Highest value shown").first.input_value() == "0.1"
    wait_for(page, f"before => {picture} !== before", before)
    with page.expect_download() as download:
        menu.get_by_role("button", name="Picture (PNG)").click()
    assert download.value.suggested_filename == "loss.png"
    assert Path(download.value.path()).read_bytes().startswith(b"\x89PNG")
    menu.locator("summary").click()
    with page.expect_download() as download:
        menu.get_by_role("button", name="All points (CSV)").click()
    rows = list(csv.DictReader(Path(download.value.path()).read_text().splitlines()))
    assert [(int(row["step"]), float(row["value"])) for row in rows] == [(step, 1 / (1 + step)) for step in range(50)]
    menu.locator("summary").click()
    menu.get_by_role("button", name="Full screen").click()
    wait_for(page, "document.fullscreenElement?.dataset.title === 'loss'")
    page.evaluate("document.exitFullscreen()")


TICKS = """async ranges => {
  const address = document.querySelector("script[src$='page.js']").src.replace("page.js", "scale.js");
  const { linearTicks, logTicks, stepTicks } = await import(address);
  return ranges.map(([low, high]) => [linearTicks, stepTicks, logTicks].map((ticks) => ticks(low, high)));
}"""


def test_axes_have_three_to_five_round_ticks_and_every_power_of_ten(site: Site, visit: Any) -> None:
    page = visit(site.url)
    rng = random.Random(17)
    ranges = [sorted(10 ** rng.uniform(-6, 7) for _ in range(2)) for _ in range(300)]
    for (low, high), (linear, steps, log) in zip(ranges, page.evaluate(TICKS, ranges), strict=True):
        assert 3 <= len(linear) <= 5, (low, high)
        assert len(steps) <= 5
        assert all(at == round(at) for at, _ in steps)
        powers = [power for power in range(-7, 9) if low <= 10**power <= high]
        if len(powers) > 1:
            assert [round(math.log10(at)) for at, _ in log] == powers
            assert 1 <= sum(label != "" for _, label in log) <= 5


def test_a_scale_is_logarithmic_for_most_values_and_not_for_the_first_ones(site: Site, visit: Any) -> None:
    page = visit(site.url)
    accuracies = [1 - math.exp(-step / 8) + 1e-5 for step in range(100)]
    losses = [10 ** (-step / 20) for step in range(100)]
    spans = TICKS.replace("{ linearTicks, logTicks, stepTicks }", "{ spansOrders }").partition("return")[0]
    asked = [accuracies, losses, [10.0**-step for step in range(8)], [0.0, *losses], [-1.0, 1e5], []]
    found = page.evaluate(f"{spans} return ranges.map(spansOrders); }}", asked)
    assert found == [False, True, True, False, False, False]


def test_two_fingers_zoom(site: Site, visit: Any) -> None:
    page = visit(site.url, site.task_path("pipeline", "train"), has_touch=True, viewport={"width": 400, "height": 800})
    canvas = figure(page, "loss").locator("canvas")
    box = canvas.bounding_box()
    middle, y = box["x"] + box["width"] / 2, box["y"] + 100
    session = page.context.new_cdp_session(page)

    def touch(kind: str, spread: float) -> None:
        points = [{"x": middle + side * spread, "y": y, "id": i} for i, side in enumerate((-1, 1))]
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points if kind != "touchEnd" else []})

    touch("touchStart", 20)
    for spread in (30, 40, 60, 80):
        touch("touchMove", spread)
    touch("touchEnd", 0)
    page.wait_for_url(re.compile("from="))
    part = asked(page)
    assert 0 < part["from"] < part["to"] < 49
    assert part["to"] - part["from"] < 30


def test_metrics_and_runs_share_one_chart(site: Site, visit: Any) -> None:
    runs = site.query("SELECT uid, name FROM runs WHERE job_name = 'sweep' ORDER BY start_time DESC")
    page = visit(site.url, site.task_path("sweep", "sweep"))
    page.get_by_text("Overlay runs").click()
    page.locator(".menu[open]").get_by_label(runs[1][1]).check()
    page.locator(".menu[open]").get_by_role("button", name="Draw").click()
    page.wait_for_url(re.compile("with="))
    score = figure(page, "score")
    expect(score.locator(".keys li")).to_have_text([runs[0][1], runs[1][1]])
    expect(score.locator(".note")).to_contain_text("40 points")

    page.goto(site.task_path("pipeline", "train"))
    page.get_by_label("Draw loss").check()
    page.get_by_label("Draw odd").check()
    page.get_by_role("button", name="Draw selected in one chart").click()
    page.wait_for_url(re.compile("plot=loss.*plot=odd"))
    expect(figure(page, "loss, odd").locator(".keys li")).to_have_text(["loss", "odd"])
    assert page.locator("figure.chart[data-series]").count() == 1


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory, site: Site, warm: Warm) -> Iterator[Site]:
    """A run of whose metric many points stand in the database; none is NaN but one, in the middle."""
    home = tmp_path_factory.mktemp("long")
    dbnd(warm, home, "run", f"{Path(__file__).with_name('jobs.py')}::sweep")
    database = home / "dbnd" / "tracker.db"
    connection = sqlite3.connect(database)
    with connection:
        series = connection.execute("SELECT id FROM metric_series").fetchone()[0]
        connection.execute("DELETE FROM metrics")
        connection.execute("DELETE FROM segments")
        connection.execute(
            """INSERT INTO metrics (series_id, number, step, timestamp_us, value, kind)
            WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)
            SELECT ?, i, i, 1700000000000000 + i * 1000, CASE WHEN i <> ? THEN i % 1000 END, 0 FROM n""",
            (MANY, series, MANY // 2),
        )
        connection.execute("UPDATE metric_series SET points = ?, last_step = ?", (MANY, MANY))
    connection.close()
    with serve(warm, home) as url:
        yield Site(url, database, environment_of(home))


def test_very_many_points_are_sent_as_few_and_zoomed_down_to_each(long: Site, visit: Any) -> None:
    page = visit(long.url)
    answers: list[Any] = []
    page.on("response", lambda answer: answers.append(answer) if "/app/series?" in answer.url else None)
    page.goto(long.task_path("sweep", "sweep"))
    score = figure(page, "score")
    expect(score.locator(".note")).to_contain_text(f"{MANY:,} points")
    expect(score.locator(".note")).to_contain_text("has NaN")
    body = answers[-1].body()
    answer = json.loads(body)[0]
    assert len(body) < 200_000
    assert not answer["exact"]
    assert sum(answer["counts"]) == MANY - 1
    assert (min(answer["low"]), max(answer["high"])) == (0, 999)
    assert answer["extent"] == [1, MANY]

    canvas = score.locator("canvas")
    for _ in range(round(math.log10(MANY))):
        before = page.url
        drag(page, canvas, 0.45, 0.55)
        wait_for(page, "before => location.href !== before", before)
        part = asked(page)
        page.wait_for_timeout(50)
    assert part["to"] - part["from"] < 3
    expect(score.locator(".note")).not_to_contain_text("mean")
    canvas.focus()
    page.keyboard.press("ArrowRight")
    step = round(part["from"])
    expect(score.locator(".tip")).to_contain_text(re.compile(rf"step ({step - 1}|{step}|{step + 1})"))
    canvas.dblclick()
    wait_for(page, "!location.search.includes('from=')")


def test_a_line_can_be_hidden_and_brought_out_by_its_key(site: Site, visit: Any) -> None:
    runs = site.query("SELECT uid FROM runs WHERE job_name = 'sweep' ORDER BY start_time")
    page = visit(site.url, "/app/compare?" + "&".join(f"run={uid}" for (uid,) in runs))
    chart = figure(page, "score")
    note, keys = chart.locator(".note"), chart.locator(".keys button")
    expect(note).to_contain_text("60 points")
    keys.nth(0).focus()
    page.keyboard.press("Enter")
    expect(note).to_contain_text("40 points")
    expect(keys.nth(0)).to_have_attribute("aria-pressed", "false")
    keys.nth(1).click()
    expect(note).to_contain_text("20 points")
    # One line stays.
    keys.nth(2).click()
    expect(keys.nth(2)).to_have_attribute("aria-pressed", "true")
    expect(note).to_contain_text("20 points")
    keys.nth(1).click()
    expect(note).to_contain_text("40 points")
    picture = "document.querySelector('figure[data-title=score] canvas').toDataURL()"
    page.mouse.move(0, 0)
    page.keyboard.press("Escape")
    page.evaluate("document.activeElement.blur()")
    before = page.evaluate(picture)
    keys.nth(1).hover()
    wait_for(page, f"before => {picture} !== before", before)
    page.mouse.move(0, 0)
    wait_for(page, f"before => {picture} === before", before)
