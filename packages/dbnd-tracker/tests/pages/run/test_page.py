from __future__ import annotations

import html
import re
from typing import Any

import pytest


def test_a_page_is_live_until_its_run_has_ended(tracker: Any, server: Any) -> None:
    run, task = tracker.started()
    paths = (f"/app/jobs/x/{run.uid}", f"/app/jobs/x/{run.uid}/{task.uid}")
    assert all("data-live" in server.get(path).text for path in paths)
    tracker.call("set_run_state", run.state("SUCCESS"))
    assert all("data-live" not in server.get(path).text for path in paths)


def test_a_failed_run_shows_its_error_log_and_mlflow_run(tracker: Any, server: Any, error: Any) -> None:
    run, task = tracker.started()
    error |= {"msg": "It broke & how", "traceback": 'File "x.py", line 3'}
    tracker.call("update_task_run_attempts", task.update("FAILED", error=error))
    link = "http://mlflow:5000/#/experiments/3/runs/ff58c06471c9438988ec38032d642078"
    tracker.call("save_external_links", {"task_run_attempt_uid": task.attempt, "external_links_dict": {"mlflow": link}})
    log = "\n".join(f"line {i}" for i in range(500))
    tracker.call("save_task_run_log", {"task_run_attempt_uid": task.attempt, "log_body": log})

    for path in (f"/app/jobs/x/{run.uid}", f"/app/jobs/x/{run.uid}/{task.uid}"):
        page = html.unescape(server.get(path).text)
        assert "It broke & how" in page
        assert 'File "x.py", line 3' in page
        assert f'href="{link}"' in page
        assert "dbnd mlflow verify ff58c06471c9438988ec38032d642078" in page
        assert "line 499" in page
        assert "line 299\n" not in page
        assert f'href="/app/logs/{task.uid}"' in page
    whole = server.get(f"/app/logs/{task.uid}")
    assert whole.text == log
    assert whole.headers["Content-Type"].startswith("text/plain")


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("2026-03-04T05:06:07+00:00 0", "both sides agree"),
        ("2026-03-04T05:06:07+00:00 1", "1 difference<"),
        ("2026-03-04T06:06:07+01:00 12", "12 differences<"),
        ("of anybody", "not compared yet"),
        ("9999-99-99 0", "not compared yet"),
        (None, "not compared yet"),
    ],
)
def test_a_page_says_whether_mlflow_agrees(tracker: Any, server: Any, value: str | None, shown: str) -> None:
    run, task = tracker.started()
    link = "http://mlflow:5000/#/experiments/3/runs/ff58c06471c9438988ec38032d642078"
    tracker.call("save_external_links", {"task_run_attempt_uid": task.attempt, "external_links_dict": {"mlflow": link}})
    if value is not None:
        tracker.call("log_metric", task.metric("dbnd.mlflow.verified", "mlflow.tag", value_str=value))
    for path in (f"/app/jobs/x/{run.uid}", f"/app/jobs/x/{run.uid}/{task.uid}"):
        page = server.get(path).text
        assert shown in page
        assert ("2026-03-04 05:06:07 UTC" in page.partition('class="links"')[2].partition("</ul>")[0]) is (
            shown != "not compared yet"
        )
        assert "dbnd.mlflow.verified" not in page


def test_each_mlflow_run_of_a_run_is_linked(tracker: Any, server: Any) -> None:
    run, task = tracker.started()
    child = run.task("child")
    tracker.call("add_task_runs", run.add(child))
    ids = ("ff58c06471c9438988ec38032d642078", "0123c06471c9438988ec38032d642078")
    for owner, run_id in zip((task, child), ids, strict=True):
        links = {"mlflow": f"http://mlflow:5000/#/experiments/3/runs/{run_id}"}
        body = {"task_run_attempt_uid": owner.attempt, "external_links_dict": links}
        tracker.call("save_external_links", body)
    page = server.get(f"/app/jobs/x/{run.uid}").text
    assert all(f"/runs/{run_id}" in page for run_id in ids)


def test_task_runs_of_one_name_are_told_apart_everywhere_as_in_the_terminal(tracker: Any, server: Any) -> None:
    run, task = tracker.started()
    twins = [run.task("child"), run.task("child")]
    body = run.add(*twins, parent=task)
    body["task_runs_info"]["task_runs"][1]["task_af_id"] = "child_2"
    tracker.call("add_task_runs", body)
    log = {"task_run_attempt_uid": twins[1].attempt, "log_body": "said"}
    tracker.call("save_task_run_log", log)
    tracker.call("log_artifact", {"task_run_attempt_uid": twins[1].attempt, "name": "notes", "path": "/n.txt"})
    for twin in twins:
        tracker.call("log_metrics", twin.floats("loss", 3))
    page = server.get(f"/app/jobs/x/{run.uid}").text
    places = ("timeline", 'id="metrics"', 'id="artifacts"', 'id="log"', "charts")
    for part, names in zip(places, (2, 2, 1, 1, 2), strict=True):
        found = re.findall(r"\bchild(?:_2)?\b", page.partition(part)[2].partition("</section>")[0])
        assert sorted(set(found)) == ["child", "child_2"][-names:], part
    its = f"/app/jobs/x/{run.uid}/{twins[1].uid}"
    assert "<h1>child_2</h1>" in server.get(its).text
    assert ">child_2</a>" in server.get(f"/app/artifacts/{twins[1].uid}?name=notes").text


def test_a_run_says_what_mlflow_calls_it_and_that_it_is_deleted_there(tracker: Any, server: Any) -> None:
    run, _ = tracker.started(name="mine")
    tags = {"mlflow.runName": "theirs & more", "dbnd.lifecycle_stage": "deleted"}
    infos = [run.root.metric(name, source="mlflow.tag", value_str=text) for name, text in tags.items()]
    page = server.get(f"/app/jobs/x/{run.uid}").text
    assert "theirs" not in page
    tracker.call("log_metrics", run.root.metrics(*infos))
    page = server.get(f"/app/jobs/x/{run.uid}").text
    assert '<span class="quiet" title="The name of its MLflow run">theirs &amp; more</span>' in page
    assert '<span class="mark">deleted in MLflow</span>' in page
