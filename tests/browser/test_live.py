"""Pages of runs that go on."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from kit.site import Site, expect, wait_for
from kit.warm import Warm


def test_a_running_run_is_followed_to_its_end_without_a_reload(
    site: Site, visit: Any, tmp_path: Path, warm: Warm
) -> None:
    table = visit(site.url)
    table.evaluate("window.untouched = true")
    folder = tmp_path / "signals"
    folder.mkdir()
    arguments = ["run", f"{Path(__file__).with_name('jobs.py')}::live", "--folder", str(folder)]
    home = Path(site.environment["HOME"])
    process = warm.start({"arguments": arguments}, tmp_path / "log", env=site.environment, cwd=home)
    try:
        row = table.locator("tbody tr", has_text="live").first
        expect(row.locator(".state")).to_have_text("running")

        row.locator("[data-open]").click()
        table.wait_for_url("**/app/jobs/live/*")
        run = table
        run.evaluate("window.untouched = true")
        expect(run.locator("#metrics")).to_contain_text("points")
        task = visit(site.url, site.task_path("live", "live"))
        task.evaluate("window.untouched = true")
        expect(task.locator(".tiles")).to_contain_text("points")
        assert task.locator("figure.chart").count() == 0, "one point is no chart"
        note = task.locator("figure.chart[data-title=points] .note")
        for name in "abc":
            (folder / name).touch()
        expect(run.locator("#metrics tbody tr").first).to_contain_text("4")
        expect(note).to_contain_text("4 points")
        expect(task.locator(".elapsed").first).to_be_visible()

        (folder / "end").touch()
        for page in (run, task):
            expect(page.locator(".heading .state")).to_have_text("success")
            wait_for(page, "document.getElementById('main').dataset.live === undefined")
            assert page.evaluate("window.untouched")
        assert process.wait(60) == 0
    finally:
        process.kill()

    # Nothing asks any more.
    asked: list[str] = []
    task.on("request", lambda request: asked.append(request.url))
    task.wait_for_timeout(5_000)
    assert asked == []


def test_a_tracker_that_goes_away_is_said_and_found_again(site: Site, visit: Any) -> None:
    page = visit(site.url, ignored=("Failed to load resource",))
    addresses = re.compile(r"^(?!.*/static/)")  # a module that comes late is another matter
    page.route(addresses, lambda route: route.abort())
    expect(page.get_by_role("status")).to_have_text("The tracker does not answer")
    page.unroute(addresses)
    expect(page.get_by_role("status")).to_have_text("")
