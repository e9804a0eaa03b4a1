"""Which charts and tiles a page has."""

from __future__ import annotations

import csv
import html
import io
import json
import re
from typing import Any

import pytest

from dbnd_tracker._pages import charts


def _charts(page: str) -> dict[str, list[dict[str, Any]]]:
    """Titles and series, as scripts read them."""
    tasks = json.loads(next(iter(re.findall("data-tasks='([^']*)'", page)), "[]"))
    charts = {}
    for series, text in re.findall("""data-series='([^']*)' data-title="([^"]*)\"""", page):
        title = html.unescape(text)
        charts[title] = []
        for line in json.loads(series):
            place, label, key, colour = (
                ([*line] + [None] * 4)[:4] if isinstance(line, list) else (line, None, None, None)
            )
            task, start, common, of_task = tasks[place]
            charts[title].append(
                {
                    "task": task,
                    "start": start,
                    "label": common if line == place else label or title,
                    "key": key or title,
                    "colour": of_task if colour is None else colour,
                }
            )
    return charts


def _tiles(page: str) -> dict[str, str]:
    text = page.partition('class="tiles"')[2].partition("</dl>")[0]
    return {
        html.unescape(key.strip()): re.sub("<[^>]*>", "", value)
        for key, value in re.findall(r"<dt>([^<]*).*?</dt><dd>(.*?)</dd>", text)
    }


def test_what_has_a_history_is_a_chart_and_what_was_logged_once_a_tile(tracker: Any, server: Any) -> None:
    run, task = tracker.started()
    keys = ("val/loss", "system/cpu", "loss", "train/loss", 'a"quoted <b>key')
    tracker.call("log_metrics", task.metrics(*(task.metric(key, value_float=v) for key in keys for v in (2.0, 1.0))))
    single = {"best": 0.123456789, "epochs": 12345678.0, "note": "good", "story": "long " * 20}
    for key, value in single.items():
        values = {"value_float": value} if isinstance(value, float) else {"value_str": value}
        tracker.call("log_metric", task.metric(key, **values))
    for path in (f"/app/jobs/x/{run.uid}", f"/app/jobs/x/{run.uid}/{task.uid}"):
        page = server.get(path).text
        assert list(_charts(page)) == ['a"quoted <b>key', "loss", "train/loss", "val/loss", "system/cpu"]
        sections = re.findall(r'<details class="chart-section"[^>]*?( open)?><summary>(.*?) <', page)
        assert sections == [(" open", "Metrics"), (" open", "train/"), (" open", "val/"), ("", "System metrics")]
        assert _tiles(page) == {"best": "0.1235", "epochs": "12345678", "note": "good"}
        assert 'title="0.123456789"' in page


def test_child_task_runs_are_lines_of_a_chart_for_each_metric(
    tracker: Any, server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, task = tracker.started()
    children = [run.task(f"trial {number}") for number in range(4)]
    tracker.call("add_task_runs", run.add(*children, parent=task))
    for child in children:
        tracker.call("log_metrics", child.floats("loss", 3))
        tracker.call("log_metric", child.metric("auc", value_float=0.5))
    tracker.call("log_metrics", children[2].floats("rare", 3))
    for path in (f"/app/jobs/x/{run.uid}", f"/app/jobs/x/{run.uid}/{task.uid}"):
        page = server.get(path).text
        found = _charts(page)
        assert [line["label"] for line in found["loss"]] == [f"trial {number}" for number in range(4)]
        assert [line["task"] for line in found["loss"]] == [child.uid for child in children]
        assert [(line["label"], line["colour"]) for line in found["rare"]] == [("rare", 2)]
        assert found["loss"][2]["colour"] == 2, "a task run has one colour"
        assert _tiles(page) == {}, "what each child has logged is no tile"
    twins = [run.task("twin"), run.task("twin")]
    tracker.call("add_task_runs", run.add(*twins, parent=task))
    for twin in twins:
        tracker.call("log_metrics", twin.floats("twice", 3))
    labels = [line["label"] for line in _charts(server.get(f"/app/jobs/x/{run.uid}").text)["twice"]]
    assert labels == ["twin #1", "twin #2"]
    answer = server.get("/app/series?key=loss&" + "&".join(f"task={child.uid}" for child in children)).json()
    assert [line["points"] for line in answer] == [3] * 4
    monkeypatch.setattr(charts, "_LINES", 2)
    page = server.get(f"/app/jobs/x/{run.uid}").text
    assert len(_charts(page)["loss"]) == 2
    assert "The first 2 of 4 task runs." in page


def test_metrics_that_are_asked_for_share_a_chart(tracker: Any, server: Any) -> None:
    run, task = tracker.started()
    for key in ("a", "b", "c"):
        tracker.call("log_metrics", task.floats(key, 3))
    page = server.get(f"/app/jobs/x/{run.uid}/{task.uid}", params={"plot": ["a", "c", "none"]}).text
    assert {title: [line["key"] for line in lines] for title, lines in _charts(page).items()} == {"a, c": ["a", "c"]}


def test_charts_are_found_by_name_where_there_are_too_many(
    tracker: Any, server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(charts, "_CHARTS", 2)
    run, task = tracker.started()
    for key in ("a", "b", "c"):
        tracker.call("log_metrics", task.floats(key, 3))
    path = f"/app/jobs/x/{run.uid}/{task.uid}"
    page = server.get(path).text
    assert list(_charts(page)) == ["a", "b"]
    assert "charts of the first 2 metrics of 3" in page
    assert list(_charts(server.get(path, params={"find": "c"}).text)) == ["c"]


def test_all_points_of_a_chart_are_a_file(tracker: Any, server: Any) -> None:
    _, task = tracker.started()
    points = [task.metric("loss", value_float=value, step=step) for step, value in enumerate((0.5, float("nan")))]
    tracker.call("log_metrics", task.metrics(*points, task.metric("loss", value_str="=1+1")))
    answer = server.get(f"/app/points.csv?task={task.uid}&key=loss")
    assert answer.headers["Content-Type"].startswith("text/csv")
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert [(row["step"], row["value"], row["text"]) for row in rows] == [
        ("0", "0.5", ""),
        ("1", "nan", ""),
        ("", "", "'=1+1"),
    ]


def test_a_run_of_one_task_is_one_page(tracker: Any, server: Any, make_run: Any) -> None:
    run = make_run()
    tracker.call("init_run", run.init())
    tracker.call("log_metrics", run.root.floats("loss", 3))
    page = server.get(f"/app/jobs/x/{run.uid}/{run.root.uid}?plot=loss&x=1&x=2")
    assert page.url.endswith(f"/{run.uid}?plot=loss&x=1&x=2")
    assert list(_charts(page.text)) == ["loss"]
    assert 'id="tasks"' not in page.text
    tracker.call("add_task_runs", run.add(run.task("another")))
    assert server.get(f"/app/jobs/x/{run.uid}/{run.root.uid}").url.endswith(run.root.uid)


def test_a_param_stands_once_and_what_is_long_unfolds(tracker: Any, server: Any, make_run: Any) -> None:
    run, task = tracker.started()
    params = {"lr": "0.1", "other": "first line\nsecond"}
    for name, value in params.items():
        tracker.call("log_metric", task.metric(name, "mlflow.param", value_str=value))
    for name in ("team", "mlflow.user", "dbnd.run_uid"):
        tracker.call("log_metric", task.metric(name, "mlflow.tag", value_str=f"of {name}"))
    page = server.get(f"/app/jobs/x/{run.uid}/{task.uid}").text
    section = page.partition('id="params"')[2].partition("</section>")[0]
    assert section.count("<td>lr</td>") == 1, "an argument that is logged, too"
    assert re.search(r"<summary>first line second</summary><pre[^>]*>first line\nsecond</pre>", section)
    tags = page.partition('id="tags"')[2].partition("</section>")[0]
    assert "of team" in tags
    assert "of mlflow.user" not in tags
    assert re.search(r'<details class="more" id="system-tags">', page)
    tracker.call("log_metric", task.metric("lr", "mlflow.param", value_str="0.2"))
    page = server.get(f"/app/jobs/x/{run.uid}/{task.uid}").text
    assert page.partition('id="params"')[2].partition("</section>")[0].count("<td>lr</td>") == 2, "values that differ"
