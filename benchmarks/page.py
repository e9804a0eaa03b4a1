"""How soon the web page is of use: the tracker's beside MLflow's own, over the same runs, in the same browser.

Over the data of ``queries.py`` (10,000 runs, 10 million points) and ``large.py`` (a run of 200 metrics, 300 nested
runs), each page is opened in a fresh browser context, in turn; what is measured is the time from the request to the
sight of what was asked for, and the bytes until then. Needs Playwright and Chromium.

    python benchmarks/page.py --scale 0.05
    python benchmarks/page.py --beside main~100
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlencode

from harness import mlflow, packages_of, seal, table, tracker
from large import SWEEP, WIDE, add_to_mlflow, add_to_tracker, wide_key
from playwright.sync_api import Browser, sync_playwright
from queries import JOBS, LONG, LONG_KEY, POINTS, RUNS, SAMPLES, Data, fill_mlflow, fill_tracker

_PATIENCE_MS = 120_000
_FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync", "--no-first-run"]
# MLflow's page asks other hosts, too; here they are not to be had, and their absence is not to be measured.
_FLAGS.append("--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1")
_COMPARED = 200


@dataclass(frozen=True)
class View:
    """Something to look at: its address below that of the server, and a selector of what one wants to see there."""

    address: str
    sight: str


def chart(key: str) -> str:
    """The sight of the tracker's chart of a metric, with its lines."""
    return f'figure.chart canvas[aria-label^="Chart of {key}"]'


def views(data: Data, experiment: str) -> dict[str, tuple[View, View | None, View | None]]:
    """By name, the tracker's view, that of an older one, and MLflow's; None for what there is not."""
    last = data.uid(data.runs - 1)
    wide, sweep = data.uid(data.runs), data.uid(data.runs + 1)
    name = f"run_{data.runs - 1}"
    met = next(f"run_{run}" for run in reversed(range(data.runs)) if data.value(run, 3, POINTS - 1) < 0.5)
    compared = [data.uid(data.runs - 1 - place) for place in range(min(_COMPARED, data.runs))]
    same = urlencode([("run", uid) for uid in compared])
    # MLflow's page takes the runs it compares as JSON.
    its = quote(str([uid.replace("-", "") for uid in compared]).replace("'", '"').replace(" ", ""))
    in_experiment = "/#/experiments/0/runs"

    def rows(query: str, asked: str, shown: str) -> tuple[View, View, View]:
        mine = View(f"/?{query}", f'tbody a:text-is("{shown}")')
        return mine, mine, View(f"{in_experiment}?{asked}", f'a:has-text("{shown}")')

    long_chart = View(
        f"/app/jobs/job_{(data.runs - 1) % JOBS}/{last}/{last}?{urlencode({'plot': LONG_KEY})}", chart(LONG_KEY)
    )
    return {
        "table of runs": rows("", "", name),
        "search by name": rows(f"q={name}", urlencode({"searchFilter": f"attributes.run_name LIKE '%{name}%'"}), name),
        "filter by a metric": rows(
            urlencode({"where": "metrics.metric_3 < 0.5"}), urlencode({"searchFilter": "metrics.metric_3 < 0.5"}), met
        ),
        "sort by name": rows("sort=name", "orderByKey=attributes.run_name&orderByAsc=true", "run_0"),
        f"chart of {data.long:,} points": (
            long_chart,
            long_chart,
            # The legend below the chart.
            View(f"{in_experiment}/{last.replace('-', '')}/model-metrics", f':text-is("{name} ({LONG_KEY})")'),
        ),
        "run of 200 metrics": (
            View(f"/app/jobs/{WIDE}/{wide}", chart(wide_key(0))),
            View(f"/app/jobs/{WIDE}/{wide}/{wide}", chart(wide_key(0))),
            View(f"{in_experiment}/{wide.replace('-', '')}/model-metrics", f':text-is("{WIDE} ({wide_key(0)})")'),
        ),
        "300 nested runs with charts": (
            View(f"/?below={sweep}&charts=beside&limit=200", chart("metric_0")),
            None,
            View(f"/#/experiments/{experiment}/runs?compareRunsMode=CHART", ".js-plotly-plot"),
        ),
        "run with 300 nested": (
            View(f"/app/jobs/{SWEEP}/{sweep}", chart("metric_0")),
            View(f"/app/jobs/{SWEEP}/{sweep}", 'a:text-is("trial_0")'),
            None,
        ),
        f"comparison of {len(compared)} runs": (
            View(f"/app/compare?{same}", chart("metric_0")),
            View(f"/app/compare?{same}", f'th a:text-is("{name}")'),
            View(f"/#/compare-runs?runs={its}&experiments=%5B%220%22%5D", ".js-plotly-plot"),
        ),
    }


def see(browser: Browser, server: str, view: View) -> tuple[float, float]:
    """Seconds until the view is of use, and thousands of bytes that were sent until then."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    sent: list[float] = []
    network = context.new_cdp_session(page)
    network.on("Network.dataReceived", lambda event: sent.append(event["encodedDataLength"] or event["dataLength"]))
    network.send("Network.enable")
    started = time.perf_counter()
    page.goto(f"{server}{view.address}", timeout=_PATIENCE_MS, wait_until="commit")
    page.locator(view.sight).first.wait_for(state="visible", timeout=_PATIENCE_MS)
    took = time.perf_counter() - started
    context.close()
    return took, sum(sent) / 1000


def compare(
    browser: Browser, title: str, servers: Sequence[str], them: Sequence[View | None], rounds: int
) -> list[str]:
    """Look at the views of each server in turn, and make a row of the medians of seconds and bytes."""
    seen = [
        [None if view is None else see(browser, server, view) for server, view in zip(servers, them, strict=True)]
        for _ in range(rounds + 1)
    ][1:]
    row, medians = [title], []
    for column in zip(*seen, strict=True):
        known = [each for each in column if each is not None]
        medians.append([statistics.median(part) for part in zip(*known, strict=True)] if known else None)
        row.append("" if medians[-1] is None else "{:.2f} s, {:,.0f} kB".format(*medians[-1]))
    for other in medians[1:]:
        ratios = [] if other is None else [mine / its for mine, its in zip(medians[0] or [], other, strict=True)]
        row.append(" ".join(f"{ratio:.2f}" for ratio in ratios))
    return row


def fill(url: str, data: Data) -> None:
    """Fill the tracker's database."""
    fill_tracker(url, data)
    add_to_tracker(url, data)


def main() -> None:
    """Fill, look and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--scale", type=float, default=1.0, help="part of the full number of runs and points")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--beside", metavar="REVISION", help="an older revision, whose page is looked at, too")
    parser.add_argument("--fill", metavar="URL", help=argparse.SUPPRESS)  # with the packages of the older revision
    options = parser.parse_args()
    data = Data(max(JOBS, int(RUNS * options.scale)), max(2 * SAMPLES, int(LONG * options.scale)))
    if options.fill:
        fill(options.fill, data)
        return
    names = ("chromium", "chromium-headless-shell", "google-chrome")
    chromium = next(filter(None, map(shutil.which, names)), None)
    if chromium is None:
        sys.exit("There is no Chromium to look with: install your system's package chromium.")
    with (
        tempfile.TemporaryDirectory(prefix="page-", ignore_cleanup_errors=True) as name,
        contextlib.ExitStack() as stack,
    ):
        folder = Path(name)
        mine, its = (f"sqlite:///{folder / file}" for file in ("tracker.db", "mlflow.db"))
        older = packages_of(options.beside, folder / "older") if options.beside else None
        # The newer tracker brings a database of the older one up to date.
        command = [sys.executable, __file__, "--fill", mine, "--scale", str(options.scale)]
        subprocess.run(command, env=older or os.environ, check=True)
        mlflow_url = stack.enter_context(mlflow(its, folder, 1))
        fill_mlflow(its, data)
        experiment = add_to_mlflow(its, mlflow_url, data)
        servers = []
        if older:
            shutil.copy(folder / "tracker.db", folder / "older.db")
            servers.append(stack.enter_context(tracker(f"sqlite:///{folder / 'older.db'}", folder, older)))
        seal(mine)
        servers.insert(0, stack.enter_context(tracker(mine, folder)))
        titles = ["tracker", *([options.beside] if older else []), "mlflow"]
        started = stack.enter_context(sync_playwright())
        browser = started.chromium.launch(executable_path=chromium, args=_FLAGS)
        rows = [["what", *titles, *(f"of {title}" for title in titles[1:])]]
        for title, (own, before, other) in views(data, experiment).items():
            them = [own, *([before] if older else []), other]
            rows.append(compare(browser, title, [*servers, mlflow_url], them, options.rounds))
            print(f"{title} seen", file=sys.stderr)
        browser.close()
        print(f"{data.runs:,} runs; medians of {options.rounds} rounds, and ratios of times and bytes\n")
        print(table(rows))


if __name__ == "__main__":
    main()
