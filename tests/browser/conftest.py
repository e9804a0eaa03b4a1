"""A browser, and a tracker with what real runs have logged.

The browser lives as long as a module's tests: Playwright's loop would be in the way of other modules' own.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from kit.site import PATIENCE_MS, Site, dbnd, environment_of, serve
from kit.warm import Warm

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-dev-shm-usage"
).split()
JOBS = Path(__file__).with_name("jobs.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A browser on a busy machine needs time."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.timeout(900))
            item.add_marker("browser")


def need_browser() -> None:
    """Skip the test where it cannot be run."""
    pytest.importorskip("playwright.sync_api", reason="Playwright for Python is not installed")
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine: apt-get install chromium, or set CHROMIUM to one")


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory, warm: Warm) -> Iterator[Site]:
    """A server over what real runs have logged: the examples, nested and failing tasks, odd values, a long history."""
    need_browser()
    home = tmp_path_factory.mktemp("site")
    switch = ("--set-config", "mlflow_tracking.databand_tracking=True")
    dbnd(warm, home, "run", "dbnd_examples.tracking.tracking_mlflow.task_with_mflow", "--epochs", "12", *switch)
    dbnd(warm, home, "run", f"{JOBS}::pipeline", *switch)
    dbnd(warm, home, "run", f"{JOBS}::failing", code=10)
    for rate in ("0.1", "0.2", "0.3"):
        dbnd(warm, home, "run", f"{JOBS}::sweep", "--rate", rate)
    with serve(warm, home) as url:
        yield Site(url, home / "dbnd" / "tracker.db", environment_of(home))


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium."""
    need_browser()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as started:
        launched = started.chromium.launch(executable_path=CHROMIUM, args=FLAGS, timeout=PATIENCE_MS * 2)
        yield launched
        launched.close()


@dataclass
class Watch:
    """What a page must not do.

    Args:
        url: Where its server is.
        ignored: Texts of which one may stand in a message of the console.
    """

    url: str
    ignored: tuple[str, ...] = ()
    found: list[str] = field(default_factory=list)

    def attach(self, page: Any) -> None:
        page.on("console", lambda message: self._said(message.type, message.text))
        page.on("pageerror", lambda error: self.found.append(f"error: {error}"))
        page.on("request", lambda request: self._asked(request.url))
        page.on("requestfailed", lambda request: self._kept_back(request.url, request.failure))
        page.on("dialog", lambda dialog: (self.found.append(f"dialog: {dialog.message}"), dialog.dismiss()))

    def _said(self, kind: str, text: str) -> None:
        if kind in {"error", "warning"} and not any(part in text for part in self.ignored):
            self.found.append(f"{kind}: {text}")

    def _kept_back(self, url: str, reason: str | None) -> None:
        """The policy of a page has kept this request from being made; the console says so, too."""
        asked = f"request: {url}"
        if reason == "csp" and asked in self.found:  # without JavaScript, our own modules are kept back, too
            self.found.remove(asked)

    def _asked(self, url: str) -> None:
        if not url.startswith(f"{self.url}/"):
            self.found.append(f"request: {url}")


Visit = Callable[..., Any]


@pytest.fixture
def visit(browser: Any) -> Iterator[Visit]:
    """Open a page; at the end, no console error and no request to another host may have been seen."""
    contexts = []
    watches = []

    def open_page(url: str, path: str = "/", *, ignored: tuple[str, ...] = (), **options: Any) -> Any:
        options = {"viewport": {"width": 1280, "height": 900}, "timezone_id": "UTC", **options}
        context = browser.new_context(base_url=url, **options)
        context.set_default_timeout(PATIENCE_MS)
        contexts.append(context)
        page = context.new_page()
        watch = Watch(url, ignored)
        watches.append(watch)
        watch.attach(page)
        page.goto(path)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert [found for watch in watches for found in watch.found] == []
