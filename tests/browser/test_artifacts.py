"""Artifacts, as MLflow logs them: shown from files and through its server, and nothing of them runs as our page."""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kit.mlflow_stores import MlflowServer
from kit.scale import THOROUGH
from kit.site import Site, dbnd, environment_of, expect, serve, wait_for
from kit.warm import Warm

JOBS = Path(__file__).with_name("jobs.py")
NAMES = [
    "data.json",
    "leaving.html",
    "page.html",
    "picture.png",
    "picture.svg",
    "report.md",
    "rows.csv",
    "rows.parquet",
    "table.json",
]
OF_EACH_KIND = NAMES if THOROUGH else ["data.json", "page.html", "picture.png", "report.md", "rows.csv"]


@pytest.fixture(scope="module")
def shown(
    tmp_path_factory: pytest.TempPathFactory, browser: Any, empty_database: Path, warm: Warm
) -> Iterator[tuple[Site, str]]:
    """A tracker whose runs have the same artifacts in a folder, and on an MLflow server, and the server's address."""
    home = tmp_path_factory.mktemp("artifacts")
    shutil.copy(empty_database, home / "mlflow.db")
    store = MlflowServer(home / "server", empty_database, warm)
    with contextlib.ExitStack() as stack:
        uri = stack.enter_context(store.running())
        switch = ("--set-config", "mlflow_tracking.databand_tracking=True")
        dbnd(warm, home, "run", f"{JOBS}::files", *switch)
        dbnd(
            warm, home, "run", f"{JOBS}::files", *switch, "--set-config", f"mlflow_tracking.duplicate_tracking_to={uri}"
        )
        url = stack.enter_context(serve(warm, home))
        yield Site(url, home / "dbnd" / "tracker.db", environment_of(home)), uri


def _check(page: Any) -> None:
    assert page.evaluate("window.hacked") is None
    for frame in page.frames[1:]:
        assert frame.evaluate("window.origin") == "null"


def _serious(page: Any) -> list[str]:
    """What stands in the way of people who cannot see well, or use no mouse."""
    try:
        from axe_playwright_python.sync_playwright import Axe
    except ImportError:
        return []
    options = {"iframes": False, "resultTypes": ["violations"]}  # what is in a frame is the user's, and in a sandbox
    found = Axe().run(page, options=options).response["violations"]
    return [each["id"] for each in found if each["impact"] in {"serious", "critical"}]


@pytest.mark.parametrize("number", [0, 1])
def test_artifacts_open_and_nothing_of_them_runs(
    shown: tuple[Site, str], visit: Any, tmp_path: Path, number: int
) -> None:
    site, uri = shown
    uid, job = site.query("SELECT uid, job_name FROM runs ORDER BY start_time")[number]
    rows = site.query(
        "SELECT a.name, a.path, t.external_links FROM artifacts a JOIN attempts t ON t.id = a.attempt_id "
        "JOIN task_runs r ON r.uid = t.task_run_uid WHERE r.run_uid = ?", uid
    )  # fmt: skip
    places = {name: place for name, place, _ in rows}
    assert sorted(set(places) - {"folder"}) == NAMES
    assert places["rows.csv"].startswith("mlflow-artifacts:" if number else "/")

    # What the page downloads is what MLflow's own client does.
    import mlflow

    run_id = re.findall(r"/runs/([0-9a-f]{32})", rows[0][2] or rows[-1][2])[0]
    client = mlflow.MlflowClient(uri if number else site.environment["MLFLOW_TRACKING_URI"])

    page = visit(
        site.url,
        f"/app/jobs/{job}/{uid}",
        ignored=("Blocked script execution", "Content Security Policy", "Refused to frame"),
    )
    assert sorted(page.locator(".thumbnails a").all_inner_texts()) == ["picture.png", "picture.svg"]
    page.locator(".thumbnails").scroll_into_view_if_needed()
    wait_for(page, "[...document.querySelectorAll('.thumbnails img')].every((image) => image.naturalWidth > 0)")
    links = page.locator("#artifacts").get_by_role("link").all()
    addresses = {link.inner_text(): link.get_attribute("href") for link in links}
    for name in NAMES:
        page.goto(addresses[name])
        expect(page.get_by_role("heading", level=1).first).to_have_text(name)
        with page.expect_download() as download:
            page.get_by_role("link", name="Download").click()
        assert download.value.suggested_filename == name
        theirs = client.download_artifacts(run_id, name, str(tmp_path))
        assert Path(download.value.path()).read_bytes() == Path(theirs).read_bytes()
        assert page.locator(".alert").count() == 0
        _check(page)
        # The same page, wherever the bytes come from.
        assert number or name not in OF_EACH_KIND or _serious(page) == []
        width = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert width == 0
        if name.startswith("picture"):
            wait_for(page, "document.querySelector('.picture img').naturalWidth > 0")
        elif name in {"rows.csv", "rows.parquet", "table.json"}:
            assert page.locator(".preview tbody tr").first.locator("td").all_inner_texts() == ["1", "<b>one</b>"]
        elif name == "data.json":
            assert page.locator("pre.file").inner_text() == '{\n  "loss": 0.5\n}'
        elif name == "report.md":
            expect(page.locator(".markdown h2")).to_have_text("Results")
            expect(page.locator(".markdown")).to_contain_text("<script>")
        elif name == "leaving.html":
            page.get_by_role("link", name="Run them").click()
            page.get_by_role("link", name="Stop them").wait_for()
            assert page.url.startswith(site.url)
        elif name == "page.html":
            frame = page.frame_locator("iframe")
            expect(frame.locator("h1")).to_have_text("A report")
            expect(frame.locator("#drawn")).to_have_text("")
            page.get_by_role("link", name="Run them").click()
            expect(frame.locator("#drawn")).to_have_text("drawn, null")
            _check(page)
            page.set_viewport_size({"width": 360, "height": 740})
            assert page.evaluate("document.documentElement.scrollWidth") == 360
            page.set_viewport_size({"width": 1280, "height": 900})


def test_a_folder_is_listed_and_a_picture_opened_by_itself_is_in_a_sandbox(shown: tuple[Site, str], visit: Any) -> None:
    site, _ = shown
    uid, job = site.query("SELECT uid, job_name FROM runs ORDER BY start_time")[0]
    page = visit(
        site.url,
        f"/app/jobs/{job}/{uid}",
        ignored=("Blocked script execution", "Content Security Policy", "Refused to frame"),
    )
    page.locator("#artifacts").get_by_role("link", name="folder", exact=True).click()
    assert "picture.svg" in page.locator("tbody").inner_text()
    page.get_by_role("link", name="picture.svg").click()
    address = page.locator(".picture").get_attribute("href")
    page.goto(address)
    assert page.evaluate("window.origin") == "null"
    page.goto("/")
    assert page.evaluate("window.hacked") is None


def test_registered_versions_prompts_and_traces_are_linked(shown: tuple[Site, str], visit: Any) -> None:
    """As MLflow's server says when the page is looked at: a model that is promoted afterwards is shown as such."""
    import mlflow

    site, uri = shown
    sql = (
        "SELECT r.uid, r.job_name, a.mlflow_run_id FROM runs r JOIN attempts a ON a.run_id = r.id ORDER BY r.start_time"
    )
    uid, job, run_id = site.query(sql)[-1]
    client = mlflow.MlflowClient(uri)
    client.create_registered_model("churn & more")
    client.create_model_version("churn & more", f"runs:/{run_id}/model", run_id)
    mlflow.set_tracking_uri(uri)
    try:
        mlflow.genai.register_prompt("greeting", "Hello {{name}}")
        with mlflow.start_run(run_id), mlflow.start_span("answer"):
            mlflow.genai.load_prompt("greeting", version=1)
        mlflow.flush_trace_async_logging()
    finally:
        mlflow.set_tracking_uri(None)
    page = visit(site.url, f"/app/jobs/{job}/{uid}")
    links = page.locator(".in-mlflow li")
    expect(links).to_have_text(["churn & more, version 1", "prompt greeting, version 1", "1 trace in MLflow"])
    assert links.nth(1).get_by_role("link").get_attribute("href") == f"{uri}/#/prompts/greeting"
    client.set_registered_model_alias("churn & more", "champion", "1")
    page.reload()
    expect(links.first).to_have_text("churn & more, version 1 champion")
    assert links.first.get_by_role("link").get_attribute("href") == f"{uri}/#/models/churn%20%26%20more/versions/1"
