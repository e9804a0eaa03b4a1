"""Whatever the door takes can be read: on every page, by every route of the API, in every export and in the terminal.

What is written follows from the schemas of the calls, and what is read from the routes of the application, so that a
field or a route of tomorrow is tried, too.
"""

from __future__ import annotations

import asyncio
import html
import json
import math
import re
import sqlite3
import uuid
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urlencode

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kit.scale import scaled

from dbnd._model.points import SIZE
from dbnd_tracker._cli.text import comparison_json, comparison_text, run_text
from dbnd_tracker._exports import FORMS
from dbnd_tracker._ingest import CALLS
from dbnd_tracker._middleware.answers import POINTS_HEADER
from dbnd_tracker._queries.details import run_detail
from dbnd_tracker._queries.language.grammar import condition
from dbnd_tracker._reader import DatabaseReader
from dbnd_tracker._server.app import create_app
from dbnd_tracker._storage.encoding import MAX_DEPTH


class Client:
    """Asks an application without a network between; what it raises is raised here."""

    def __init__(self, app: Any) -> None:
        self.app = app
        self._loop = asyncio.new_event_loop()
        self._client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost")

    def ask(self, method: str, address: str, **options: Any) -> httpx.Response:
        return self._loop.run_until_complete(self._client.request(method, address, **options))

    def close(self) -> None:
        self._loop.run_until_complete(self._client.aclose())
        self._loop.close()


RUNS, TASKS, ATTEMPTS, OTHERS = ([str(uuid.UUID(int=kind << 8 | i)) for i in range(3)] for kind in range(1, 5))
UIDS = {"run": RUNS, "task_run_uid": TASKS, "attempt": ATTEMPTS, "": OTHERS}
NAMES = [
    *(
        "loss",
        "",
        " ",
        ".",
        "..",
        "a/b",
        "a?b=c&d",
        "#",
        "%",
        "%2F%ff",
        "a\tb\r\n\x1b[31m",
        "x" * 700,
        "\ud800",
        "a\0b",
    ),
    *(
        "\U0001f600",
        "\u202e",
        "javascript:alert(1)",
        "=1+1",
        "NaN",
        "model:x",
        "</script><b>",
        "metrics.x",
        "-params.",
        "1e999",
    ),
]
TEXTS = [
    *NAMES,
    "0.1",
    "http://h/#/experiments/1/runs/abc",
    "http://[",
    "s3://a/b",
    '{"type": 1}',
    "[" * 2000,
    "9" * 5000,
]
TIMES = [
    *("2026-03-04T05:06:07+00:00", "0001-01-01T00:00:00Z", "0001-01-01T00:00:00-12:00", "9999-12-31T23:59:59.999999Z"),
    *("9999-12-31T23:59:59+12:00", "1969-12-31T23:59:59.999999Z", "2026-3-4 5:6+02"),
]
INTS = [0, 1, -1, 2**31, 2**53 + 1, 2**63 - 1, -(2**63), 2**64, 10**400, 10**4299]
FLOATS = [0.0, -1.5, 1e308, -1e308, 5e-324, float("nan"), float("inf"), float("-inf")]
STEP, EPOCH_US = 2**63 - 1, [0, -1, -62135596800000000, 253402300799999999, -(2**80), 2**80]


def _nested(depth: int, is_list: bool) -> Any:
    value: Any = "\ud800"
    for _ in range(depth):
        value = [value] if is_list else {"a": value}
    return value


SCALARS = st.none() | st.booleans() | st.sampled_from([*INTS, *FLOATS, *TEXTS]) | st.text(max_size=5)
DEEP = st.builds(_nested, st.sampled_from([63, 64, 65, 200, 330, 700, 900]), st.booleans())
JSON = (
    st.recursive(
        SCALARS,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(TEXTS), inner, max_size=3),
        max_leaves=4,
    )
    | DEEP
)
OBJECTS = st.dictionaries(st.sampled_from(TEXTS), JSON, max_size=3)


def _odd_uid(uid: str) -> st.SearchStrategy[str]:
    return st.sampled_from([uid, uid, uid, uid.upper(), uid.replace("-", ""), f"{{{uid}}}", f"urn:uuid:{uid}"])


def _valid(  # noqa: PLR0911  kind by kind
    schema: dict[str, Any], definitions: dict[str, Any], name: str
) -> st.SearchStrategy[Any]:
    """Values that are right by a JSON schema, odd as they may be."""
    if "$ref" in schema:
        return _valid(definitions[schema["$ref"].rpartition("/")[2]], definitions, name)
    if "anyOf" in schema:
        return st.one_of([_valid(each, definitions, name) for each in schema["anyOf"]])
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    kind = schema.get("type")
    if kind == "object" and "properties" in schema:
        members = {key: _valid(each, definitions, key) for key, each in schema["properties"].items()}
        required = set(schema.get("required", ()))
        return st.fixed_dictionaries(
            {key: each for key, each in members.items() if key in required},
            optional={key: each for key, each in members.items() if key not in required},
        )
    if kind == "array" and "prefixItems" in schema:
        return st.tuples(*(_valid(each, definitions, "task_run_uid") for each in schema["prefixItems"])).map(list)
    if kind == "array":
        return st.lists(_valid(schema["items"], definitions, name), min_size=1, max_size=3)
    if kind == "string":
        return _string(schema.get("format"), name)
    simple = {"boolean": st.booleans(), "null": st.none(), "object": OBJECTS, None: JSON}
    bounds = {"min_value": schema.get("minimum"), "max_value": schema.get("maximum")}
    integers = st.integers(**bounds) if "maximum" in schema else st.sampled_from(INTS)
    numbers = {"integer": integers, "number": st.sampled_from(FLOATS) | st.floats()}
    return {**simple, **numbers}[kind]


def _string(form: str | None, name: str) -> st.SearchStrategy[str]:
    if form == "uuid":
        pool = next(uids for part, uids in UIDS.items() if part in ("task_run_uid" if name == "task_run_uid" else name))
        return st.sampled_from(pool).flatmap(_odd_uid)
    if form == "date-time":
        return st.sampled_from(TIMES)
    if form == "date":
        return st.sampled_from(["2026-03-04", "0001-01-01", "9999-12-31"])
    return st.sampled_from(TEXTS) | st.text(max_size=8)


def _body(call: str) -> st.SearchStrategy[Any]:
    schema = CALLS[call].body.model_json_schema()
    return _valid(schema, schema.get("$defs", {}), "")


POINT = st.tuples(
    st.sampled_from(NAMES), JSON, st.sampled_from(EPOCH_US), st.sampled_from([None, 0, 1, STEP, -STEP]), st.none()
)


@st.composite
def _points(draw: st.DrawFn) -> list[Any]:
    """Points in our own client's form."""
    flat: list[Any] = []
    for key, value, time_us, step, _ in draw(st.lists(POINT, max_size=4)):
        mark = None if type(value) in {int, float} else "s" if isinstance(value, str) else "j"
        flat += [key, value, time_us, step, mark]
    assert len(flat) % SIZE == 0
    return [draw(st.sampled_from(ATTEMPTS)), draw(st.sampled_from(["user", "mlflow.param", "mlflow.tag", None])), flat]


WRITES = st.one_of(
    [st.tuples(st.just(call), _body(call)) for call in CALLS]
    + [st.tuples(st.just("points"), st.fixed_dictionaries({"points": st.lists(_points(), max_size=3)}))]
)


def _write(client: Client, call: str, body: Any) -> int:
    is_points = call == "points"
    name = "tracking/log_metrics" if is_points else call if call == "log_exception" else f"tracking/{call}"
    content = json.dumps(body)
    answer = client.ask("POST", f"/api/v1/{name}", content=content, headers={POINTS_HEADER: "1"} if is_points else {})
    assert answer.status_code in {200, 400}, (call, answer.text, content[:2000])
    return answer.status_code


def _addresses(app: Any, keys: list[str]) -> Iterator[str]:
    """Every address that is read by GET, of everything that was written and of what was not."""
    for route in app.routes:
        if "GET" not in (route.methods or ()) or re.search("static|metrics$|healthz|readyz|login|openapi", route.path):
            continue
        parts = re.findall(r"{(\w+)(?::\w+)?}", route.path)
        for run, task, attempt in zip(RUNS, TASKS, ATTEMPTS, strict=True):
            values = {"run_uid": run, "task_run_uid": task, "job_name": quote("a/b? %", safe=""), "path": "x"}
            path = re.sub(r"{(\w+)(?::\w+)?}", lambda match: values.get(match[1], "x"), route.path)  # noqa: B023
            common = {"run_uid": run, "task_run_attempt_uid": attempt, "path": "s3://a/b", "attempt_id": 1}
            condition = json.dumps([{"name": "run_uid", "op": "eq", "val": run}])
            yield f"{path}?{urlencode({**common, 'key': 'loss', 'filter': condition})}"
            yield f"{path}?{urlencode({**common, 'key': 'loss', 'values': 3, 'axis': 'time', 'samples': 10})}"
            if not parts:
                break
        for key in keys if "key" in route.path or route.path.endswith(("/history", "series/{task_run_uid}")) else ():
            for task in TASKS:
                path = route.path.replace("{task_run_uid}", task)
                yield f"{path}?{urlencode({'key': key})}"
                yield f"{path}?{urlencode({'key': key, 'values': 1, 'axis': 'time', 'samples': 10})}"
    yield from _asked_for(keys)


def _asked_for(keys: list[str]) -> Iterator[str]:
    """Addresses that sort, filter, compare, plot and export what was written."""
    for field in ("metrics", "params", "tags"):
        for key in keys:
            yield f"/?{urlencode({'sort': f'{field}.{key}', 'col': f'{field}.{key}'})}"
            yield f"/api/v1/runs?{urlencode({'sort': f'-{field}.{key}'})}"
    for key in keys[1:]:
        name = key.replace("`", "``")
        condition = f"metrics.`{name}` like '%0_%' or params.`{name}` < 5"
        yield f"/?{urlencode({'where': condition})}"
    for order in ("started", "-took", "name", "-job", "user", "state"):
        yield f"/api/v1/runs?sort={order}"
    for uid, other in zip(RUNS, TASKS, strict=True):
        compared_ = urlencode({"run": RUNS, "x": "metrics.loss", "y": "metrics.", "show": "all"}, doseq=True)
        yield f"/app/compare?{compared_}"
        yield f"/api/v1/runs/compare?{urlencode({'run_uid': RUNS}, doseq=True)}"
        plots = urlencode({"plot": keys, "with": RUNS, "tasks": "all"}, doseq=True)
        yield f"/app/jobs/x/{uid}/{other}?{plots}"
        yield f"/app/jobs/x/{uid}?{plots}"
        for form in ("json", "csv", "parquet"):
            yield f"/api/v1/runs/{uid}/export?format={form}"


def _strict(constant: str) -> None:
    raise AssertionError(f"{constant} is no JSON")


def _read(tracker: Any, client: Client) -> None:
    with tracker.database.read() as session:
        details = [detail for uid in RUNS if (detail := run_detail(session, uid))]
    keys = sorted({"loss", "", *(metric.key for run in details for task in run.task_runs for metric in task.metrics)})
    seen = 0
    for address in _addresses(client.app, keys[:8]):
        answer = client.ask("GET", address)
        assert answer.status_code < 500, (address, answer.text[:500])
        answer.content.decode("utf-8") if "parquet" not in address else None
        seen += answer.status_code == 200
        if "json" in answer.headers["Content-Type"]:
            json.loads(answer.content, parse_constant=_strict)
    assert seen > 30
    for route in ("tasks", "tasks-metrics"):
        answer = client.ask("POST", f"/api/v1/task/{route}", json={"uids": TASKS})
        assert answer.status_code == 200, answer.text[:500]
        json.loads(answer.content, parse_constant=_strict)
    reader = DatabaseReader(tracker.database, "test")
    for run in details:
        (row,) = reader.runs(condition("uid", "=", run.run_uid), 1).data
        run_text(row, run, None)
        json.dumps(run.model_dump(mode="json"), allow_nan=False)
    for parts in FORMS.values():
        assert sum(count for _, count in parts(reader, details)) >= 0
    comparison = reader.compare([run.run_uid for run in details])
    comparison_text(comparison, everything=True)
    json.dumps(comparison_json(comparison), allow_nan=False)


@pytest.mark.timeout(1800)
def test_whatever_the_door_takes_can_be_read(tracker: Any) -> None:
    counts = {200: 0, 400: 0}
    client = Client(create_app(tracker.database))

    @settings(max_examples=150)
    @given(write=WRITES)
    def check(write: tuple[str, Any]) -> None:
        counts[_write(client, *write)] += 1

    try:
        for _ in range(scaled(1, 20)):
            check()
            _read(tracker, client)
    finally:
        client.close()
    assert counts[200] > 2 * counts[400]


@pytest.mark.parametrize("depth", [60, 330, 900])
@pytest.mark.parametrize("is_list", [True, False])
def test_json_nested_deep_is_kept_in_a_form_that_can_be_shown(
    sqlite_tracker: Any, make_run: Any, depth: int, is_list: bool
) -> None:
    value = _nested(depth, is_list)
    run, task = sqlite_tracker.started()
    sqlite_tracker.call("log_metric", task.metric("m", value_json=value))
    sqlite_tracker.call("log_dbt_metadata", {"task_run_attempt_uid": task.attempt, "dbt_run_metadata": {"a": value}})
    client = Client(create_app(sqlite_tracker.database))
    for address in (
        "/",
        f"/app/jobs/x/{run.uid}",
        f"/api/v1/runs/{run.uid}",
        f"/api/v1/task-runs/{task.uid}/documents",
    ):
        assert client.ask("GET", address).status_code == 200, address
    kept = json.loads(client.ask("GET", f"/api/v1/task-runs/{task.uid}/metrics").content)["data"][0]["last_value"]
    client.close()
    for _ in range(min(depth, MAX_DEPTH)):
        kept = kept[0] if is_list else kept["a"]
    if depth <= MAX_DEPTH:
        assert kept == "?"
    else:
        assert json.loads(kept) == json.loads(json.dumps(_nested(depth - MAX_DEPTH, is_list)).replace("\\ud800", "?"))


def test_what_an_earlier_version_stored_is_shown(sqlite_tracker: Any) -> None:
    """It kept half characters and any depth in its JSON."""
    run, task = sqlite_tracker.started()
    sqlite_tracker.call("log_metric", task.metric("m", value_json={"a": 1}))
    sqlite_tracker.call(
        "save_external_links", {"task_run_attempt_uid": task.attempt, "external_links_dict": {"a": "b"}}
    )
    deep = json.dumps({"\ud800": _nested(400, True)})
    with sqlite3.connect(sqlite_tracker.database.path) as connection:
        connection.execute("UPDATE metric_series SET last_text = ?", (deep,))
        connection.execute("UPDATE metrics SET text = ?", (deep,))
        connection.execute("UPDATE attempts SET external_links = ?", (deep,))
    connection.close()
    client = Client(create_app(sqlite_tracker.database))
    for address in (
        f"/app/jobs/x/{run.uid}/{task.uid}",
        f"/api/v1/runs/{run.uid}",
        f"/api/v1/runs/{run.uid}/export",
        "/?sort=metrics.m&col=metrics.m",
    ):
        assert client.ask("GET", address).status_code == 200, address
    client.close()


@pytest.mark.parametrize("value", [[1], {"a": 1}, "text", True, 10**400, math.nan])
def test_runs_are_sorted_by_values_of_every_kind(sqlite_tracker: Any, value: Any) -> None:
    for each in (0.5, value, value):
        _, task = sqlite_tracker.started()
        kind = {float: "value_float", int: "value_int", str: "value_str"}.get(type(each), "value_json")
        sqlite_tracker.call("log_metric", task.metric("m", **{kind: each}))
    client = Client(create_app(sqlite_tracker.database))
    for sign in ("", "-"):
        answer = client.ask("GET", f"/api/v1/runs?sort={sign}metrics.m")
        assert len(answer.json()["data"]) == 3
        assert client.ask("GET", f"/?sort={sign}metrics.m").status_code == 200
    client.close()


@pytest.mark.parametrize("time", ["0001-01-01T00:00:00+00:00", "9999-12-31T23:59:59.999999+00:00"])
@pytest.mark.parametrize("zone", ["America/New_York", "Asia/Tokyo"])
def test_the_ends_of_the_calendar_are_read_in_any_zone(
    postgresql: Any,
    template: str,
    open_tracker: Any,
    make_run: Any,
    monkeypatch: pytest.MonkeyPatch,
    zone: str,
    time: str,
) -> None:
    monkeypatch.setenv("TZ", zone)
    monkeypatch.setenv("PGTZ", zone)
    url = postgresql.create(template)
    tracker = open_tracker(url)
    run = make_run()
    tracker.call("init_run", run.init(start_time=time, end_time=time))
    found = tracker.run(run)
    assert found.start_time.isoformat() == time
    (row,) = DatabaseReader(tracker.database, "test").runs("", 1).data
    assert run_text(row, found, None)
    client = Client(create_app(tracker.database))
    assert client.ask("GET", "/").status_code == client.ask("GET", f"/app/jobs/x/{run.uid}").status_code == 200
    client.close()


@pytest.mark.parametrize("job", [".", "..", "a/../b", "?", "#", "%2e", "-", " "])
def test_links_lead_to_the_runs_of_any_job(sqlite_tracker: Any, make_run: Any, job: str) -> None:
    """Browsers take dots as steps within an address, as this client does."""
    run = make_run(job=job)
    sqlite_tracker.call("init_run", run.init())
    client = Client(create_app(sqlite_tracker.database))
    page = client.ask("GET", "/").text
    links = [
        html.unescape(link) for link in re.findall(r'href="(/[^"]*)"', page) if "/app/jobs/" in link or "job=" in link
    ]
    assert len(links) >= 2
    for link in links:
        answer = client.ask("GET", link)
        assert answer.status_code == 200
        assert run.name in answer.text
    client.close()
