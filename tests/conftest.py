"""Fixtures of the kit: processes that start fast, a tracker to kill, a proxy to spoil."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from kit.faults import Proxy
from kit.jobs import Jobs
from kit.trackers import Tracker
from kit.warm import Warm


@pytest.fixture(scope="session")
def _tracker(warm: Warm, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tracker]:
    with Tracker(warm, tmp_path_factory.mktemp("tracker")) as started:
        yield started


@pytest.fixture
def tracker(_tracker: Tracker) -> Tracker:
    """A tracker process, with runs of other tests; one that has killed it need not start it again."""
    if not _tracker.is_running:
        _tracker.start()
    return _tracker


@pytest.fixture
def proxy(tracker: Tracker) -> Iterator[Proxy]:
    """A proxy in front of the tracker; without a script it does no harm."""
    with Proxy(tracker.url) as made:
        yield made


@pytest.fixture
def jobs(warm: Warm, tmp_path: Path, proxy: Proxy, tracker: Tracker) -> Jobs:
    """Processes that log to the tracker behind the proxy."""
    return Jobs(warm, tmp_path, proxy.url, tracker)


@pytest.fixture
def report(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Puts a sentence under the results of the whole session, from whatever process the test runs in."""

    def add(sentence: str) -> None:
        record_property("report", sentence)

    return add


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what tests have reported."""
    sentences = [
        text
        for outcome in ("passed", "failed")
        for test in terminalreporter.getreports(outcome)
        if test.when == "call"
        for name, text in test.user_properties
        if name == "report"
    ]
    if sentences:
        terminalreporter.section("reports")
        for sentence in sorted(map(str, sentences)):
            terminalreporter.write_line(sentence)
