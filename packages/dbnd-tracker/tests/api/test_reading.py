"""The read API beyond lists and single runs: order, comparison, datasets, exports, and what queries clients ask."""

from __future__ import annotations

import csv
import io
import json
import math
import threading
from typing import Any

import pytest

from dbnd_tracker import _exports as tables
from dbnd_tracker._api import runs
from dbnd_tracker._original import queries


def _dataset(task: Any, path: str, operation: str, status: str = "OK", **facts: Any) -> dict[str, Any]:
    info = {
        "run_uid": task.run.uid,
        "task_run_uid": task.uid,
        "task_run_attempt_uid": task.attempt,
        "task_run_name": task.name,
        "operation_path": path,
        "operation_type": operation,
        "operation_status": status,
        "value_preview": None,
        "data_dimensions": [3, 2],
        "data_schema": {"type": "DataFrame", "columns": ["a"]},
        "columns_stats": [],
        **facts,
    }
    return {"datasets_info": [info]}


def _names(server: Any, **query: Any) -> list[str]:
    answer = server.get("/api/v1/runs", params=query)
    assert answer.ok, answer.text
    return _of_runs(answer.json()["data"])


def _of_runs(rows: list[Any]) -> list[str]:
    """The names of the runs that the rows stand for, or are nested in."""
    return [*dict.fromkeys((*row["nested_in"], row["name"])[0] for row in rows)]


@pytest.fixture
def three(tracker: Any) -> list[Any]:
    """Three runs that differ in a metric and a param."""
    found = []
    for name, loss, kind in (("b", 0.2, "sgd"), ("c", 0.1, "adam"), ("a", 10, "sgd")):
        run, task = tracker.started(name=name)
        tracker.call("log_metrics", task.metrics(task.metric("loss", value_float=loss)))
        tracker.call("log_metric", task.metric("optimizer", "mlflow.param", value_str=kind))
        found.append((run, task))
    return found


def test_runs_are_sorted_and_paged_by_what_they_are_and_log(three: Any, server: Any) -> None:
    assert _names(server, sort="name") == ["a", "b", "c"]
    assert _names(server, sort="-name") == ["c", "b", "a"]
    assert _names(server, sort="metrics.loss") == ["c", "b", "a"]
    assert _names(server, sort="-metrics.loss") == ["a", "b", "c"]
    assert _names(server, sort="start_time") == _names(server)[::-1]
    assert _names(server, sort="name", expression='metrics.loss < 5 and params.optimizer = "sgd"') == ["b"]
    assert _names(server, filter=json.dumps([{"name": "metrics.loss", "op": "gt", "val": 1}])) == ["a"]
    assert sorted(_names(server, filter=json.dumps([{"name": "params.optimizer", "val": "sgd"}]))) == ["a", "b"]
    assert _names(server, state="failed", sort="name") == []

    first = server.get("/api/v1/runs", params={"sort": "metrics.loss", "limit": 2}).json()
    assert (first["meta"]["total"], len(first["data"])) == (3, 2)
    rest = server.get("/api/v1/runs", params={"sort": "metrics.loss", "limit": 2, "after": first["meta"]["after"]})
    assert _of_runs(rest.json()["data"]) == ["a"]
    assert rest.json()["meta"]["after"] is None


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ({"sort": "shoe_size"}, "Runs cannot be sorted by 'shoe_size'"),
        ({"sort": "name", "after": "x"}, "The cursor 'x' is not the uid of a run."),
        ({"expression": "metrics.loss <"}, "cannot be understood"),
    ],
)
def test_orders_that_do_not_exist_are_refused(server: Any, query: Any, sentence: str) -> None:
    answer = server.get("/api/v1/runs", params=query)
    assert answer.status_code == 400
    assert sentence in answer.json()["detail"]


def test_runs_are_compared(three: Any, server: Any) -> None:
    uids = [run.uid for run, _ in three]
    found = server.get("/api/v1/runs/compare", params={"run_uid": [*uids, uids[0]]}).json()
    assert [run["run_uid"] for run in found["runs"]] == uids
    rows = {(row["kind"], row["name"]): row for row in found["data"]}
    assert rows["metrics", "loss"]["values"] == dict(zip(uids, (0.2, 0.1, 10), strict=True))
    assert rows["metrics", "loss"]["differs"]
    assert rows["params", "optimizer"]["values"][uids[1]] == "adam"
    assert not rows["params", "lr"]["differs"]


def test_datasets_have_operations_and_lineage(tracker: Any, server: Any) -> None:
    run, first = tracker.started()
    second = run.task("report")
    tracker.call("add_task_runs", run.add(second))
    for task, path, operation in (
        (first, "s3://raw", "read"),
        (first, "s3://clean", "write"),
        (second, "s3://clean", "read"),
        (second, "s3://report", "write"),
    ):
        tracker.call("log_datasets", _dataset(task, path, operation))
    tracker.call("log_datasets", _dataset(second, "s3://gone", "read", "NOK", operation_error="no such key"))

    found = server.get("/api/v1/datasets/lineage", params={"path": "s3://clean"}).json()
    assert found["upstream"] == [{"path": "s3://raw", "task_run_uids": [first.uid]}]
    assert found["downstream"] == [{"path": "s3://report", "task_run_uids": [second.uid]}]
    assert [(o["operation_type"], o["task_run_name"], o["job_name"]) for o in found["operations"]] == [
        ("read", "report", "nightly"),
        ("write", "train", "nightly"),
    ]
    page = server.get("/api/v1/datasets/operations", params={"run_uid": run.uid, "limit": 3}).json()
    rest = server.get("/api/v1/datasets/operations", params={"run_uid": run.uid, "after": page["after"]}).json()
    assert [o["path"] for o in page["data"] + rest["data"]] == [
        "s3://gone",
        "s3://report",
        "s3://clean",
        "s3://clean",
        "s3://raw",
    ]
    assert rest["after"] is None

    operations = server.get(f"/api/v1/runs/{run.uid}/operations").json()
    failed = next(o for o in operations if o["dataset_path"] == "s3://gone")
    assert (failed["latest_operation_status"], failed["records"]) == ("FAILED", 3)
    assert failed["issues"] == [{"type": "OperationError", "data": {"operation_error": "no such key"}}]


def test_a_whole_run_is_a_file(tracker: Any, server: Any) -> None:
    run, task = tracker.started()
    tracker.call("log_metrics", task.floats("loss", 300))
    tracker.call("log_metrics", task.metrics(task.metric("odd", value_float=float("nan")), task.metric("t", value="x")))
    tracker.call("save_task_run_log", {"task_run_attempt_uid": task.attempt, "log_body": "a line"})

    answer = server.get(f"/api/v1/runs/{run.uid}/export")

    assert answer.headers["Content-Disposition"] == f'attachment; filename="run-{run.uid}.json"'
    found = answer.json()
    train = next(one for one in found["task_runs"] if one["name"] == "train")
    assert [point["value"] for point in train["points"]["loss"]] == [float(i) for i in range(300)]
    assert [point["value"] for point in train["points"]["odd"]] == ["NaN"]
    assert train["log_body"] == "a line"
    detail = server.get(f"/api/v1/runs/{run.uid}").json()
    assert {key: value for key, value in found.items() if key != "task_runs"} == {
        key: value for key, value in detail.items() if key != "task_runs"
    }
    assert server.get("/api/v1/runs/nothing/export").status_code == 404


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_the_points_of_a_run_are_a_table(tracker: Any, server: Any, form: str) -> None:
    run, task = tracker.started()
    tracker.call("log_metrics", task.floats("loss", 300))
    others = (task.metric("odd", value_float=float("nan")), task.metric("t", value_str='x,"y"'))
    tracker.call("log_metrics", task.metrics(*others))
    if form == "parquet":
        parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")

    answer = server.get(f"/api/v1/runs/{run.uid}/export", params={"format": form})

    assert answer.status_code == 200
    assert answer.headers["Content-Disposition"] == f'attachment; filename="run-{run.uid}.{form}"'
    if form == "csv":
        rows = list(csv.DictReader(io.StringIO(answer.text)))
    else:
        rows = [
            {key: str(v) for key, v in row.items()}
            for row in parquet.read_table(io.BytesIO(answer.content)).to_pylist()
        ]
    assert {(row["run_uid"], row["run_name"], row["task"]) for row in rows} == {(run.uid, run.name, "train")}
    losses = [(int(row["step"]), float(row["value"])) for row in rows if row["metric"] == "loss"]
    assert losses == [(i, float(i)) for i in range(300)]
    assert [row["value"] for row in rows if row["metric"] == "odd"] == ["nan"]
    assert [row["text"] for row in rows if row["metric"] == "t"] == ['x,"y"']
    for wrong, status in ((f"{run.uid}/export?format=xml", 422), (f"nothing/export?format={form}", 404)):
        assert server.get(f"/api/v1/runs/{wrong}").status_code == status


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_an_export_begins_at_once_and_is_whole(
    tracker: Any, server: Any, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long it takes: the time-out of requests counts until their answers begin."""
    if form == "parquet":
        pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    monkeypatch.setattr(runs, "_SIZE_AT_ONCE", 100)
    monkeypatch.setattr(tables, "_CHUNK", 7)
    run, task = tracker.started()
    tracker.call("log_metrics", task.floats("loss", 40))
    whole = server.get(f"/api/v1/runs/{run.uid}/export", params={"format": form}).content
    if form == "csv":
        steps = [int(row["step"]) for row in csv.DictReader(io.StringIO(whole.decode()))]
    else:
        from pyarrow import parquet

        steps = parquet.read_table(io.BytesIO(whole)).column("step").to_pylist()
    assert steps == list(range(40))

    waits = threading.Event()
    rows = tables._rows
    monkeypatch.setattr(tables, "_rows", lambda *args: waits.wait(30) and rows(*args))
    with server.get(f"/api/v1/runs/{run.uid}/export", params={"format": form}, stream=True) as answer:
        parts = answer.iter_content(1)
        first = next(parts)
        assert not waits.is_set()
        waits.set()
        assert first + b"".join(parts) == whole


def test_no_cell_of_csv_is_a_formula(tracker: Any, server: Any) -> None:
    evil = ["=1+1", "+1", "-1+cmd|' /C calc'!A0", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "\uff1d1"]
    run, task = tracker.started(name=evil[0], job=evil[1])
    texts = [*evil, "plain", "a=b", "'quoted"]
    infos = [task.metric(f"{text}", value_str=text) for text in texts]
    tracker.call("log_metrics", task.metrics(*infos, task.metric("number", value_float=-1.5)))
    answer = server.get(f"/api/v1/runs/{run.uid}/export", params={"format": "csv"})
    rows = list(csv.DictReader(io.StringIO(answer.text, newline="")))
    cells = [cell for row in rows for name, cell in row.items() if name != "value"]
    assert not [cell for cell in cells if cell.startswith(tuple(text[0] for text in evil))]
    assert {row["text"] for row in rows} == {*(f"'{text}" for text in evil), "plain", "a=b", "'quoted", ""}
    assert [row["value"] for row in rows if row["metric"] == "number"] == ["-1.5"]
    assert all(row["step"] in {"", "0"} for row in rows)


def test_what_dbt_airflow_and_failing_clients_say_is_kept(tracker: Any, server: Any) -> None:
    run, task = tracker.started()
    for body in ({"id": 1}, {"id": 2, "run_steps": [{"name": "x"}]}):
        tracker.call("log_dbt_metadata", {"task_run_attempt_uid": task.attempt, "dbt_run_metadata": body})
    info = {"execution_date": "2026-03-04T05:06:07Z", "dag_id": "d", "task_id": "t"}
    body = {
        "airflow_task_infos": [{**info, "task_run_attempt_uid": task.attempt}],
        "source": "x",
        "base_url": "http://a",
    }
    tracker.call("save_airflow_task_infos", body)
    for number in range(3):
        error = {"dbnd_version": "1.0", "source": "tracking-sdk", "stack_trace": f"trace {number}"}
        assert server.post("log_exception", error).json() == {}

    documents = server.get(f"/api/v1/task-runs/{task.uid}/documents").json()
    assert documents["dbt"] == {"id": 2, "run_steps": [{"name": "x"}]}
    assert (documents["airflow"]["dag_id"], documents["airflow"]["base_url"]) == ("d", "http://a")
    errors = server.get("/api/v1/client-errors", params={"limit": 2}).json()["data"]
    assert [error["stack_trace"] for error in errors] == ["trace 2", "trace 1"]
    # A run that is deleted leaves nothing behind.
    assert server.session.delete(f"{server.url}/api/v1/runs/{run.uid}", timeout=30).status_code == 204
    assert server.get(f"/api/v1/task-runs/{task.uid}/documents").status_code == 404


def test_name_note_and_tags_of_a_run_are_changed(tracker: Any, server: Any) -> None:
    run, _ = tracker.started(name="before")
    url = f"{server.url}/api/v1/runs/{run.uid}"

    def change(**body: Any) -> int:
        return int(server.session.patch(url, json=body, timeout=30).status_code)

    assert change(name="after", description="see https://example.com", tags={"stage": "good", "old": "x"}) == 204
    assert change(tags={"stage": "best", "old": None, "never": None}) == 204
    found = server.get(f"/api/v1/runs/{run.uid}").json()
    assert (found["name"], found["description"]) == ("after", "see https://example.com")
    tags = {task["name"]: task["tags"] for task in found["task_runs"] if task["tags"]}
    noted = {"name": "dbnd.edited", "value": '["description", "name", "tags.never", "tags.old", "tags.stage"]'}
    assert tags == {run.root.name: [{"name": "stage", "value": "best"}, noted]}
    tracker.call("init_run", run.init())
    assert server.get(f"/api/v1/runs/{run.uid}").json()["name"] == "after", "what people have changed stays"
    for other in ("no JSON", "5", "null", "[[1]]", "[" * 10_000):  # which a client may have written into that tag
        tracker.call("log_metric", run.root.metric("dbnd.edited", "mlflow.tag", value_str=other))
        tracker.call("init_run", run.init())
        assert change(name="after") == 204, other
    assert change(description="") == 204
    assert server.get(f"/api/v1/runs/{run.uid}").json()["description"] is None
    assert [change(name=""), change(name=" "), change(nme="x"), change(tags={"a": {}})] == [422] * 4
    assert server.session.patch(f"{url[:-4]}0000", json={"name": "x"}, timeout=30).status_code == 404


def test_scheduled_jobs_are_noted_and_changed_only_when_that_is_asked_for(tracker: Any, server: Any) -> None:
    time = "2026-03-04T05:06:07+00:00"
    args = {
        "uid": "00000000-0000-0000-0000-000000000001",
        "name": "nightly",
        "cmd": "run x",
        "start_date": time,
        "create_user": "ada",
        "create_time": time,
    }
    for cmd, update in (("run x", False), ("run y", False), ("run z", True)):
        tracker.call("init_scheduled_job", {"scheduled_job_args": {**args, "cmd": cmd}, "update_existing": update})
        (job,) = server.get("/api/v1/scheduled_jobs", params={"name": "nightly"}).json()["data"]
        assert job["cmd"] == ("run z" if update else "run x")
    assert server.get("/api/v1/scheduled_jobs", params={"name": "other"}).json()["data"] == []


def test_what_the_original_clients_ask(tracker: Any, server: Any, error: Any) -> None:
    run, task = tracker.started()
    tracker.call("update_task_run_attempts", task.update("RUNNING"))
    tracker.call("log_metrics", task.floats("loss", 3))
    tracker.call("save_task_run_log", {"task_run_attempt_uid": task.attempt, "log_body": "a line"})
    tracker.call("update_task_run_attempts", task.update("FAILED", error=error))

    (job,) = server.get("/api/v1/jobs?sort=-latest_run_start_time").json()["data"]
    assert (job["name"], job["latest_run_uid"], job["run_states"]) == ("nightly", run.uid, {"running": 1})
    assert job["latest_run_start_time"] == "2026-03-04T05:06:07.000008+00:00"

    graph = server.get("/api/v1/task/full-graph", params={"job_name": "nightly", "run_uid": run.uid}).json()
    nodes = {node["uid"]: node for node in graph["nodes_info"].values()}
    assert graph["root_task_run_uid"] == run.root.uid
    assert graph["nodes_info"][str(graph["root"])]["uid"] == run.root.uid
    assert nodes[task.uid]["state"] == "failed"
    assert len(graph["children"]) == len(graph["upstreams"]) == 1

    asked = server.post("task/tasks", {"uids": [task.uid]}).json()
    instance = asked["task_instances"][task.uid]
    assert (instance["state"], instance["run_uid"], instance["output_signature"]) == ("failed", run.uid, "0123456789")
    assert instance["task_run_params"] == [
        {"name": "lr", "value": "0.1", "value_origin": "default", "targets_uids": []}
    ]
    assert asked["attempts"][task.uid][0]["error"]["msg"] == "boom"
    metrics = server.post("task/tasks-metrics", {"uids": [task.uid]}).json()["metrics"]
    assert metrics["train__0123456789"]["loss"][0] == ["2026-03-04T05:06:07.000008+00:00", 0.0, "user"]
    (log,) = server.get("/api/v1/task/tasks-logs", params={"attempt_id": instance["latest_task_run_attempt_id"]}).json()
    assert (log["task_run_attempt_uid"], log["log_body"]) == (task.attempt, "a line")

    by_uid = {"filter": json.dumps([{"name": "run_uid", "op": "eq", "val": run.uid}])}
    assert server.get("/api/v1/metrics/for_alerts", params=by_uid).json()["data"] == [
        {"task_name": "train", "metric_name": "loss"}
    ]
    client_run = server.get(f"/api/client/v1/run/{run.uid}").json()
    assert "boom" in [t["latest_error"]["msg"] for t in client_run["task_runs"] if t["latest_error"]]
    assert server.get("/api/client/v1/run/nothing").status_code == 404
    assert server.get("/api/client/v1/run_info", params=by_uid).json()["data"][0]["uid"] == run.uid
    by_id = {"filter": json.dumps([{"name": "task_af_id", "op": "eq", "val": "train"}])}
    assert server.get("/api/client/v1/task_run_info", params=by_id).json()["data"][0]["uid"] == task.uid
    values = server.get("/api/client/v1/metrics", params={"task_run_attempt_uid": task.attempt}).json()["data"]
    assert [(value["key"], value["value"]) for value in values] == [("loss", 2.0)]
    wrong = server.get("/api/client/v1/run_info", params=by_id)
    assert wrong.status_code == 400


def test_the_points_of_many_metrics_are_cut_to_what_one_answer_may_hold(
    tracker: Any, server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, task = tracker.started()
    keys = [f"m{number}" for number in range(7)]
    tracker.call("log_metrics", task.metrics(*(task.metric(key, value_int=n) for key in keys for n in range(5))))

    def asked() -> dict[str, list[Any]]:
        found = server.post("task/tasks-metrics", {"uids": [task.uid]}).json()["metrics"]["train__0123456789"]
        return {key: [value for _, value, _ in points] for key, points in found.items()}

    assert asked() == {key: [0, 1, 2, 3, 4] for key in keys}
    monkeypatch.setattr(queries, "_MAX_POINTS", 23)
    assert asked() == {key: [0, 1, 2] for key in keys}
    monkeypatch.setattr(queries, "_MAX_SERIES", 5)
    assert asked() == {key: [0, 1, 2, 3] for key in keys[:5]}


def test_of_an_error_inside_a_client_the_end_is_kept(tracker: Any, server: Any) -> None:
    error = {"dbnd_version": "1" * 10_000, "source": "x" * 10_000, "stack_trace": "a" * 1_000_000 + "ValueError: b"}
    assert server.post("log_exception", error).ok
    answer = server.get("/api/v1/client-errors")
    assert answer.json()["data"][0]["stack_trace"].endswith("aValueError: b")
    assert len(answer.content) < 30_000


def test_params_name_the_targets_that_they_are(tracker: Any, server: Any) -> None:
    run, task = tracker.started()
    target = {
        "run_uid": run.uid,
        "task_run_uid": task.uid,
        "task_run_attempt_uid": task.attempt,
        "target_path": "/data/lr.txt",
        "param_name": "lr",
        "operation_type": "read",
        "operation_status": "OK",
    }
    tracker.call("log_targets", {"targets_info": [target, {**target, "param_name": None}]})
    asked = server.post("task/tasks", {"uids": [task.uid]}).json()
    [uid] = [found["target_uid"] for found in asked["targets_operations"] if found["param_name"] == "lr"]
    assert [param["targets_uids"] for param in asked["task_instances"][task.uid]["task_run_params"]] == [[uid]]


def test_jobs_and_runs_as_the_original_clients_page_and_filter_them(tracker: Any, make_run: Any, server: Any) -> None:
    for hour, job in enumerate(("a", "b", "c", "b")):
        run = make_run(job=job, name=f"run {hour}")
        tracker.call("init_run", run.init(start_time=f"2026-03-04T0{hour}:00:00Z", project_name=f"p{job}"))

    def names(path: str, **params: Any) -> list[str]:
        filters = {"filter": json.dumps(params.pop("filter"))} if "filter" in params else {}
        answer = server.get(path, params={**params, **filters})
        assert answer.status_code == 200, answer.text
        return [found["name"] for found in answer.json()["data"]]

    jobs, runs = "/api/v1/jobs", "/api/v1/runs"
    assert names(jobs) == names(jobs, sort="-latest_run_start_time") == ["b", "c", "a"]
    assert names(jobs, sort="latest_run_start_time") == ["a", "c", "b"]
    assert names(jobs, sort="-name") == ["c", "b", "a"]
    assert names(jobs, sort="name", **{"page[size]": 2, "page[number]": 2}) == ["c"]
    assert names(jobs, filter=[{"name": "name", "op": "eq", "val": "b"}]) == ["b"]
    assert names(jobs, filter=[{"name": "project_name", "op": "like", "val": "p_"}], sort="name") == ["a", "b", "c"]
    by_name = {"filter": json.dumps([{"name": "name", "op": "eq", "val": "b"}])}
    assert server.get(jobs, params=by_name).json()["meta"] == {"total": 1}
    for sort in ({}, {"sort": "-name"}, {"sort": "-start_time"}):
        pages = [names(runs, **sort, **{"page[size]": 3, "page[number]": number}) for number in (1, 2, 3)]
        assert pages == [["run 3", "run 2", "run 1"], ["run 0"], []]
    for path in (f"{jobs}?sort=mood", f"{jobs}?filter=5", f"{runs}?page[size]=0", f"{runs}?page[number]=0"):
        assert server.get(path).status_code in {400, 422}, path


def test_targets_that_are_known_before_their_task_runs_are_kept(tracker: Any, make_run: Any) -> None:
    run = make_run()
    task = run.task()
    tracker.call("init_run", run.init())
    body = run.add(task)
    body["task_runs_info"]["targets"] = [
        {"parameter_name": "result", "path": "/data/out.csv", "created_date": None, "task_run_uid": task.uid},
        {"parameter_name": "x", "path": "/nobody", "created_date": None, "task_run_uid": None},
    ]
    for _ in range(2):
        tracker.call("add_task_runs", body)
    (target,) = tracker.task(task).targets
    assert (target.param_name, target.path, target.operation_type) == ("result", "/data/out.csv", "init")
    tracker.call("set_task_reused", {"task_run_uid": task.uid, "task_outputs_signature": "abc"})
    view = tracker.task(task)
    assert (view.state, view.is_reused, view.facts["output_signature"]) == ("success", True, "abc")


def test_a_run_is_found_by_what_any_of_its_task_runs_logged(tracker: Any, server: Any) -> None:
    """The read API's conditions, its expressions and the page's filter mean the same."""
    for name, values in (("both", (0.5, 5)), ("small", (0.5, None)), ("large", (5, None))):
        run, first = tracker.started(name=name)
        second = run.task("second")
        tracker.call("add_task_runs", run.add(second))
        for task, value in zip((first, second), values, strict=True):
            if value is not None:
                metric = task.metric("loss", value_float=float(value))
                tag = task.metric("size", "mlflow.tag", value_str=f"Size {value}")
                tracker.call("log_metrics", task.metrics(metric, tag))

    expected = {
        ("metrics.loss", "lt", 1): ["both", "small"],
        ("metrics.loss", "ge", "5"): ["both", "large"],
        ("tags.size", "eq", "Size 5"): ["both", "large"],
        ("tags.size", "like", "Size%5"): ["both", "large", "small"],
        ("tags.size", "like", "size%"): [],  # on SQLite as well, whose LIKE would find it
        ("tags.none", "ne", "x"): [],
    }
    signs = {"lt": "<", "ge": ">=", "eq": "=", "ne": "!=", "like": "like"}
    for (field, operator, value), names in expected.items():
        conditions = json.dumps([{"name": field, "op": operator, "val": value}])
        expression = f'{field} {signs[operator]} "{value}"'
        assert sorted(_names(server, filter=conditions)) == names
        assert sorted(_names(server, expression=expression)) == names
        page = server.get("/", params={"where": expression}).text
        assert sorted(name for name in ("both", "small", "large") if f">{name} / <" in page) == names
    for value, jobs in ((1, ["nightly"]), (0.1, [])):
        by_metric = json.dumps([{"name": "metrics.loss", "op": "lt", "val": value}])
        found = server.get("/api/v1/jobs", params={"filter": by_metric}).json()["data"]
        assert [job["name"] for job in found] == jobs


def test_values_of_every_kind_are_compared_with_bounds(tracker: Any, server: Any) -> None:
    """NaN and texts that are no numbers are neither above nor below; texts that are numbers are."""
    values: dict[str, dict[str, Any]] = {
        "float": {"value_float": 5.0},
        "int": {"value_int": 2**60},
        "nan": {"value_float": math.nan},
        "infinite": {"value_float": math.inf},
        "digits": {"value_str": "7"},
        "text": {"value_str": "many"},
    }
    for name, value in values.items():
        _, task = tracker.started(name=name)
        tracker.call("log_metrics", task.metrics(task.metric("m", **value)))

    def found(condition: str) -> list[str]:
        return sorted(_names(server, expression=f"metrics.m {condition}"))

    assert found("> 5") == ["digits", "infinite", "int"]
    assert found(">= 5") == ["digits", "float", "infinite", "int"]
    assert found("<= 7") == ["digits", "float"]
    assert found("< 7") == ["float"]
    assert found(f">= {2**60}") == ["infinite", "int"]
    assert found(">= inf") == ["infinite"]
    assert found("= many") == ["text"]
    refused = server.get("/api/v1/runs", params={"expression": "metrics.m < many"})
    assert refused.status_code == 400
    assert "'many' is none" in refused.json()["detail"]
