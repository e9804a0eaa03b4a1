"""What comes before a request is worked on: who asks, how large it is, how long it takes to come."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests
from starlette.exceptions import HTTPException

from dbnd_tracker._errors import StorageError
from dbnd_tracker._middleware import answers, bodies, limits
from dbnd_tracker._middleware.bodies import gunzip
from dbnd_tracker._middleware.limits import TimeoutMiddleware
from dbnd_tracker._server.connections import _RESERVE, ConnectionLimits
from dbnd_tracker._settings import TrackerSettings
from dbnd_tracker._storage.writer import DEADLINE

_TRACKING = "/api/v1/tracking/log_metrics"


class Raw:
    """A connection to a server, on which a test says each byte."""

    def __init__(self, url: str) -> None:
        host, _, port = url.removeprefix("http://").partition(":")
        self.socket = socket.create_connection((host, int(port)), timeout=30)
        self._stream = self.socket.makefile("rb")

    def head(self, line: str, *headers: str) -> None:
        self.socket.sendall("\r\n".join((f"{line} HTTP/1.1", "Host: localhost", *headers, "", "")).encode())

    def answer(self) -> tuple[int, dict[str, str], bytes]:
        """The next answer; the status is 0 when the server has closed the connection."""
        line = self._stream.readline()
        if not line:
            return 0, {}, b""
        headers = {}
        while (row := self._stream.readline()) != b"\r\n":
            name, _, value = row.decode().partition(":")
            headers[name.lower()] = value.strip()
        body = self._stream.read(int(headers.get("content-length", 0)))
        return int(line.split()[1]), headers, body

    def is_closed(self) -> bool:
        """Wait for the server to close the connection."""
        try:
            return self._stream.read(1) == b""
        except ConnectionResetError:
            return True

    def rest(self) -> bytes:
        """What the server sends until it closes the connection."""
        return self._stream.read()

    def close(self) -> None:
        self._stream.close()
        self.socket.close()


@pytest.fixture
def connect() -> Iterator[Callable[[Any], Raw]]:
    with contextlib.ExitStack() as stack:

        def make(server: Any) -> Raw:
            made = Raw(server.url)
            stack.callback(made.close)
            return made

        yield make


@pytest.fixture(scope="module")
def guarded(serve_all: Any) -> Any:
    return serve_all(token="right")


@pytest.fixture(scope="module")
def plain(serve_all: Any) -> Any:
    return serve_all()


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        (_TRACKING, ["Content-Length: 50000000"], 401),
        (_TRACKING, ["Authorization: Bearer wrong", "Content-Length: 50000000", "Content-Encoding: gzip"], 401),
        (_TRACKING, ["Transfer-Encoding: chunked"], 401),
        (_TRACKING, ["Cookie: databand_session=x", "Content-Length: 50000000"], 401),
        ("/api/v1/runs/stop", ["Content-Length: 50000000"], 401),
        # Those that need no token take little.
        ("/api/v1/auth/login", ["Content-Length: 50000000", "Content-Encoding: gzip"], 413),
        ("/login", ["Content-Length: 50000000"], 413),
        ("/healthz", ["Content-Length: 50000000"], 413),
    ],
)
def test_a_stranger_is_refused_before_the_body_has_come(
    guarded: Any, connect: Any, path: str, headers: list[str], status: int
) -> None:
    connection = connect(guarded)
    connection.head(f"POST {path}", *headers)
    found, given, _ = connection.answer()  # not a byte of the body was sent
    assert (found, given["connection"]) == (status, "close")
    connection.socket.shutdown(socket.SHUT_WR)
    assert connection.is_closed()


def test_another_host_is_refused_before_the_body_has_come(plain: Any, connect: Any) -> None:
    connection = connect(plain)
    connection.socket.sendall(b"POST / HTTP/1.1\r\nHost: evil.example\r\nContent-Length: 50000000\r\n\r\n")
    assert connection.answer()[0] == 400


def test_a_refused_client_that_goes_on_to_send_hears_its_answer(guarded: Any) -> None:
    body = gzip.compress(json.dumps({"log_body": "x" * 100_000}).encode(), compresslevel=0) * 100
    for _ in range(2):
        answer = guarded.post("log_metrics", data=body, headers={"Authorization": "Bearer wrong"})
        assert answer.status_code == 401


def test_a_refused_client_that_drips_is_left(sqlite_tracker: Any, serve: Any, connect: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(bodies, "_PATIENCE", 0.3)
    connection = connect(serve(sqlite_tracker.database, token="right"))
    connection.head(f"POST {_TRACKING}", "Content-Length: 50000000")
    assert connection.answer()[0] == 401
    with contextlib.suppress(ConnectionError):
        for _ in range(1000):
            connection.socket.sendall(b"x")
            time.sleep(0.01)
        pytest.fail("the server still listens")


def test_a_small_body_that_nobody_reads_keeps_the_connection(guarded: Any, connect: Any) -> None:
    packed = gzip.compress(b"null")
    connection = connect(guarded)
    for path, status in (("/api/v1/runs", 401), ("/healthz", 200), ("/no/such/page", 401), ("/healthz", 200)):
        connection.head(f"GET {path}", f"Content-Length: {len(packed)}", "Content-Encoding: gzip")
        connection.socket.sendall(packed)
        found, headers, _ = connection.answer()
        assert (found, headers.get("connection")) == (status, None)


@pytest.mark.parametrize("token", ["right", "wrong"])
def test_a_client_that_waits_to_be_asked_for_its_body(guarded: Any, connect: Any, token: str) -> None:
    connection = connect(guarded)
    connection.head(f"POST {_TRACKING}", f"Authorization: Bearer {token}", "Content-Length: 20", "Expect: 100-continue")
    status, headers, _ = connection.answer()
    if token == "right":
        assert status == 100
        connection.socket.sendall(b'{"metrics_info": []}')
        assert connection.answer()[0] == 200
    else:
        assert (status, headers["connection"]) == (401, "close")
        assert connection.is_closed()


@pytest.mark.parametrize(
    ("headers", "statuses"),
    [
        (["Content-Length: 5", "Transfer-Encoding: chunked"], {400}),
        (["Content-Length: 5", "Content-Length: 6"], {400}),
        (["Content-Length: 5, 6"], {400}),
        (["Content-Length: -1"], {400}),
        (["Content-Length: 0x5"], {400}),
        (["Transfer-Encoding: gzip, chunked"], {400, 501}),
        (["Transfer-Encoding: identity"], {400, 501}),
        (["Host: localhost"], {400}),
        (["Authorization: Bearer right", "Authorization: Bearer wrong"], {400}),
        (["X-Databand-Batch: a", "X-Databand-Batch: b"], {400}),
        (["X-Long: " + "x" * 1_000_000], {400, 431}),
        ([f"X-{n}: x" for n in range(20_000)], {400, 431}),
    ],
)
def test_a_head_that_can_be_understood_in_two_ways_is_refused(
    plain: Any, connect: Any, headers: list[str], statuses: set[int]
) -> None:
    connection = connect(plain)
    with contextlib.suppress(ConnectionError):  # it may be closed before all of a huge head is sent
        connection.head(f"POST {_TRACKING}", *headers)
        connection.socket.sendall(b"0\r\n\r\nGET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        status, given, _ = connection.answer()
        assert status in statuses
        assert given["connection"] == "close"
        assert b"HTTP/1.1" not in connection.rest(), "what follows was taken for a request"


@pytest.mark.parametrize("address", ["/api/v1/runs/a%00b", "/app/points.csv?task=x&key=%00", "/?sort=metrics.%00"])
def test_an_address_with_a_nul_is_refused(plain: Any, address: str) -> None:
    """PostgreSQL takes none, also where the answer has begun already."""
    answer = plain.get(address)
    assert (answer.status_code, "NUL" in answer.json()["detail"]) == (400, True)


@pytest.mark.parametrize("encoding", ["deflate", "br", "zstd", "gzip, gzip", "gzip, br", "compress"])
def test_other_encodings_than_gzip_are_refused(plain: Any, encoding: str) -> None:
    answer = plain.post("log_metrics", data=b"x", headers={"Content-Encoding": encoding})
    assert (answer.status_code, answer.headers["Accept-Encoding"]) == (415, "gzip")
    assert "this tracker knows gzip alone" in answer.json()["detail"]


@pytest.mark.parametrize("encoding", ["x-gzip", "GZIP", "identity, gzip", "identity", ""])
def test_names_of_gzip_and_of_nothing_are_known(plain: Any, encoding: str) -> None:
    body = b'{"metrics_info": []}'
    data = gzip.compress(body) if "gzip" in encoding.lower() else body
    assert plain.post("log_metrics", data=data, headers={"Content-Encoding": encoding}).status_code == 200


def test_a_gzip_of_nothing_at_all_is_nothing(plain: Any) -> None:
    answer = plain.post("auth/login", data=b"", headers={"Content-Encoding": "gzip"})
    assert answer.status_code == 200


def test_a_gzip_of_gzip_is_no_json(plain: Any) -> None:
    data = gzip.compress(gzip.compress(b'{"metrics_info": []}'))
    assert plain.post("log_metrics", data=data, headers={"Content-Encoding": "gzip"}).status_code == 400


def test_chunked_bodies_are_read_and_bounded(sqlite_tracker: Any, serve: Any) -> None:
    server = serve(sqlite_tracker.database, settings=TrackerSettings(max_request_bytes=5000))
    assert server.post("log_metrics", data=iter([b'{"metrics_', b'info": []}'])).status_code == 200
    assert server.post("log_metrics", data=(b" " * 1000 for _ in range(6))).status_code == 413
    assert server.get("/healthz").ok


def test_very_many_members_of_gzip_are_refused_at_once() -> None:
    empty = gzip.compress(b"", mtime=0)
    with pytest.raises(HTTPException, match="more than 16 members"):
        gunzip(empty * 200_000, 1 << 20)
    assert gunzip(empty * 15 + gzip.compress(b"x"), 1 << 20) == b"x"


def test_a_body_that_grows_more_than_data_does_is_refused() -> None:
    with pytest.raises(HTTPException, match="250 times its size"):
        gunzip(gzip.compress(b"\0" * (40 << 20)), 1 << 30)
    # A log of few lines, repeated, is data.
    assert len(gunzip(gzip.compress(b"epoch 1: nothing new\n" * 500_000), 1 << 30)) == 10_500_000


def test_a_gzip_that_lies_about_its_size_is_bounded(plain: Any) -> None:
    packed = bytearray(gzip.compress(b" " * 3_000_000 + b'{"metrics_info": []}'))
    assert plain.post("log_metrics", data=bytes(packed)).status_code == 200
    packed[-4:] = b"\x01\0\0\0"
    assert plain.post("log_metrics", data=bytes(packed)).status_code == 400


def _empty_blocks() -> bytes:
    """A gzip of nothing that is long: it yields no byte that a limit could count."""
    blocks = b"\0\0\0\xff\xff" * 6_000_000
    return b"\x1f\x8b\x08" + b"\0" * 7 + blocks + b"\x01\0\0\xff\xff" + b"\0" * 8


@pytest.mark.parametrize(
    "worst",
    [
        lambda: gzip.compress(b"\0" * (60 << 20), compresslevel=1),
        _empty_blocks,
        lambda: gzip.compress(b"[" + b"{}," * 10_000_000 + b"0]", compresslevel=1),
        lambda: b'{"metrics_info": [' + b"0," * 10_000_000 + b"0]}",
    ],
    ids=["bomb", "empty blocks", "values", "plain values"],
)
def test_others_are_answered_while_the_worst_body_is_worked_on(plain: Any, worst: Callable[[], bytes]) -> None:
    body = worst()
    latencies: list[float] = []
    asks, done = threading.Event(), threading.Event()

    def ask() -> None:
        with requests.Session() as session:
            assert session.get(f"{plain.url}/healthz", timeout=60).ok
            asks.set()
            while not done.is_set():
                started = time.perf_counter()
                assert session.get(f"{plain.url}/healthz", timeout=60).ok
                latencies.append(time.perf_counter() - started)

    asker = threading.Thread(target=ask)
    asker.start()
    assert asks.wait(60)
    started = time.perf_counter()
    answer = plain.post("log_metrics", data=body, headers={"Content-Encoding": "gzip"} if body[:1] != b"{" else {})
    took = time.perf_counter() - started
    done.set()
    asker.join()
    assert answer.status_code in {400, 413}
    assert max(latencies) < max(1.5, 0.7 * took), (max(latencies), took)


def test_calls_and_health_do_not_wait_for_those_who_read(
    sqlite_tracker: Any, serve: Any, make_run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve(sqlite_tracker.database)
    reading, go = threading.Semaphore(0), threading.Event()
    read = sqlite_tracker.database.read

    def slow() -> Any:
        reading.release()
        assert go.wait(60)
        return read()

    monkeypatch.setattr(sqlite_tracker.database, "read", slow)
    readers = [threading.Thread(target=requests.get, args=(f"{server.url}/api/v1/runs",)) for _ in range(50)]
    for reader in readers:
        reader.start()
    for _ in range(40):  # as many threads as there are for all of them
        assert reading.acquire(timeout=60)
    try:
        assert server.get("/healthz").ok
        assert server.post("init_run", make_run().init()).ok
    finally:
        go.set()
        for reader in readers:
            reader.join()


def test_what_takes_too_long_is_not_committed_later(sqlite_tracker: Any) -> None:
    go, working = threading.Event(), threading.Event()
    outcome: list[object] = []

    def work(_: Any) -> None:
        working.set()
        assert go.wait(60)

    def write() -> None:
        try:
            sqlite_tracker.database.write(work)
        except StorageError as error:
            outcome.append(str(error))

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.to_thread(write)

    async def send(message: Any) -> None:
        pytest.fail(f"it was answered: {message}")

    async def receive() -> Any:
        return {"type": "http.request", "body": b""}

    async def scenario() -> None:
        with pytest.raises(HTTPException, match=r"503: .* and nothing of it was applied"):
            await TimeoutMiddleware(app, 0.2)({"type": "http", "headers": []}, receive, send)
        assert working.is_set()
        go.set()

    asyncio.run(scenario())  # waits for its threads
    assert "nothing was written" in str(outcome[0])


def test_a_commit_that_has_begun_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def scenario(seconds: float) -> None:
        gate = asyncio.Event()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            deadline = DEADLINE.get()
            assert deadline
            assert deadline.begin_commit()
            await gate.wait()
            await send({"type": "http.response.start", "status": 200, "headers": []})

        monkeypatch.setattr(limits, "_COMMIT", seconds)
        asyncio.get_running_loop().call_later(0.2, gate.set)
        await TimeoutMiddleware(app, 0.05)({"type": "http", "headers": []}, None, send)  # type: ignore[arg-type]

    asyncio.run(scenario(60))
    assert sent.pop()["status"] == 200
    with pytest.raises(HTTPException, match=r"503: .* has not said yet whether it is applied"):
        asyncio.run(scenario(0.05))


def test_a_body_that_drips_is_answered_408_and_not_applied(sqlite_tracker: Any, serve: Any, connect: Any) -> None:
    server = serve(sqlite_tracker.database, settings=TrackerSettings(request_timeout_s=0.3))
    connection = connect(server)
    connection.head(f"POST {_TRACKING}", "Content-Length: 20")
    connection.socket.sendall(b'{"metrics_')
    status, headers, body = connection.answer()
    assert (status, headers["connection"]) == (408, "close")
    assert b"nothing of it was applied" in body
    assert server.get("/healthz").ok


@pytest.fixture
def limited(sqlite_tracker: Any, serve: Any) -> Callable[..., Any]:
    """Starts a server whose clients have little time."""

    def start(settings: TrackerSettings | None = None, **limits: Any) -> Any:
        return serve(sqlite_tracker.database, settings=settings, limits=ConnectionLimits(**limits))

    return start


@pytest.mark.parametrize("sent", [b"", b"GET /heal", b"GET /healthz HTTP/1.1\r\nHost: local"])
def test_a_head_that_does_not_end_is_not_waited_for(limited: Any, connect: Any, sent: bytes) -> None:
    server = limited(head_s=0.3)
    connections = [connect(server) for _ in range(20)]
    for connection in connections:
        connection.socket.sendall(sent)
    assert all(connection.is_closed() for connection in connections)
    assert server.get("/healthz").ok


def test_a_head_that_drips_is_not_waited_for(limited: Any, connect: Any) -> None:
    connection = connect(limited(head_s=0.3))
    connection.head("GET /healthz")  # also one that comes later on a connection
    assert connection.answer()[0] == 200
    with contextlib.suppress(ConnectionError):
        connection.socket.sendall(b"GET /healthz HTTP/1.1\r\nX: ")
        for _ in range(1000):
            connection.socket.sendall(b"x")
            time.sleep(0.01)
        pytest.fail("the server still listens")


def test_an_idle_connection_is_closed(limited: Any, connect: Any) -> None:
    connection = connect(limited(idle_s=1, head_s=60))
    connection.head("GET /healthz")
    assert connection.answer()[0] == 200
    assert connection.is_closed()


def test_an_answer_that_nobody_takes_is_not_kept(limited: Any, connect: Any) -> None:
    connection = connect(limited(stalled_s=0.3, head_s=60))
    connection.socket.settimeout(60)
    with contextlib.suppress(ConnectionError):
        while True:  # until the answers, which are never read, fill all buffers, and the server leaves
            connection.head("GET /openapi.json")


def _with_log(tracker: Any, size: int) -> str:
    """The address of a log of so many bytes."""
    _, task = tracker.started()
    tracker.call("save_task_run_log", {"task_run_attempt_uid": task.attempt, "log_body": "x" * size})
    return f"/app/logs/{task.uid}"


def test_a_client_that_takes_an_answer_slowly_gets_all_of_it(sqlite_tracker: Any, limited: Any, connect: Any) -> None:
    size = 16 << 20
    address = _with_log(sqlite_tracker, size)
    connection = connect(limited(stalled_s=1))
    connection.head(f"GET {address}", "Connection: close")
    taken, begin, rate = 0, time.monotonic(), 4 << 20
    while part := connection.socket.recv(1 << 16):
        taken += len(part)
        if taken < 3 * rate:  # some times the time without progress; a machine that stood still is made up for
            time.sleep(max(0, begin + taken / rate - time.monotonic()))
    assert taken > size


def test_large_answers_that_nobody_takes_are_not_kept_for_all(
    sqlite_tracker: Any, limited: Any, connect: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "_MOST_KEPT", 50 << 20)
    address = _with_log(sqlite_tracker, 20 << 20)
    server = limited(stalled_s=60)
    waiting = [connect(server) for _ in range(2)]
    for connection in waiting:
        connection.head(f"GET {address}")
        connection.socket.recv(1)
    refused = server.get(address)
    assert (refused.status_code, refused.headers["Retry-After"]) == (503, "5")
    assert server.get("/").ok
    for connection in waiting:
        connection.close()
    deadline = time.monotonic() + 30
    while not server.get(address).ok:
        assert time.monotonic() < deadline


def test_connections_without_a_request_make_room(limited: Any, connect: Any) -> None:
    server = limited(most=5, head_s=60)
    held = [connect(server) for _ in range(5 + _RESERVE + 20)]
    assert server.get("/healthz").ok
    assert held[0].is_closed()
    held[-1].head("GET /healthz")
    assert held[-1].answer()[0] == 200


def test_too_many_requests_under_way_leave_the_health_to_be_asked(limited: Any, connect: Any) -> None:
    server = limited(TrackerSettings(max_connections=2))
    held = [connect(server) for _ in range(2)]
    for connection in held:
        connection.head(f"POST {_TRACKING}", "Content-Length: 20")
    deadline = time.monotonic() + 60
    while server.get("/readyz").status_code != 503:
        assert time.monotonic() < deadline
    refused = server.get("/api/v1/runs")
    assert (refused.status_code, refused.headers["Retry-After"]) == (503, "1")
    assert "tracker.max_connections" in refused.json()["detail"]
    assert server.get("/healthz").ok
    held[0].socket.sendall(b'{"metrics_info": []}')
    assert held[0].answer()[0] == 200


def test_a_process_keeps_files_for_other_things_than_connections() -> None:
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (256, 400));"
        "from dbnd_tracker._server.connections import allow_files;"
        "print(allow_files(100), allow_files(1000), resource.getrlimit(resource.RLIMIT_NOFILE)[0])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["100", "240", "400"]
