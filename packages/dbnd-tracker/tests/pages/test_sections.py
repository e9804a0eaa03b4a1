"""Long lists on pages: a part at a time, with a way to the others and a search in all of them."""

from __future__ import annotations

import html
import re
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.engine import Engine

COUNT = 450


@pytest.fixture
def wide(sqlite_tracker: Any) -> Any:
    """A run whose one task besides the root has logged many metrics, params and tags."""
    run, task = sqlite_tracker.started()
    infos = [task.metric(f"m{i:03}", value_float=float(i)) for i in range(COUNT)]
    for kind in ("param", "tag"):
        infos += [task.metric(f"{kind[0]}{i:03}", f"mlflow.{kind}", value_str=f"v{i}") for i in range(COUNT)]
    sqlite_tracker.call("log_metrics", task.metrics(*infos))
    return run, task


@pytest.fixture
def long(sqlite_tracker: Any, make_run: Any) -> Any:
    """A run of many tasks, below one of which there are many."""
    run = make_run()
    tasks = [run.task(f"t{i:04}") for i in range(1_050)]
    sqlite_tracker.call("init_run", run.init())
    sqlite_tracker.call("add_task_runs", run.add(*tasks))
    sqlite_tracker.call("log_metrics", tasks[0].metrics(*(task.metric("loss", value_float=1.0) for task in tasks)))
    return run, tasks


def _section(page: str, name: str) -> str:
    return page.partition(f'id="{name}"')[2].partition("</section>")[0]


def _names(page: str, name: str, letter: str) -> list[str]:
    return re.findall(rf">({letter}[0-9]{{3,4}})<", _section(page, name))


def _link(page: str, name: str, rel: str) -> str | None:
    found = re.search(rf'rel="{rel}" href="([^"]*)"', _section(page, name))
    return html.unescape(found[1]) if found else None


@pytest.mark.parametrize("is_task", [True, False])
@pytest.mark.parametrize("section", ["metrics", "params", "tags"])
def test_long_lists_are_shown_a_part_at_a_time(
    wide: Any, sqlite_tracker: Any, serve: Any, section: str, is_task: bool
) -> None:
    run, task = wide
    server = serve(sqlite_tracker.database)
    path: str | None = f"/app/jobs/{run.job}/{run.uid}" + (f"/{task.uid}" if is_task else "")
    pages = []
    while path:
        page = server.get(path).text
        pages.append(page)
        path = _link(page, section, "next")
    found = [_names(page, section, section[0]) for page in pages]
    names = [name for part in found for name in part]
    assert names == [f"{section[0]}{i:03}" for i in range(COUNT)]
    total = COUNT + (section == "params")  # with the argument lr of the task, which stands first
    assert f"1 to 200 of {total}" in _section(pages[0], section)
    assert len(pages) == 3
    back = _link(pages[2], section, "prev")
    assert back is not None
    assert _names(server.get(back).text, section, section[0]) == found[1]
    # Turning one list leaves the others where they are.
    other = "tags" if section != "tags" else "params"
    turned = server.get(_link(pages[0], other, "next") or "").text
    assert _names(turned, section, section[0]) == found[0]
    assert f"201 to 400 of {COUNT + (other == 'params')}" in _section(turned, other)


def test_names_are_found_in_long_lists(wide: Any, sqlite_tracker: Any, serve: Any) -> None:
    run, task = wide
    server = serve(sqlite_tracker.database)
    for path in (f"/app/jobs/x/{run.uid}", f"/app/jobs/x/{run.uid}/{task.uid}"):
        page = server.get(path, params={"find": "M44"}).text
        assert _names(page, "metrics", "m") == [f"m44{i}" for i in range(10)]
        assert "1 to 10 of 10 found, of 450" in _section(page, "metrics")
        assert "none of 450 found" in _section(page, "tags")
        assert 'name="find" value="M44"' in page
        beyond = server.get(path, params={"metrics": "99999", "tags": "-1", "params": "x" * 50}).text
        assert _names(beyond, "metrics", "m")[0] == "m000"


def test_short_lists_look_as_they_did(sqlite_tracker: Any, serve: Any) -> None:
    run, task = sqlite_tracker.started()
    sqlite_tracker.call("log_metrics", task.floats("loss", 3))
    page = serve(sqlite_tracker.database).get(f"/app/jobs/x/{run.uid}/{task.uid}").text
    assert 'name="find"' not in page
    assert 'class="pages"' not in page


def test_the_tasks_of_a_long_run_are_shown_a_part_at_a_time(long: Any, sqlite_tracker: Any, serve: Any) -> None:
    run, _ = long
    server = serve(sqlite_tracker.database)
    path: str | None = f"/app/jobs/{run.job}/{run.uid}"
    counts = []
    while path:
        page = server.get(path).text
        counts.append(_section(page, "tasks").count('<tr id="task-'))
        path = _link(page, "tasks", "next")
    assert counts == [500, 500, 51]
    assert server.get(f"/app/jobs/x/{run.uid}?tasks=all").text.count('<tr id="task-') == 1_051
    root = server.get(f"/app/jobs/x/{run.uid}/{run.root.uid}").text
    assert root.count('<tr id="task-') == 500
    assert "1 to 500 of 1,051" in _section(root, "tasks")


def test_how_often_the_database_is_asked_does_not_depend_on_how_much_there_is(
    wide: Any, long: Any, sqlite_tracker: Any, serve: Any
) -> None:
    server = serve(sqlite_tracker.database)
    small, one = sqlite_tracker.started()
    sqlite_tracker.call("log_metrics", one.metrics(one.metric("m", value_float=1.0)))

    def questions(path: str) -> int:
        asked: list[str] = []

        def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
            asked.append(statement)

        event.listen(Engine, "before_cursor_execute", note)
        try:
            assert server.get(path).status_code == 200
        finally:
            event.remove(Engine, "before_cursor_execute", note)
        return len(asked)

    least = questions(f"/app/jobs/x/{small.uid}")
    for run in (wide[0], long[0]):
        assert questions(f"/app/jobs/x/{run.uid}") <= least + 6, "each list is read by two"
    least = questions(f"/app/jobs/x/{small.uid}/{one.uid}")
    for run, task in (wide, (long[0], long[1][7])):
        assert questions(f"/app/jobs/x/{run.uid}/{task.uid}") <= least + 6
        assert questions(f"/api/v1/task-runs/{task.uid}") < 20


def test_the_read_api_lists_metrics_a_page_at_a_time(wide: Any, sqlite_tracker: Any, serve: Any) -> None:
    server = serve(sqlite_tracker.database)
    path = f"/api/v1/task-runs/{wide[1].uid}/metrics"
    everything = server.get(path).json()
    assert (len(everything["data"]), everything["after"], everything["total"]) == (COUNT, None, COUNT)
    found, after = [], 0
    while after is not None:
        page = server.get(path, params={"limit": 200, "after": after}).json()
        found += page["data"]
        after = page["after"]
    assert found == everything["data"]


def test_a_comparison_of_much_is_shown_a_part_at_a_time(wide: Any, sqlite_tracker: Any, serve: Any) -> None:
    server = serve(sqlite_tracker.database)
    other, _ = sqlite_tracker.started()
    path = f"/app/compare?run={wide[0].uid}&run={other.uid}"
    page = server.get(path).text
    assert len(re.findall(r'<th scope="row">m[0-9]{3}<', page)) == 200
    assert page.count(f"1 to 200 of {COUNT}") == 3
    assert page.count("<option") < 1_300
    found = server.get(f"{path}&find=m44").text
    assert re.findall(r'<th scope="row">(m[0-9]{3})<', found) == [f"m44{i}" for i in range(10)]
    turned = server.get(html.unescape(re.findall(r'rel="next" href="([^"]*metrics=200[^"]*)"', page)[0])).text
    assert re.findall(r'<th scope="row">(m[0-9]{3})<', turned)[0] == "m200"
