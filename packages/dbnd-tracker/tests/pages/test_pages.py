from __future__ import annotations

import html
import re
from typing import Any

import pytest
from starlette.datastructures import QueryParams

from dbnd_tracker._format import type_name
from dbnd_tracker._pages.table import TablePage


def _names(page: str) -> list[str]:
    """Names of the runs in the table, from the first row to the last."""
    rows = re.findall(r'<td class="name"><div>(?:<[^>]*>)*([^<]*?)(?: / )?<', page)
    return [html.unescape(name) for name in rows]


def _next(page: str, rel: str = "next") -> str | None:
    found = re.search(rf'rel="{rel}" href="([^"]*)"', page)
    return html.unescape(found[1]) if found else None


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


@pytest.mark.parametrize("job", ["nightly", "a job/with #marks?", "a/b/c"])
def test_a_job_has_a_page_of_its_runs(tracker: Any, server: Any, make_run: Any, job: str) -> None:
    for name, of in (("mine", job), ("other", "another")):
        tracker.call("init_run", make_run(name=name, job=of).init())
    link = re.search(r'<a class="plain" href="(/app/jobs/[^"]*)"', server.get("/?q=mine").text)
    assert link is not None
    assert _names(server.get(link[1]).text) == ["mine"]


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
    files = re.findall(r'(?:src|rel="[a-z]+" href)="([^"]*)"', page.text)
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


def test_pages_turn_forwards_and_backwards(tracker: Any, server: Any, make_run: Any) -> None:
    for i in range(60):
        # Some start at the same time.
        tracker.call("init_run", make_run(name=f"run_{i:02}").init(start_time=f"2026-03-04T05:00:{i // 3:02}Z"))
    for sort in ("", "started", "name", "-name", "-params.lr", "state", "metrics.loss"):
        _turn_forwards_and_backwards(server, sort)


def _turn_forwards_and_backwards(server: Any, sort: str) -> None:
    path = f"/?limit=25&sort={sort}"
    pages = []
    while path:
        text = server.get(path).text
        pages.append(_names(text))
        path = _next(text)
    assert [len(page) for page in pages] == [25, 25, 10]
    assert sorted(name for page in pages for name in page) == [f"run_{i:02}" for i in range(60)]
    if sort in {"", "name", "-name"}:
        names = [name for page in pages for name in page]
        assert names == sorted(names, reverse=sort != "name")

    back = []
    while True:
        back.append(_names(text))
        path = _next(text, "prev")
        if not path:
            break
        text = server.get(path).text
    assert back == pages[::-1]


FOUND = {
    "q=RUN_3": ["run_3"],
    "project=vision": ["run_3", "run_1"],
    "user=grace&state=failed": ["run_0"],
    "state=failed&state=success": ["run_2", "run_0"],
    "since=2026-03-04T05:02": ["run_3", "run_2"],
    "until=2026-03-03": [],
    "until=2026-03-04": ["run_3", "run_2", "run_1", "run_0"],
    "where=metrics.loss < 1.5": ["run_1", "run_0"],
    "where=metrics.loss >= 2 and params.lr = 0.001": ["run_2"],
    "where=params.lr = '1e-3'": ["run_2", "run_0"],
    "where=params.`lr` != 0.001": ["run_3", "run_1"],
    "where=tags.team like 'fra%'": ["run_3", "run_2", "run_1", "run_0"],
    "where=metrics.none < 1": [],
    "sort=metrics.loss": ["run_0", "run_1", "run_2", "run_3"],
    "sort=-took": ["run_2", "run_0", "run_3", "run_1"],
}


def test_runs_are_found_and_sorted_by_what_they_are_and_logged(tracker: Any, server: Any, make_run: Any) -> None:
    for i in range(4):
        run = make_run(name=f"run_{i}", job="job")
        task = run.task()
        project, user = ("vision", "ada") if i % 2 else ("risk", "grace")
        info = {"project_name": project, "user": user, "start_time": f"2026-03-04T05:0{i}:00Z"}
        tracker.call("init_run", run.init(**info))
        tracker.call("add_task_runs", run.add(task))
        points = [task.metric("loss", value_float=value, step=step) for step, value in enumerate((9.0, i))]
        tracker.call("log_metrics", task.metrics(*points))
        tracker.call("log_metric", task.metric("lr", "mlflow.param", value_str="0.1" if i % 2 else "0.001"))
        tracker.call("log_metric", task.metric("team", "mlflow.tag", value_str="fraud"))
        if i % 2 == 0:
            state = "SUCCESS" if i else "FAILED"
            tracker.call("set_run_state", run.state(state, f"2026-03-04T05:0{i + 1}:0{i}Z"))
    found = {query: _names(server.get(f"/?{query}&col=metrics.loss").text) for query in FOUND}
    assert found == FOUND


@pytest.mark.parametrize(
    "query",
    [
        "where=loss < 1",
        "where=metrics.a < 1 or b",
        "since=yesterday",
        "since=0001-01-01T00:00%2B14:00",
        "until=9999-12-31T23:59-14:00",
        "where=metrics.a <",
    ],
)
def test_a_filter_that_cannot_be_understood_is_said(server: Any, query: str) -> None:
    page = server.get(f"/?{query}")
    assert page.status_code == 400
    assert 'role="alert"' in page.text
    assert "cannot be understood" in page.text


def test_a_table_is_as_large_as_its_address_however_often_that_repeats_itself(tracker: Any, server: Any) -> None:
    tracker.started()
    few = server.get("/?col=tags.a&state=running")
    same = server.get("/?" + "&".join(["col=tags.a", "state=running"] * 1500))
    assert same.status_code == 200
    assert len(same.content) < len(few.content) + 10 * len(same.request.url)
    many = server.get("/?" + "&".join(f"col=tags.{number}" for number in range(4000)))
    assert many.status_code == 200
    assert len(many.content) < len(few.content) + 10 * len(many.request.url)


def test_the_columns_are_what_most_runs_logged_until_others_are_chosen(tracker: Any) -> None:
    for _ in range(2):
        _, task = tracker.started()
        tracker.call("log_metrics", task.floats("common", 3))
    tracker.call("log_metrics", task.floats("a rare one", 3))

    def page(query: str) -> TablePage:
        with tracker.database.read() as session:
            return TablePage(session, QueryParams(query))

    assert [str(column) for column in page("").columns.shown] == ["params.lr", "metrics.common", "metrics.a rare one"]
    chosen = page("col=metrics.a rare one&col=nonsense")
    assert [str(column) for column in chosen.columns.shown] == ["metrics.a rare one"]
    assert sorted(str(value) for values in chosen.values.values() for value in values.values()) == ["2.0"]
    assert page("col=").columns.shown == []


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


def test_a_page_is_live_until_its_run_has_ended(tracker: Any, server: Any) -> None:
    run, task = tracker.started()
    paths = (f"/app/jobs/x/{run.uid}", f"/app/jobs/x/{run.uid}/{task.uid}")
    assert all("data-live" in server.get(path).text for path in paths)
    tracker.call("set_run_state", run.state("SUCCESS"))
    assert all("data-live" not in server.get(path).text for path in paths)


def test_a_failed_run_shows_its_error_log_and_mlflow_run(tracker: Any, server: Any) -> None:
    run, task = tracker.started()
    error = {"msg": "It broke & how", "exc_type": "ValueError", "traceback": 'File "x.py", line 3', "nested": ""}
    error |= {"databand_error": False, "help_msg": "", "user_code_traceback": "", "show_exc_info": True}
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


@pytest.mark.parametrize(
    ("text", "name"), [("<class 'ValueError'>", "ValueError"), ("a.B", "a.B"), ("<class 'a.b.C'>", "a.b.C")]
)
def test_type_names(text: str, name: str) -> None:
    assert type_name(text) == name
