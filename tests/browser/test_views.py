"""The pages of runs, task runs and comparisons."""

from __future__ import annotations

import re
from typing import Any

import pytest
from kit.scale import THOROUGH
from kit.site import Site, expect, wait_for

ATTEMPT = "attempts a ON a.task_run_uid = ?"


def cells(page: Any, section: str) -> list[list[str]]:
    """The texts of a section's table, row by row."""
    rows = page.locator(f"#{section} tbody tr").all()
    return [[text.strip() for text in row.locator("td").all_inner_texts()] for row in rows]


def test_a_run_shows_its_tasks_their_time_and_what_they_logged(site: Site, visit: Any) -> None:
    uid = site.run("pipeline")
    page = visit(site.url, f"/app/jobs/pipeline/{uid}")
    tasks = site.query("SELECT name FROM task_runs WHERE run_uid = ?", uid)
    assert len(tasks) == 4

    rows = page.locator(".timeline tbody tr")
    expect(rows).to_have_count(len(tasks))
    shown = [text.strip() for text in page.locator(".timeline td.task").all_inner_texts()]
    assert shown == ["pipeline", "load", "train", "inner fold"]
    depths = [page.locator(f".timeline .d{depth}").count() for depth in range(3)]
    assert depths == [1, 2, 1]
    assert page.locator(".timeline svg .fill-success").count() == 4
    metrics = {(row[-1], row[0]): row for row in cells(page, "metrics")}
    assert metrics["load", "rows"][1] == "300"
    assert [metrics["train", "odd"][i] for i in (1, 2, 3, 4, 5)] == ["6", "5", "1", "Infinity", "6"]
    assert metrics["inner fold", "fold_loss"][1:3] == ["0.25", "1"]
    params = cells(page, "params")
    assert ["rows", "300", "pipeline"] in params
    assert ["optimizer", "adam", "train"] in params
    assert ["team", "browser", "train"] in cells(page, "tags")
    assert any(row[0] == "notes" and row[-1] == "train" for row in cells(page, "artifacts"))
    assert page.locator("#log pre").first.inner_text() == "the pipeline begins\nloading 100%\nred and plain"
    red = page.locator("#log").get_by_text("red", exact=True)
    assert red.evaluate("e => [getComputedStyle(e).color, getComputedStyle(e).fontWeight]") == [
        "rgb(185, 38, 29)",
        "700",
    ]
    expect(page.locator("dl.facts")).not_to_be_visible()
    page.get_by_text("Command, environment and uids").click()
    expect(page.locator("dl.facts")).to_contain_text("dbnd run")
    run_id = site.query("SELECT external_links FROM attempts WHERE external_links LIKE '%/runs/%' LIMIT 1")
    assert run_id
    page.locator("#mlflow summary").click()
    expect(page.locator("#mlflow")).to_contain_text("dbnd mlflow verify --record")
    expect(page.locator("#mlflow li")).to_have_count(2)
    page.keyboard.press("Escape")

    page.locator(".timeline").get_by_role("link", name="train", exact=True).click()
    page.wait_for_url(re.compile(site.task("pipeline", "train")))
    expect(page.get_by_role("heading", level=1)).to_have_text("train")
    assert page.locator("main").get_attribute("data-live") is None


def test_a_failed_run_shows_its_error_and_the_end_of_its_log(site: Site, visit: Any) -> None:
    page = visit(site.url, f"/app/jobs/failing/{site.run('failing')}")
    expect(page.locator(".heading .state")).to_have_text("failed")
    expect(page.locator("#error .message")).to_contain_text("because the disk is full & more <b>so</b>.")
    expect(page.locator("#error pre")).to_contain_text("raise RuntimeError(")
    log = page.locator("#log pre").inner_text()
    assert "line 299 of the log" in log
    assert "line 9 of" not in log
    page.get_by_role("link", name="Whole log").click()
    page.wait_for_url(re.compile("/app/logs/"))
    assert "line 9 of the log" in page.content()


def test_a_comparison_shows_what_differs_and_draws_it(site: Site, visit: Any) -> None:
    runs = site.query("SELECT uid, name FROM runs WHERE job_name = 'sweep' ORDER BY start_time")
    page = visit(site.url, "/app/compare?" + "&".join(f"run={uid}" for uid, _ in runs))
    table = page.locator("table.comparison")
    row = table.get_by_role("row", name=re.compile("^rate"))
    assert row.locator("td").all_inner_texts() == ["0.3", "0.2", "0.1"], "the best by the target comes first"
    assert table.get_by_role("rowheader", name="layers", exact=True).count() == 0
    scores = table.get_by_role("row", name=re.compile("^score")).locator("td").all_inner_texts()
    assert [float(text) for text in scores] == [pytest.approx(19 * rate) for rate in (0.3, 0.2, 0.1)]
    assert page.locator("#scatter .dot").count() == 3
    places = [float(dot.get_attribute("cy")) for dot in page.locator("#scatter .dot").all()]
    assert places == sorted(places, reverse=True), "the best is drawn last, above the others"
    assert page.locator("#parallel .path").count() == 3
    chart = page.locator("figure.chart[data-title=score]")
    expect(chart.locator(".keys li")).to_have_text([name for _, name in runs])
    expect(chart.locator(".note")).to_contain_text("60 points")

    page.get_by_role("link", name="Show all").click()
    page.wait_for_url(re.compile("show=all"))
    expect(table.get_by_role("rowheader", name="layers", exact=True)).to_have_count(1)
    page.get_by_role("button", name=f"Leave out {runs[0][1]}").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Comparison of 2 runs")
    expect(chart.locator(".note")).to_contain_text("40 points")


def test_runs_are_chosen_on_an_axis_by_a_condition_and_by_keys(site: Site, visit: Any) -> None:
    runs = site.query("SELECT uid, name FROM runs WHERE job_name = 'sweep' ORDER BY start_time")
    page = visit(site.url, "/app/compare?smooth=0.5&" + "&".join(f"run={uid}" for uid, _ in runs))
    chart = page.locator("figure.chart[data-title=score]")
    chart.scroll_into_view_if_needed()
    expect(chart.locator(".keys li")).to_have_count(3)
    page.locator("#parallel").scroll_into_view_if_needed()
    box = page.locator('.brushed[data-field="params.rate"] .grip').bounding_box()
    x, bottom, middle = box["x"] + box["width"] / 2, box["y"] + box["height"] - 2, box["y"] + box["height"] * 0.4
    page.mouse.move(x, bottom)
    page.mouse.down()
    page.mouse.move(x, middle, steps=4)
    expect(page.locator("#parallel .faded")).to_have_count(1)  # while it is being dragged
    page.mouse.up()
    page.wait_for_url(re.compile("smooth=0.5.*where=params.rate"))
    expect(page.locator("#parallel .note")).to_have_text("2 of 3 runs chosen")
    expect(page.locator("#parallel .faded, #scatter .faded")).to_have_count(2)
    table = page.locator("table.comparison")
    expect(table.get_by_role("row", name=re.compile("^rate")).locator("td")).to_have_text(["0.2", "0.1"])
    expect(chart.locator(".keys li")).to_have_text([name for _, name in runs[:2]])

    said = page.evaluate(
        """async (axes) => {
            const own = document.querySelector("script[type=module]").src;
            const { condition } = await import(new URL("compare.js", own));
            const axis = { field: "metrics.m", scale: "linear" };
            return axes.map(([low, high, lower]) => condition({ ...axis, low, high }, 34, lower));
        }""",
        [["0.12346", "0.99994", 300], ["0.12346", "0.99994", 100], ["0.98765", "0.98769", 100]],
    )
    wanted = [("0.12346", "0.99994"), ("0.7825", "0.99994"), ("0.98768008", "0.98769")]
    assert said == [f"metrics.m >= {low} and metrics.m <= {high}" for low, high in wanted], "the ends are in it"

    page.mouse.click(x, middle)
    expect(page.locator(".faded")).to_have_count(0)
    assert "where" not in page.url
    condition = page.get_by_label("A condition that chooses runs")
    condition.fill("params.rate >")
    condition.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("params.rate >")
    condition.fill("params.rate > 0.25")
    condition.press("Enter")
    expect(page.locator("#parallel .note")).to_have_text("1 of 3 runs chosen")
    page.reload()
    expect(page.locator("#parallel .faded")).to_have_count(2)
    page.get_by_label(
        "params.rate > 0.25"
    ).click()  # it goes with its condition, perhaps before one could see it unchecked
    expect(page.locator(".faded")).to_have_count(0)

    page.locator("#parallel a").last.focus()
    expect(page.locator("#readout")).to_have_text(re.compile(f"^{re.escape(runs[2][1])}: rate = 0.3, .*score = 5.7"))
    page.keyboard.press("ArrowDown")
    expect(page.locator("#readout")).to_contain_text(f"{runs[1][1]}: ")
    assert runs[1][1] in page.locator("th.on").inner_text()
    page.get_by_role("link", name="Runs as rows").click()
    page.wait_for_url(re.compile("rows=runs"))
    expect(table.locator("tbody tr")).to_have_count(3)
    assert table.locator("td.best").count() == 1


@pytest.fixture(scope="session")
def paths(site: Site) -> dict[str, str]:
    """The address of each view."""
    compared = "&".join(f"run={uid}" for (uid,) in site.query("SELECT uid FROM runs WHERE job_name = 'sweep'"))
    return {
        "runs": "/",
        "job": "/app/jobs/sweep?where=metrics.score+%3E+1&lines=all",
        "overview": "/app/jobs",
        "charts beside": "/app/jobs/sweep?charts=beside&group=params.rate",
        "run": f"/app/jobs/pipeline/{site.run('pipeline')}",
        "failed run": f"/app/jobs/failing/{site.run('failing')}",
        "task": site.task_path("pipeline", "train"),
        "one chart": f"{site.task_path('pipeline', 'train')}?plot=loss&plot=odd&smooth=0.5",
        "comparison": f"/app/compare?{compared}&show=all",
        "runs as rows": f"/app/compare?{compared}&rows=runs&where=params.rate+%3C+0.25",
        "missing": "/app/jobs/x/none",
    }


LOOKS = [(360, "light"), (1280, "dark"), (360, "dark"), (1280, "light")]
# The rules of axe that a width or a theme can break; in one look the page is held against all.
OF_LOOKS = ["color-contrast", "link-in-text-block", "scrollable-region-focusable"]


@pytest.mark.parametrize("looks", [[look] for look in LOOKS] if THOROUGH else [LOOKS[:2]])
def test_every_view_is_accessible_and_as_wide_as_the_screen(
    site: Site, visit: Any, paths: dict[str, str], looks: list[tuple[int, str]]
) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed").Axe()
    page = visit(site.url, color_scheme=looks[0][1], ignored=("status of 404",))
    found = []
    for view, path in paths.items():
        for width, theme in looks:
            page.set_viewport_size({"width": width, "height": 800})
            page.emulate_media(color_scheme=theme)
            if (width, theme) == looks[0]:
                page.goto(path)
                if page.locator("figure.chart[data-series]").count():
                    page.locator("figure.chart[data-series]").first.scroll_into_view_if_needed()
                    expect(page.locator("figure.chart[data-series] .note").first).to_contain_text("point")
            wait_for(page, "width => document.documentElement.scrollWidth <= width", width)
            rules = {} if (width, theme) == looks[-1] else {"runOnly": OF_LOOKS}
            violations = axe.run(page, options={"resultTypes": ["violations"], **rules}).response["violations"]
            found += [
                (view, each["id"], each["nodes"][0]["html"][:200], each["nodes"][0].get("failureSummary"))
                for each in violations
                if each["impact"] in {"serious", "critical"}
            ]
    assert found == []


def test_a_page_names_all_modules_that_it_uses_so_that_they_are_fetched_at_once(
    site: Site, visit: Any, paths: dict[str, str]
) -> None:
    page = visit(site.url, ignored=("status of 404",))
    script = """() => [performance.getEntriesByType("resource").map((each) => each.name),
      [...document.querySelectorAll("link[rel=modulepreload], script[src]")].map((each) => each.href || each.src)]"""
    for path in paths.values():
        page.goto(path)
        page.wait_for_load_state("networkidle")
        fetched, named = page.evaluate(script)
        used = {name for name in fetched if name.endswith(".js")}
        assert used == set(named), path


def test_long_names_to_choose_from_are_no_wider_than_the_screen(site: Site, visit: Any, paths: dict[str, str]) -> None:
    page = visit(site.url, viewport={"width": 360, "height": 800})
    for path in (paths["comparison"], "/app/jobs/sweep"):
        page.goto(path)
        page.evaluate("for (const each of document.querySelectorAll('select')) each.append(new Option('n'.repeat(90)))")
        assert page.evaluate("document.documentElement.scrollWidth") == 360


def test_the_theme_can_be_chosen_and_is_kept(site: Site, visit: Any) -> None:
    page = visit(site.url, color_scheme="light")
    colour = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(colour)
    page.keyboard.press("t")
    dark = page.evaluate(colour)
    assert dark != light
    page.reload()
    assert page.evaluate(colour) == dark


def test_tables_and_facts_are_complete_without_javascript(site: Site, visit: Any, paths: dict[str, str]) -> None:
    page = visit(site.url, java_script_enabled=False)
    total = site.query("SELECT count(*) FROM runs")[0][0]
    assert page.locator("tbody tr").count() == total
    page.locator("summary", has_text="Filters").click()
    page.locator(".menu[open]").get_by_label("failed", exact=True).check()
    page.locator(".menu[open]").get_by_role("button", name="Apply").click()
    assert page.locator("tbody tr").count() == 1
    page.goto("/app/jobs/sweep")
    for box in page.get_by_role("checkbox", name=re.compile("^Select ")).all():
        box.check()
    page.get_by_role("button", name="Compare selected").click()
    assert page.locator("table.comparison thead th").count() == 4
    assert page.locator("#scatter .dot").count() == 3
    page.goto(paths["run"])
    assert page.locator(".timeline tbody tr").count() == 4
    page.goto(paths["task"])
    assert page.get_by_text("Charts need JavaScript").is_visible()
    loss = page.locator("#metrics").get_by_role("row", name=re.compile("loss"))
    assert loss.locator("td").all_inner_texts()[1:] == ["loss", "0.02", "49", "0.02", "1", "50", "mlflow"]
