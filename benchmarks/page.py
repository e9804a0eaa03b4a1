"""How soon the web page is of use: the tracker's beside MLflow's own, over the same runs, in the same browser.

Over the data of ``queries.py`` (10,000 runs, 10 million points), each page is opened in a fresh browser context, in
turn; what is measured is the time from the request to the sight of what was asked for. Needs Playwright and Chromium.

    python benchmarks/page.py --scale 0.05
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from harness import mlflow, tracker
from playwright.sync_api import Browser, sync_playwright
from queries import JOBS, LONG, LONG_KEY, RUNS, SAMPLES, Data, fill_mlflow, fill_tracker

_PATIENCE_MS = 120_000
_FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync", "--no-first-run"]
# MLflow's page asks other hosts, too; here they are not to be had, and their absence is not to be measured.
_FLAGS.append("--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1")


@dataclass(frozen=True)
class View:
    """Something to look at.

    Args:
        address: Its address.
        sight: CSS selector of what is visible once the view is of use.
    """

    address: str
    sight: str


def views(data: Data, mine: str, its: str) -> dict[str, tuple[View, View]]:
    """By name, the tracker's view and MLflow's."""
    last = data.uid(data.runs - 1)
    last_id = last.replace("-", "")
    name = f"run_{data.runs - 1}"
    return {
        "table of runs": (
            View(mine, f'tbody a:text-is("{name}")'),
            View(f"{its}/#/experiments/0/runs", f'a:has-text("{name}")'),
        ),
        f"chart of {data.long:,} points": (
            View(
                f"{mine}/app/jobs/job_{(data.runs - 1) % JOBS}/{last}/{last}?plot={LONG_KEY}",
                f'figure.chart canvas[aria-label*="{LONG_KEY}"]',
            ),
            View(
                f"{its}/#/experiments/0/runs/{last_id}/model-metrics",
                f':text-is("{name} ({LONG_KEY})")',  # the legend below the chart
            ),
        ),
    }


def see(browser: Browser, view: View) -> float:
    """Seconds until the view is of use."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    started = time.perf_counter()
    page.goto(view.address, timeout=_PATIENCE_MS, wait_until="commit")
    page.locator(view.sight).first.wait_for(state="visible", timeout=_PATIENCE_MS)
    took = time.perf_counter() - started
    context.close()
    return took


def main() -> None:
    """Fill, look and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--scale", type=float, default=1.0, help="part of the full number of runs and points")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        sys.exit("There is no Chromium to look with: install your system's package chromium.")
    data = Data(max(JOBS, int(RUNS * options.scale)), max(2 * SAMPLES, int(LONG * options.scale)))
    with tempfile.TemporaryDirectory(prefix="page-", ignore_cleanup_errors=True) as name, sync_playwright() as started:
        folder = Path(name)
        mine, its = (f"sqlite:///{folder / file}" for file in ("tracker.db", "mlflow.db"))
        with mlflow(its, folder, 1) as mlflow_url:
            fill_tracker(mine, data)
            fill_mlflow(its, data)
            with tracker(mine, folder) as tracker_url:
                browser = started.chromium.launch(executable_path=chromium, args=_FLAGS)
                print(f"{data.runs:,} runs; medians of {options.rounds} rounds\n")
                print("| what | tracker s | mlflow s | ratio |\n|---|---|---|---|")
                for title, pair in views(data, tracker_url, mlflow_url).items():
                    times = [[see(browser, view) for view in pair] for _ in range(options.rounds + 1)][1:]
                    a, b = (statistics.median(column) for column in zip(*times, strict=True))
                    print(f"| {title} | {a:.2f} | {b:.2f} | {a / b:.3f} |", flush=True)
                browser.close()


if __name__ == "__main__":
    main()
