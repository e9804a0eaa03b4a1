"""A metric over the runs of a job, and the overview of jobs and experiments."""

from __future__ import annotations

import html
import re
from datetime import datetime, timedelta, timezone
from typing import Any


def _text(page: str) -> str:
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", page)).split())


def _row(page: str, name: str) -> str:
    """The texts of a row of the overview, and the looks of its latest runs."""
    (row,) = (row for row in re.findall(r"<tr>.*?</tr>", page, re.DOTALL) if f">{name}</a>" in row)
    return " ".join([*re.findall(r'class="fill-(\w+)"', row), _text(row.partition('<td class="number">')[2])])


def test_a_job_draws_a_metric_over_its_runs_with_durations_and_failures(
    tracker: Any, server: Any, make_run: Any
) -> None:
    for number, (state, loss) in enumerate([("SUCCESS", 0.5), ("FAILED", None), ("SUCCESS", 0.1)]):
        run = make_run(name=f"run {number}", job="nightly")
        start = f"2026-03-04T05:0{number}:00+00:00"
        tracker.call("init_run", run.init(start_time=start))
        if loss is not None:
            tracker.call("log_metric", run.root.metric("loss", value_float=loss))
        tracker.call("set_run_state", run.state(state, f"2026-03-04T05:0{number}:1{number}+00:00"))
    page = server.get("/app/jobs/nightly").text
    figure = page[page.index('<figure class="card trend"') : page.index("</figure>")]
    assert re.findall("<title>(.*?)</title>", figure) == [
        "run 0, loss 0.5, success after 10s",
        "run 1, failed after 11s",
        "run 2, loss 0.1, success after 12s",
    ]
    assert re.findall(r'class="dot (\w+)" d="M[\d.]+ ([\d.]+)h0"', figure) == [("success", "0.0"), ("success", "100.0")]
    heights = [float(height) for height in re.findall(r'<rect class="fill-\w+"[^>]* height="([\d.]+)"', figure)]
    assert heights == [25.0, 27.5, 30.0]
    assert "Over the 3 runs shown" in _text(figure)
    assert "trend" not in server.get("/?job=nightly").text


def test_the_overview_counts_runs_and_failures_of_jobs_and_experiments(
    tracker: Any, server: Any, make_run: Any
) -> None:
    now = datetime.now(timezone.utc)
    for age, state in ((40, "SUCCESS"), (30, "FAILED"), (1, "SUCCESS")):
        run = make_run(job="nightly")
        tracker.call("init_run", run.init(project_name="churn", start_time=(now - timedelta(hours=age)).isoformat()))
        tracker.call("set_run_state", run.state(state, now.isoformat()))
    for number in range(3):
        tracker.call("add_task_runs", run.add(run.task(f"trial {number}")))
    tag = run.root.metric("dbnd.experiment", source="mlflow.tag", value_str="other & more")
    tracker.call("log_metrics", run.root.metrics(tag))
    page = server.get("/app/jobs").text
    assert _row(page, "nightly") == "success failed success 3 + 3 nested 1 1"
    assert _row(page, "churn") == "success failed success 3 + 3 nested 1 1"
    found = re.search(r'<a href="([^"]*)" data-open>other &amp; more</a>', page)
    assert found is not None
    assert "1 run found" in _text(server.get(html.unescape(found[1])).text)
    for number in range(12):
        another = make_run(job="nightly")
        tracker.call("init_run", another.init(start_time=(now - timedelta(hours=50 + number)).isoformat()))
    assert "15 + 3 nested in the latest 12 1 1" in _row(server.get("/app/jobs").text, "nightly")
