from __future__ import annotations

import gzip
import json
import socket
import sqlite3
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests
from starlette.exceptions import HTTPException

from dbnd_tracker._access.hosts import is_loopback
from dbnd_tracker._middleware.bodies import gunzip
from dbnd_tracker._server.process import listen
from dbnd_tracker._settings import TrackerSettings

_TABLES = ("runs", "task_runs", "attempts", "task_relations", "params", "tags", "metric_series", "metrics")


def _rows(tracker: Any) -> dict[str, list[Any]]:
    """Everything stored, but ids and times of receipt."""
    assert tracker.database.path is not None
    with sqlite3.connect(tracker.database.path) as connection:
        found = {table: connection.execute(f"SELECT * FROM {table}").fetchall() for table in _TABLES}
    connection.close()
    return found


def test_http_and_embedded_store_the_same(
    tmp_path: Path, open_tracker: Callable[[str], Any], serve: Any, make_run: Any
) -> None:
    first, second = open_tracker(str(tmp_path / "1.db")), open_tracker(str(tmp_path / "2.db"))
    server = serve(second.database)
    run = make_run()
    task = run.task()
    calls = [
        ("init_run", run.init()),
        ("add_task_runs", run.add(task)),
        ("update_task_run_attempts", task.update("RUNNING")),
        ("log_metrics", task.floats("loss", 20)),
        ("log_metric", task.metric("p", "mlflow.param", value_str="x")),
        ("log_metric", task.metric("t", "mlflow.tag", value_str="x")),
        ("save_external_links", {"task_run_attempt_uid": task.attempt, "external_links_dict": {"a": "http://b"}}),
        ("log_artifact", {"task_run_attempt_uid": task.attempt, "name": "n", "path": "p"}),
        ("update_task_run_attempts", task.update("SUCCESS")),
        ("set_run_state", run.state("SUCCESS")),
        ("log_exception", {"dbnd_version": "1", "source": "tracking-sdk", "stack_trace": "x"}),
    ]
    for name, body in calls:
        assert first.call(name, body) == {}
        answer = server.post(name, body)
        assert (answer.status_code, answer.json()) == (200, {})

    assert _rows(first) == _rows(second)
    assert len(_rows(first)["metrics"]) == 20


@pytest.mark.parametrize(
    "headers", [{"Content-Encoding": "gzip"}, {"Content-Type": "application/json"}, {"Content-Type": "text/plain"}]
)
@pytest.mark.parametrize(
    "pack", [gzip.compress, lambda data: gzip.compress(data[:9]) + gzip.compress(data[9:])], ids=["one", "two"]
)
def test_gzip_is_known_by_its_header_or_its_first_bytes(
    tracker: Any, server: Any, headers: dict[str, str], pack: Callable[[bytes], bytes]
) -> None:
    _, task = tracker.started()
    body = json.dumps(task.metrics(task.metric("m", value_float=float("nan")))).encode()
    assert b"NaN" in body

    answer = server.post("log_metrics", data=pack(body), headers=headers)

    assert answer.status_code == 200
    assert [point.value for point in tracker.history(task, "m")] == ["NaN"]


def test_bodies_of_gets_are_read_and_the_connection_is_kept(server: Any) -> None:
    host, port = server.url.removeprefix("http://").split(":")
    packed = gzip.compress(b"null")
    head = f"Host: {host}\r\nContent-Encoding: gzip\r\nContent-Length: {len(packed)}\r\n\r\n".encode()
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        stream = connection.makefile("rb")
        for path in ("/api/v1/auth/ping", "/api/v1/runs", "/no/such/page", "/api/v1/auth/ping"):
            connection.sendall(b"GET " + path.encode() + b" HTTP/1.1\r\n" + head)
            # Sent late, so that an answer given before the body was read would leave it on the connection.
            connection.sendall(packed)
            status = stream.readline()
            length = 0
            while (line := stream.readline()) != b"\r\n":
                if line.lower().startswith(b"content-length:"):
                    length = int(line.partition(b":")[2])
            body = stream.read(length)
            assert status.split()[1] == (b"404" if "no" in path else b"200"), (path, body)
        stream.close()


def test_methods_beside_those_of_the_routes(server: Any, make_run: Any) -> None:
    run = make_run()
    server.post("init_run", run.init())
    one = f"/api/v1/runs/{run.uid}"
    allowed = {
        "/": "GET, HEAD, OPTIONS",
        "/api/v1/tracking/init_run": "OPTIONS, POST",
        one: "DELETE, GET, HEAD, OPTIONS, PATCH",
    }
    for path, methods in allowed.items():
        answer = server.session.options(f"{server.url}{path}", timeout=30)
        assert (answer.status_code, answer.headers["Allow"], answer.content) == (204, methods, b"")
        refused = server.session.put(f"{server.url}{path}", json={}, timeout=30)
        assert (refused.status_code, refused.headers["Allow"]) == (405, methods)
    for path in ("/healthz", "/readyz", "/api/v1/auth/ping", "/api/v1/runs", one, "/", f"/api/v1/runs/{run.uid[:-1]}"):
        head, whole = server.session.head(f"{server.url}{path}", timeout=30), server.get(path)
        assert (head.status_code, head.content) == (whole.status_code, b"")
        assert head.headers["Content-Type"] == whole.headers["Content-Type"]
    assert server.session.head(f"{server.url}/api/v1/tracking/init_run", timeout=30).status_code == 405
    for method in ("OPTIONS", "HEAD"):
        assert server.session.request(method, f"{server.url}/no/such/page", timeout=30).status_code == 404
    assert server.get(one).ok, "the connection is out of step"


def test_the_login_of_clients_without_a_token(server: Any) -> None:
    assert server.get("/api/v1/auth/csrf").ok
    assert server.session.cookies.get("X-CSRF-TOKEN")
    login = requests.post(f"{server.url}/api/v1/auth/login", json={"username": "databand", "password": "x"}, timeout=10)
    assert (login.status_code, login.json()) == (200, {"status": "ok"})
    assert server.get("/api/v1/auth/ping").ok


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example:8080", "", "127.0.0.1.nip.io", "[::1"])
def test_other_hosts_are_refused(server: Any, host: str) -> None:
    answer = server.get("/api/v1/runs", headers={"Host": host})
    assert answer.status_code == 400


@pytest.mark.parametrize("host", ["localhost:8080", "127.0.0.1", "[::1]:8080", "LOCALHOST"])
def test_this_host_goes_by_several_names(server: Any, host: str) -> None:
    assert server.get("/api/v1/runs", headers={"Host": host}).ok


@pytest.mark.parametrize(
    ("data", "status", "sentence"),
    [
        (b"x" * 2001, 413, "The body of 2,001 bytes is larger than 2,000 bytes."),
        (gzip.compress(b" " * 200_001), 413, "The body is larger than 200,000 bytes after gunzip."),
        (gzip.compress(b"{}")[:-9], 400, "The body ends before its gzip does."),
        (b"\x1f\x8b nothing of the kind", 400, "The body says that it is gzip and is not"),
        (b'{"run_uid": ', 400, "The body of set_run_state is not JSON"),
        (b"[" * 1900, 400, "The body of set_run_state is not JSON"),
        (b"", 400, "The body of set_run_state is not JSON"),
        (b'{"run_uid": "x"}', 400, "wrong at run_uid: a uid of 32 hex digits is needed."),
    ],
    ids=["received", "unpacked", "cut gzip", "no gzip", "cut JSON", "deep JSON", "nothing", "no uid"],
)
def test_bodies_that_cannot_be_used_are_refused(
    tracker: Any, serve: Any, data: bytes, status: int, sentence: str
) -> None:
    settings = TrackerSettings(max_request_bytes=2000, max_unpacked_bytes=200_000)
    server = serve(tracker.database, settings=settings)
    answer = server.post("set_run_state", data=data)
    assert answer.status_code == status
    assert sentence in answer.json()["detail"]
    assert server.get("/api/v1/auth/ping").ok


def test_gunzip_never_makes_more_than_the_limit() -> None:
    bomb = gzip.compress(b"\0" * 50_000_000)
    with pytest.raises(HTTPException):
        gunzip(bomb, 1000)
    assert gunzip(gzip.compress(b"a" * 1000), 1000) == b"a" * 1000
    with pytest.raises(HTTPException):
        gunzip(gzip.compress(b"a") + b"rest", 1000)
    with pytest.raises(HTTPException):
        gunzip(zlib.compress(b"a"), 1000)
    # The sums at the end of gzip are checked.
    with pytest.raises(HTTPException):
        gunzip(gzip.compress(b"abc")[:-8] + struct.pack("<LL", 0, 3), 1000)


def test_batches_are_applied_once(tracker: Any, server: Any) -> None:
    _, task = tracker.started()
    header = {"X-Databand-Batch": f"{'0a' * 16}:1-3"}
    for _ in range(2):
        answer = server.post("log_metrics", task.floats("m", 3), headers=header)
        assert answer.json() == {}
        assert answer.headers["X-Databand-Applied"] == "3"
    assert len(tracker.history(task, "m")) == 3

    answer = server.post("log_metrics", task.floats("m", 4), headers={"X-Databand-Batch": f"{'0a' * 16}:3-6"})
    assert (answer.status_code, answer.headers["X-Databand-Applied"]) == (409, "3")
    malformed = server.post("log_metrics", task.floats("m", 1), headers={"X-Databand-Batch": "1-2"})
    assert malformed.status_code == 400
    assert "32 hex digits" in malformed.json()["detail"]
    assert len(tracker.history(task, "m")) == 3


def test_the_heartbeat_answers_a_bare_string(tracker: Any, server: Any) -> None:
    run, _ = tracker.started()
    assert server.post("heartbeat", {"run_uid": run.uid}).text == '"running"'


def test_who_asks_for_another_protocol_is_answered_and_not_logged(
    server: Any, caplog: pytest.LogCaptureFixture
) -> None:
    headers = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
    assert server.get("/api/v1/runs", headers=headers).status_code == 200
    assert caplog.records == []


def test_no_post_is_redirected(server: Any) -> None:
    answer = server.post("init_run/", {}, allow_redirects=False)
    assert answer.status_code in {404, 405}


def test_an_unknown_call_is_said(server: Any) -> None:
    assert server.post("log_thoughts", {}).status_code == 404


def test_a_database_that_is_locked_answers_503(
    sqlite_tracker: Any, serve: Any, make_run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dbnd_tracker._storage.sqlite import connection

    server = serve(sqlite_tracker.database)
    monkeypatch.setattr(connection, "BUSY_TIMEOUT_MS", 50)
    sqlite_tracker.database.close()  # new connections take the shorter time-out
    other = sqlite3.connect(sqlite_tracker.database.path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    answer = server.post("init_run", make_run().init())
    other.execute("ROLLBACK")
    other.close()
    assert answer.status_code == 503
    assert "locked" in answer.json()["detail"]
    assert server.post("init_run", make_run().init()).ok


def test_runs_are_listed_filtered_and_paged(tracker: Any, server: Any, make_run: Any) -> None:
    runs = [make_run(name=f"run_{i}", job="odd" if i % 2 else "even") for i in range(7)]
    for i, run in enumerate(runs):
        # Two runs at a time start in the same moment.
        tracker.call("init_run", run.init(start_time=f"2026-03-04T05:06:0{i // 2}+00:00"))
    tracker.call("set_run_state", runs[3].state("FAILED"))

    def names(**query: Any) -> list[str]:
        return [run["name"] for run in server.get("/api/v1/runs", params=query).json()["data"]]

    assert names() == [f"run_{i}" for i in reversed(range(7))]
    assert names(job="odd", limit=2) == ["run_5", "run_3"]
    assert names(state="failed") == names(state="FAILED") == ["run_3"]
    assert names(name="run_4") == ["run_4"]
    assert names(project="demo", user="ada", job="even") == ["run_6", "run_4", "run_2", "run_0"]
    assert names(user="nobody") == []
    assert names(filter=json.dumps([{"name": "uid", "op": "eq", "val": runs[2].uid}])) == ["run_2"]
    assert names(filter=json.dumps([{"name": "name", "op": "like", "val": "%_1"}])) == ["run_1"]

    found, after = [], None
    for _ in range(4):
        page = server.get("/api/v1/runs", params={"limit": 2, "after": after}).json()
        assert page["meta"]["total"] == 7
        found += [run["name"] for run in page["data"]]
        after = page["meta"]["after"]
    assert found == names()
    assert after is None


@pytest.mark.parametrize(
    ("query", "status", "sentence"),
    [
        ({"filter": "x"}, 400, "is not of the form"),
        ({"filter": '[{"name": "shoe_size", "op": "eq", "val": 1}]'}, 400, "runs have no 'shoe_size'"),
        ({"filter": '[{"name": "uid", "op": "near", "val": 1}]'}, 400, "an operator is expected here"),
        ({"filter": json.dumps([{"name": "uid", "val": "x"}] * 101)}, 400, "more than 100 comparisons"),
        ({"after": "x"}, 400, "The cursor 'x' is not the uid of a run."),
        ({"limit": "0"}, 422, "The query parameter limit is wrong"),
    ],
)
def test_questions_that_cannot_be_answered_are_refused(server: Any, query: Any, status: int, sentence: str) -> None:
    answer = server.get("/api/v1/runs", params=query)
    assert answer.status_code == status
    assert sentence in answer.json()["detail"]


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/api/v1/runs", "name"),
        ("/api/v1/jobs", "name"),
        ("/api/v1/metrics/for_alerts", "run_uid"),
        ("/api/client/v1/run_info", "run_uid"),
        ("/api/client/v1/task_run_info", "task_af_id"),
    ],
)
def test_half_characters_are_no_errors_of_the_server(server: Any, path: str, name: str) -> None:
    answer = server.get(path, params={"filter": json.dumps([{"name": name, "op": "eq", "val": "\ud800"}])})
    assert answer.status_code == 400 or answer.json()["data"] == []
    assert answer.status_code < 500


def test_a_run_and_its_parts_are_read(tracker: Any, server: Any) -> None:
    run, task = tracker.started()
    tracker.call("log_metrics", task.metrics(task.metric("loss", value_float=float("inf"), step=4)))
    tracker.call("save_task_run_log", {"task_run_attempt_uid": task.attempt, "log_body": "a\r\nb"})

    detail = server.get(f"/api/v1/runs/{run.uid}").json()
    metrics = server.get(f"/api/v1/task-runs/{task.uid}/metrics").json()["data"]

    assert detail["start_time"] == "2026-03-04T05:06:07.000008+00:00"
    assert [t["name"] for t in detail["task_runs"]] == ["nightly", "train"]
    assert detail["task_runs"][1]["metrics"] == metrics
    assert metrics == [
        {
            "key": "loss",
            "source": "user",
            "points": 1,
            "type": "float",
            "last_value": "Infinity",
            "last_step": 4,
            "last_timestamp": 1772600767000,
            "min": "Infinity",
            "max": "Infinity",
        }
    ]
    log = server.get(f"/api/v1/task-runs/{task.uid}/log").json()
    assert log == {"task_run_uid": task.uid, "log_body": "a\r\nb"}
    for path in (f"runs/{task.uid}", f"task-runs/{run.uid}/log"):
        answer = server.get(f"/api/v1/{path}")
        assert answer.status_code == 404
        assert "There is no " in answer.json()["detail"]


def test_every_route_is_documented(server: Any) -> None:
    paths = server.get("/openapi.json").json()["paths"]
    assert paths["/api/v1/tracking/log_metrics"]["post"]["summary"].startswith("log_metrics: ")
    assert "/api/v1/task-runs/{task_run_uid}/metrics/history" in paths


def test_a_port_in_use_is_said() -> None:
    from dbnd._base.errors import ConfigError

    with listen("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        with pytest.raises(ConfigError, match=f"The port {port} of 127.0.0.1 is in use"):
            listen("127.0.0.1", port)
        # asyncio switches off Nagle's algorithm only on sockets that name their protocol.
        assert first.proto == socket.IPPROTO_TCP


def test_an_address_of_another_machine_is_said() -> None:
    from dbnd._base.errors import ConfigError

    with pytest.raises(ConfigError, match=r"cannot listen on 192\.0\.2\.1:0"):
        listen("192.0.2.1", 0)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("db.corp", False),
    ],
)
def test_what_only_this_machine_reaches(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected
