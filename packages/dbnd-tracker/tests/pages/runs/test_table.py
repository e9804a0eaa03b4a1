from __future__ import annotations

import html
import re
from typing import Any

import pytest
from starlette.datastructures import QueryParams

from dbnd_tracker._pages.runs.table import TablePage
from dbnd_tracker._pages.templates import value_cells
from dbnd_tracker._queries.language.expressions import Field


def _names(page: str) -> list[str]:
    """Names of the runs in the table, from the first row to the last."""
    rows = re.findall(r'<td class="name"><div>(?:<[^>]*>)*([^<]*?)(?: / )?<', page)
    return [html.unescape(name) for name in rows]


def _next(page: str, rel: str = "next") -> str | None:
    found = re.search(rf'rel="{rel}" href="([^"]*)"', page)
    return html.unescape(found[1]) if found else None


@pytest.mark.parametrize("job", ["nightly", "a job/with #marks?", "a/b/c"])
def test_a_job_has_a_page_of_its_runs(tracker: Any, server: Any, make_run: Any, job: str) -> None:
    for name, of in (("mine", job), ("other", "another")):
        tracker.call("init_run", make_run(name=name, job=of).init())
    link = re.search(r'<a class="plain" href="(/app/jobs/[^"]*)"', server.get("/?q=mine").text)
    assert link is not None
    assert _names(server.get(link[1]).text) == ["mine"]


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


def test_rows_have_the_histories_that_they_show_beside_the_table(tracker: Any, server: Any, make_run: Any) -> None:
    """A run's own, else those of its task runs that are no rows themselves, by their names if they are several."""
    run, task = tracker.started()
    other = make_run()
    tracker.call("init_run", other.init())
    tracker.call("log_metrics", task.floats("loss", 3))
    tracker.call("log_metrics", task.floats("once", 1))
    asked = f"/app/rows?key=loss&row={run.uid}&row={other.uid}&row={task.uid}"
    assert [(line["row"], line["task"], line["points"]) for line in server.get(asked).json()] == [
        (run.uid, task.uid, 3),
        (task.uid, task.uid, 3),
    ]
    sibling = run.task("sibling")
    tracker.call("add_task_runs", run.add(sibling))
    tracker.call("log_metrics", sibling.floats("loss", 2))
    tracker.call("log_metrics", run.root.floats("of the root", 2))
    drawn = [
        [(line["row"], line["task"], line["name"]) for line in server.get(address).json()]
        for address in (asked, f"/app/rows?key=loss&row={run.uid}", f"/app/rows?key=of the root&row={run.uid}")
    ]
    assert drawn == [
        [(run.uid, sibling.uid, "sibling"), (task.uid, task.uid, None)],
        [(run.uid, task.uid, "train"), (run.uid, sibling.uid, "sibling")],
        [(run.uid, run.root.uid, None)],
    ]
    page = server.get("/?charts=beside&group=params.none").text
    found = re.findall("data-series='([^']*)' data-title=\"([^\"]*)\"", page)
    assert found == [("[]", "loss"), ("[]", "of the root")]
    assert "data-series" not in server.get("/").text


def test_the_first_columns_are_those_that_rows_have(tracker: Any, server: Any, make_run: Any) -> None:
    """What many runs nested in one have logged is more common, and empty in the row of that one."""
    for rate in ("1", "2"):
        run = make_run(name=rate)
        tracker.call("init_run", run.init())
        tracker.call("log_metrics", run.root.metrics(*_logged(run.root, "rate", rate, "loss_of_run")))
    sweep = make_run(name="sweep", job="sweep")
    trials = [sweep.task("trial") for _ in range(6)]
    tracker.call("init_run", sweep.init())
    tracker.call("add_task_runs", sweep.add(*trials))
    for number, trial in enumerate(trials):
        for param in "abc":
            logged = _logged(trial, param, str(number), f"loss_{param}")
            tracker.call("log_metrics", trial.metrics(*logged))

    def columns(path: str) -> list[str]:
        head = server.get(path).text.partition("</thead>")[0]
        return re.findall(r'class="(?:params|metrics)[^>]*>\s*<a[^>]*>([^<]*)</a>', head)

    assert columns("/") == ["rate", "a", "b", "loss_of_run", "loss_a", "loss_b"]
    assert columns("/app/jobs/sweep") == ["a", "b", "c", "loss_a", "loss_b", "loss_c"]


def _logged(task: Any, param: str, value: str, metric: str) -> list[Any]:
    return [task.metric(param, "mlflow.param", value_str=value), task.metric(metric, value_float=float(value))]


def test_groups_of_rows_have_the_mean_and_the_range_of_their_metrics(tracker: Any, server: Any, make_run: Any) -> None:
    for rate, loss in (("10", 0.5), ("2", 0.1), ("10", 0.7), (None, None), ("adam", 4.0)):
        run = make_run(name=f"{rate} {loss}")
        tracker.call("init_run", run.init())
        infos = [] if rate is None else [run.root.metric("lr", "mlflow.param", value_str=rate)]
        infos += [] if loss is None else [run.root.metric("loss", value_float=loss)]
        infos += [run.root.metric("huge", value_float=1.7e308)]
        tracker.call("log_metrics", run.root.metrics(*infos))
    page = server.get("/?charts=beside&group=params.lr&sort=metrics.loss&col=metrics.loss").text
    rows = [
        " ".join(re.sub("<[^>]*>", " ", row).split())
        for row in re.findall(r"<tr (?:id|class=.group).*?</tr>", page, re.DOTALL)
    ]
    assert rows == [
        "lr = 2 1 run 0.1 0.1 to 0.1",
        "2 0.1 running 2 0.1",
        "lr = 10 2 runs 0.6 0.5 to 0.7",
        "10 0.5 running 10 0.5",
        "10 0.7 running 10 0.7",
        "lr = adam 1 run 4 4 to 4",
        "adam 4.0 running adam 4",
        "lr not logged 1 run",
        "None None running",
    ]
    assert 'title="mean 0.6, 0.5 to 0.7"' in page
    huge = server.get("/?charts=beside&group=params.lr&col=metrics.huge").text
    assert huge.count('title="mean 1.7e+308, 1.7e+308 to 1.7e+308"') == 4
    assert 'class="group"' not in server.get("/?group=params.lr").text


@pytest.mark.parametrize(
    ("value", "cell"),
    [
        ("0.123456789", '<td class="value number" title="0.123456789">0.1235</td>'),
        ("00000001", '<td class="value number">00000001</td>'),
        ("12345678901234567890", '<td class="value number">12345678901234567890</td>'),
        ("2026_01_02", "<td>2026_01_02</td>"),
        (1 / 3, '<td class="value number" title="0.3333333333333333">0.3333</td>'),
    ],
)
def test_a_param_that_may_be_an_id_stays_as_it_was_logged(value: object, cell: str) -> None:
    field = Field("params", "x")
    assert value_cells({field: value}, [field]) == cell


def test_no_name_of_one_run_is_too_long_for_the_table_of_all(tracker: Any, server: Any, make_run: Any) -> None:
    run, long = make_run(), "x" * 500_000
    task = run.task(long)
    tracker.call("init_run", run.init())
    tracker.call("add_task_runs", run.add(task))
    names = (task.metric(tag, source="mlflow.tag", value_str=long) for tag in ("mlflow.runName", "dbnd.experiment"))
    tracker.call("log_metrics", task.metrics(*names))
    for path in ("/?where=task_run_uid is not null", "/app/jobs", "/api/v1/runs?expression=task_run_uid is not null"):
        answer = server.get(path)
        assert "x" * 500 in answer.text
        assert len(answer.content) < 100_000
