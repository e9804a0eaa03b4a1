"""A browser, and a tracker with what real runs have logged.

The browser lives as long as these tests: Playwright's loop would be in the way of those in other folders.
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

# The first is the same engine without a window's surroundings, and takes a third less processor time.
COMMANDS = ("chromium-headless-shell", "chromium", "chromium-browser")
CHROMIUM = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, COMMANDS)), None)
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
        pytest.skip("no Chromium on this machine: apt-get install chromium-headless-shell, or set CHROMIUM to one")


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory, empty_database: Path, warm: Warm) -> Iterator[Site]:
    """A server over what real runs have logged: the examples, nested and failing tasks, odd values, a long history."""
    need_browser()
    home = tmp_path_factory.mktemp("site")
    shutil.copy(empty_database, home / "mlflow.db")
    switch = ("--set-config", "mlflow_tracking.databand_tracking=True")
    dbnd(warm, home, "run", "dbnd_examples.tracking.tracking_mlflow.task_with_mflow", "--epochs", "12", *switch)
    dbnd(warm, home, "run", f"{JOBS}::pipeline", *switch)
    dbnd(warm, home, "run", f"{JOBS}::failing", code=10)
    for rate in ("0.1", "0.2", "0.3"):
        dbnd(warm, home, "run", f"{JOBS}::sweep", "--rate", rate)
    with serve(warm, home) as url:
        yield Site(url, home / "dbnd" / "tracker.db", environment_of(home))


@pytest.fixture(scope="package")
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
    """What a page must not do; one of the texts ``ignored`` may stand in a message of the console."""

    url: str
    ignored: tuple[str, ...] = ()
    found: list[str] = field(default_factory=list)

    def attach(self, page: Any) -> Any:
        page.on("console", lambda message: self._said(message.type, message.text))
        page.on("pageerror", lambda error: self.found.append(f"error: {error}"))
        page.on("request", lambda request: self._asked(request.url))
        page.on("requestfailed", lambda request: self._kept_back(request.url, request.failure))
        page.on("dialog", lambda dialog: (self.found.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        return page

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
LOOK = {"viewport": {"width": 1280, "height": 900}, "timezone_id": "UTC", "reduced_motion": "reduce"}


@dataclass
class Pages:
    """Pages of one server at a time, each without history of its own: a new one costs more than most tests do in it."""

    browser: Any
    url: str = ""
    idle: list[tuple[Any, Watch]] = field(default_factory=list)

    def take(self, url: str) -> tuple[Any, Watch]:
        if url != self.url:
            while self.idle:
                self.idle.pop()[0].context.close()
            self.url = url
        return self.idle.pop() if self.idle else self.make(url, LOOK)

    def make(self, url: str, options: dict[str, Any]) -> tuple[Any, Watch]:
        context = self.browser.new_context(base_url=url, **options)
        context.set_default_timeout(PATIENCE_MS)
        watch = Watch(url)
        return watch.attach(context.new_page()), watch

    def give_back(self, page: Any, watch: Watch) -> list[str]:
        """Forget what the page has stored; returns what it has done that it must not."""
        page.evaluate("localStorage.clear(); sessionStorage.clear()")
        page.context.clear_cookies()
        page.goto("about:blank")
        found, watch.found = watch.found, []
        if watch.url == self.url:
            self.idle.append((page, watch))
        else:
            page.context.close()
        return found


@pytest.fixture(scope="package")
def _pages(browser: Any) -> Pages:
    return Pages(browser)


@pytest.fixture
def visit(_pages: Pages) -> Iterator[Visit]:
    """Open a page; at the end, no console error and no request to another host may have been seen."""
    kept, own = [], []

    def open_page(url: str, path: str = "/", *, ignored: tuple[str, ...] = (), **options: Any) -> Any:
        page, watch = _pages.make(url, LOOK | options) if options else _pages.take(url)
        (own if options else kept).append((page, watch))
        watch.ignored = ignored
        page.goto(path)
        return page

    yield open_page
    found = []
    for page, watch in own:
        page.context.close()
        found += watch.found
    for page, watch in kept:
        found += _pages.give_back(page, watch)
    assert found == []
