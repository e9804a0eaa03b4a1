from __future__ import annotations

from typing import Any

import pytest


def test_an_empty_tracker_says_what_to_do(server: Any) -> None:
    page = server.get("/")
    assert page.status_code == 200
    assert "No run has been tracked yet" in page.text


def test_the_list_leads_to_the_run_and_the_run_to_its_tasks(tracker: Any, server: Any) -> None:
    run, task = tracker.started(job="a job/with #marks?")
    tracker.call("log_metrics", task.floats("loss", 4))
    link = f"/app/jobs/a%20job%2Fwith%20%23marks%3F/{run.uid}"

    assert f'href="{link}"' in server.get("/").text
    page = server.get(link)
    assert page.status_code == 200
    assert f'href="{link}/{task.uid}"' in page.text
    for text in (run.name, "train", "loss", "<td>lr</td><td>0.1</td>", "2026-03-04 05:06:07 UTC"):
        assert text in page.text
    one = server.get(f"{link}/{task.uid}")
    assert one.status_code == 200
    assert "loss" in one.text
    assert f"{link}/{run.root.uid}" not in one.text
    # Clients print the link without encoding the name.
    assert server.get(f"/app/jobs/a job/with/{run.uid}").status_code == 200


def test_names_are_text_and_never_html(tracker: Any, server: Any) -> None:
    evil = "<script>alert(1)</script>\"'"
    run, task = tracker.started(name=evil, job=evil)
    tracker.call("log_metric", task.metric(evil, value_str=evil))
    tracker.call("log_metric", task.metric(evil, "mlflow.tag", value_str=evil))
    links = {"ok": "http://example.com/?a=1", "bad": "javascript:alert(1)", "data": "data:text/html,x"}
    tracker.call("save_external_links", {"task_run_attempt_uid": task.attempt, "external_links_dict": links})

    pages = server.get("/").text + server.get(f"/app/jobs/x/{run.uid}").text

    assert "<script" not in pages
    assert "&lt;script&gt;" in pages
    assert 'href="http://example.com/?a=1"' in pages
    assert 'href="javascript:' not in pages
    assert 'href="data:' not in pages
    assert "javascript:alert(1)" in pages


@pytest.mark.parametrize("path", ["/", "/app/jobs/x/y"])
def test_pages_load_nothing_and_run_nothing(server: Any, path: str) -> None:
    page = server.get(path)
    policy = page.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; style-src 'unsafe-inline'")
    assert page.headers["X-Content-Type-Options"] == "nosniff"
    assert "src=" not in page.text
    assert "<link" not in page.text


def test_a_run_that_does_not_exist_is_said(server: Any) -> None:
    page = server.get("/app/jobs/x/7e57<b>")
    assert page.status_code == 404
    assert "There is no run 7e57&lt;b&gt;." in page.text


def test_older_runs_are_a_page_away(tracker: Any, server: Any, make_run: Any) -> None:
    for i in range(101):
        tracker.call("init_run", make_run(name=f"run_{i}").init(start_time=f"2026-03-04T05:{i // 60:02}:{i % 60:02}Z"))

    first = server.get("/").text
    link = first.partition('href="/?after=')[2].partition('"')[0]
    second = server.get(f"/?after={link}").text

    assert "run_100<" in first
    assert "run_0<" not in first
    assert "run_0<" in second
    assert "/?after=" not in second
    assert server.get("/?after=nonsense").status_code == 400
