from __future__ import annotations

import re
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
    # Clients print the link without encoding the name.
    assert server.get(f"/app/jobs/a job/with/{run.uid}").status_code == 200


def test_names_are_text_and_never_html(tracker: Any, server: Any) -> None:
    evil = "<script>alert(1)</script>\"'"
    run, task = tracker.started(name=evil, job=evil)
    tracker.call("log_metric", task.metric(evil, value_float=1.0))
    tracker.call("log_metric", task.metric(evil, "mlflow.tag", value_str=evil))
    tracker.call("log_metric", task.metric(evil, "mlflow.param", value_str=evil))
    links = {"ok": "http://example.com/?a=1", "bad": "javascript:alert(1)", "data": "data:text/html,x"}
    tracker.call("save_external_links", {"task_run_attempt_uid": task.attempt, "external_links_dict": links})

    pages = "".join(
        server.get(path).text
        for path in ("/", f"/app/jobs/x/{run.uid}", f"/app/jobs/x/{run.uid}/{task.uid}", f"/?q={evil}&where={evil}")
    )

    assert "<script>" not in pages
    assert "&lt;script&gt;" in pages
    assert 'href="http://example.com/?a=1"' in pages
    assert 'href="javascript:' not in pages
    assert 'href="data:' not in pages
    assert "javascript:alert(1)" in pages


@pytest.mark.parametrize("path", ["/", "/app/jobs/x/y", "/app/compare"])
def test_pages_use_nothing_but_files_of_this_server(server: Any, path: str) -> None:
    page = server.get(path)
    policy = page.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; ")
    assert "unsafe" not in policy
    assert page.headers["X-Content-Type-Options"] == "nosniff"
    assert not re.search(r"\sstyle=|\son[a-z]+=|<style|<script>", page.text)
    files = re.findall(r'(?:src|rel="[a-z]+" href)="([^#"][^"]*)"', page.text)
    assert len(files) >= 4
    for file in files:
        assert file.startswith("/static/")
        answer = server.get(file)
        assert answer.status_code == 200
        assert "immutable" in answer.headers["Cache-Control"]
    assert server.get("/static/old/style.css").headers["Cache-Control"] == "no-store"
    assert server.get("/static/old/none.css").status_code == 404


def test_what_does_not_exist_is_said(tracker: Any, server: Any) -> None:
    run, _ = tracker.started()
    page = server.get("/app/jobs/x/7e57<b>")
    assert page.status_code == 404
    assert "There is no run 7e57&lt;b&gt;." in page.text
    assert server.get(f"/app/jobs/x/{run.uid}/7e57").status_code == 404
    assert server.get("/app/logs/7e57").status_code == 404
    assert server.get("/app/series?task=7e57&key=x").status_code == 404
    one = server.get(f"/app/compare?run={run.uid}")
    assert one.status_code == 400
    assert "needs two runs" in one.text


def test_a_page_that_has_not_changed_is_not_sent_again(tracker: Any, server: Any) -> None:
    run, task = tracker.started()
    tracker.call("log_metrics", task.floats("loss", 4))
    paths = ("/", f"/app/jobs/x/{run.uid}/{task.uid}", f"/app/series?task={task.uid}&key=loss")
    for step, path in enumerate(paths, 4):
        first = server.get(path)
        known = {"If-None-Match": first.headers["ETag"]}
        again = server.get(path, headers=known)
        assert (first.status_code, again.status_code, again.content) == (200, 304, b"")
        tracker.call("log_metric", task.metric("loss", value_float=0.5, step=step))
        assert server.get(path, headers=known).status_code == 200
