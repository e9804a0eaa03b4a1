"""What the pages show of runs that the plugin has tracked is what MLflow's own API says of them."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

import pytest
from kit.site import Site, expect

# What a cell shows, with all digits.
WHOLE = "cells => cells.map(cell => cell.title || cell.querySelector('[title]')?.title || cell.textContent.trim())"


@pytest.fixture(scope="module")
def logged(site: Site) -> tuple[Any, list[Any]]:
    """MLflow's client, and its runs in all experiments."""
    mlflow = pytest.importorskip("mlflow")
    client = mlflow.MlflowClient(site.environment["MLFLOW_TRACKING_URI"])
    runs = client.search_runs([each.experiment_id for each in client.search_experiments()])
    assert len(runs) >= 3
    return client, runs


def _number(text: str) -> float:
    return float(text.replace(",", ""))


def test_the_page_of_a_run_shows_what_mlflow_says(site: Site, visit: Any, logged: tuple[Any, list[Any]]) -> None:
    client, runs = logged
    page = visit(site.url)
    for run in runs:
        page.goto(f"/app/mlflow/{run.info.run_id}")
        assert run.info.run_name in page.locator(".heading").inner_text()
        expect(page.locator(".heading > .state")).to_have_text({"FINISHED": "success"}.get(run.info.status, "failed"))
        rows = {}
        for row in page.locator("#metrics tbody tr").all():
            _, key, *cells, _ = row.locator("td").evaluate_all(WHOLE)
            rows[key] = [_number(text) for text in cells]
        for key, value in run.data.metrics.items():
            history = client.get_metric_history(run.info.run_id, key)
            values = [point.value for point in history]
            steps = [point.step for point in history]
            assert rows[key] == [value, max(steps), min(values), max(values), len(history)], key
            task = site.query("SELECT task_run_uid FROM attempts WHERE mlflow_run_id = ?", run.info.run_id)[0][0]
            sample = page.request.get(f"/app/series?{urlencode({'task': task, 'key': key})}").json()[0]
            assert list(zip(sample["x"], sample["y"], strict=True)) == sorted(zip(steps, values, strict=True)), key
        params = {}
        for row in page.locator("#params tbody tr").all():
            name, text = row.locator("td").evaluate_all(WHOLE)
            params[name] = text
        assert {name: params[name] for name in run.data.params} == run.data.params


def test_table_and_comparison_show_what_mlflow_says(site: Site, visit: Any, logged: tuple[Any, list[Any]]) -> None:
    _, runs = logged
    ids = {run.info.run_id: run for run in runs if run.data.metrics}
    fields = sorted(
        {f"metrics.{key}" for run in ids.values() for key in run.data.metrics}
        | {f"params.{name}" for run in ids.values() for name in run.data.params}
    )
    wanted = ", ".join(f"'{run_id}'" for run_id in ids)
    page = visit(site.url, f"/?{urlencode({'where': f'mlflow_run_id in ({wanted})', 'col': fields}, doseq=True)}")
    of_row = {
        uid: run
        for run_id, run in ids.items()
        for uid in site.query(
            "SELECT CASE WHEN t.is_root THEN r.uid ELSE t.uid END FROM attempts a JOIN task_runs t ON t.uid = "
            "a.task_run_uid JOIN runs r ON r.uid = t.run_uid WHERE a.mlflow_run_id = ?", run_id
        )[0]
    }  # fmt: skip
    rows = page.locator("table.runs tbody tr")
    expect(rows).to_have_count(len(ids))
    for row in rows.all():
        run = of_row[row.get_attribute("id").removeprefix("run-")]
        _agree(run, dict(zip(fields, row.locator("td").evaluate_all(WHOLE)[-len(fields) :], strict=True)))

    page.goto(f"/app/compare?{urlencode({'run': [*of_row], 'show': 'all', 'rows': 'runs'}, doseq=True)}")
    expect(page.locator("table.comparison tbody tr")).to_have_count(len(ids))
    heads = [text.split("\n")[0] for text in page.locator("thead tr").last.locator("th").all_text_contents()]
    for link, row in ((row.locator("th a").first, row) for row in page.locator("table.comparison tbody tr").all()):
        run = of_row[link.get_attribute("href").rpartition("/")[2]]
        shown = dict(zip(heads, ["", *row.locator("td").evaluate_all(WHOLE)], strict=True))
        for name, value in run.data.params.items():
            assert shown[name] == value
        for key, value in run.data.metrics.items():
            (text,) = (text for head, text in shown.items() if head.startswith(key) and "is better" in head)
            assert _number(text.removeprefix("★ ")) == value


def _agree(run: Any, shown: dict[str, str]) -> None:
    for field, text in shown.items():
        kind, _, name = field.partition(".")
        if kind == "params":
            assert text == run.data.params.get(name, text)
        elif name in run.data.metrics:
            assert _number(text) == run.data.metrics[name]
