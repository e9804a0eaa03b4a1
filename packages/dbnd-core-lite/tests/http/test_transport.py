from __future__ import annotations

import re
import socket
import threading
import time
import uuid
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime

import pytest

from dbnd._config.settings import CoreSettings
from dbnd._context.registry import load_config
from dbnd._http.transport import HttpTransport
from dbnd._model.wire import PROTOCOL_VERSION
from dbnd._tracking.contracts import (
    AccessError,
    Batch,
    BusyError,
    PartlyAppliedError,
    RefusedError,
    TooLargeError,
    TransportError,
    UnreachableError,
)

BATCH = Batch("log_metrics", {"metrics_info": [{"value": float("nan")}]}, "ab" * 16, 3, 7)


def transport(url, **core):
    return HttpTransport(url, load_config(conf={"core": core}).settings(CoreSettings))


def test_headers_are_those_of_the_protocol(server):
    transport(f"{server.url}/sub", databand_access_token="t0ken", extra_default_headers={"X-Team": "a"}).send(BATCH)
    (request,) = server.requests
    assert (request.method, request.path) == ("POST", "/api/v1/tracking/log_metrics")
    headers = {name.lower(): value for name, value in request.headers.items()}
    assert headers["accept"] == headers["content-type"] == "application/json"
    assert headers["content-encoding"] == "gzip"
    assert headers["x-databand-version"] == PROTOCOL_VERSION
    assert headers["authorization"] == "Bearer t0ken"
    assert headers["x-team"] == "a"
    assert re.fullmatch("[0-9a-f]{32}", headers["x-request-id"])
    assert re.fullmatch("[0-9a-f]{32}", headers["x-databand-trace-id"])
    assert headers["x-databand-batch"] == f"{'ab' * 16}:3-7"
    assert headers["user-agent"].startswith("dbnd-core-lite/")
    assert str(request.body["metrics_info"][0]["value"]) == "nan"


def test_request_ids_differ_and_the_trace_id_stays(server):
    sending = transport(server.url, databand_access_token="t")
    sending.send(BATCH)
    sending.send(BATCH)
    first, second = (request.headers for request in server.requests)
    assert first["X-Request-ID"] != second["X-Request-ID"]
    assert first["X-Databand-Trace-ID"] == second["X-Databand-Trace-ID"]


def test_without_a_token_the_client_logs_in_and_sends_the_csrf_token(server):
    def answer(request):
        cookie = {"Set-Cookie": "X-CSRF-TOKEN=c5rf; Path=/"} if request.path.endswith("csrf") else {}
        return 200, cookie, b"{}"

    server.answer = answer
    sending = transport(server.url, dbnd_user="u", dbnd_password="p")
    sending.send(BATCH)
    sending.send(BATCH)
    assert [r.path for r in server.requests] == [
        "/api/v1/auth/csrf",
        "/api/v1/auth/login",
        "/api/v1/tracking/log_metrics",
        "/api/v1/tracking/log_metrics",
    ]
    assert server.requests[1].body == {"username": "u", "password": "p"}
    for request in server.requests[1:]:
        assert request.headers["X-CSRFToken"] == "c5rf"
        assert "X-CSRF-TOKEN=c5rf" in request.headers["Cookie"]


def test_a_cookie_that_cannot_be_sent_is_not_kept(server):
    server.answer = lambda _: (200, {"Set-Cookie": "a=\xe9" if len(server.requests) == 1 else "b=1; Path=/"}, b"{}")
    sending = transport(server.url, databand_access_token="t")
    for _ in range(3):
        sending.send(BATCH)
    assert [request.headers.get("Cookie") for request in server.requests] == [None, None, "b=1"]


def test_a_refused_login_is_trouble_that_names_the_key(server):
    server.answer = lambda _: (404, {}, b"")
    with pytest.raises(UnreachableError, match=r"its login answered 404; set core\.databand_access_token"):
        transport(server.url).send(BATCH)


@pytest.mark.parametrize(("status", "kind"), [(400, "application/json"), (200, "text/html")])
def test_a_token_that_a_server_repeats_is_not_said(server, status, kind):
    server.answer = lambda request: (status, {"Content-Type": kind}, str(dict(request.headers)).encode())
    with pytest.raises(TransportError) as caught:
        transport(server.url, databand_access_token="hunter2").send(BATCH)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("status", "headers", "error", "text"),
    [
        (400, {}, RefusedError, "it answered 400: nonsense"),
        (401, {}, AccessError, "refuses the credentials of core.databand_access_token"),
        (403, {}, AccessError, "refuses the credentials"),
        (408, {}, BusyError, "it answered 408"),
        (413, {}, TooLargeError, "413"),
        (429, {"Retry-After": "7"}, BusyError, "it answered 429"),
        (500, {}, BusyError, "it answered 500"),
        (502, {}, BusyError, "it answered 502"),
        (302, {"Location": "https://elsewhere/"}, UnreachableError, "it redirects to https://elsewhere/"),
        (409, {"X-Databand-Applied": "5"}, PartlyAppliedError, "events up to 5"),
        (409, {}, RefusedError, "it answered 409"),
    ],
)
def test_statuses_tell_what_to_do(server, status, headers, error, text):
    server.answer = lambda _: (status, headers, b"nonsense")
    with pytest.raises(error, match=text) as caught:
        transport(server.url, databand_access_token="t").send(BATCH)
    assert type(caught.value) is error
    if status == 429:
        assert caught.value.retry_after == 7
    if status == 409 and headers:
        assert caught.value.last == 5


def test_nobody_listening_is_trouble_with_its_reason(free_port):
    with pytest.raises(UnreachableError, match=r"no connection: .*refused"):
        transport(f"http://127.0.0.1:{free_port}").send(BATCH)


def test_a_password_in_the_url_is_not_sent_in_it(server):
    url = server.url.replace("http://", "http://user:hunter2@")
    transport(url, databand_access_token="t").send(BATCH)
    assert server.requests[0].headers["Authorization"] == "Bearer t"


GROUPS = [["0" * 32, "user", ["loss", 0.5, 1_700_000_000_000_000, 3, None]]]
POINTS = Batch("log_metrics", GROUPS, "ab" * 16, 1, 1)
OURS = {"X-Databand-Points": "1"}


def forms(server):
    return ["points" if "points" in r.body else "protocol" for r in server.requests if r.path.endswith("log_metrics")]


def test_a_foreign_server_always_gets_the_form_of_the_protocol(server):
    sending = transport(server.url, databand_access_token="t")
    for _ in range(3):
        sending.send(POINTS)
    assert forms(server) == ["protocol"] * 3
    assert all("X-Databand-Points" not in r.headers for r in server.requests)


def test_a_server_that_says_so_gets_points_as_the_journal_has_them(server):
    server.answer = lambda _: (200, OURS, b"{}")
    sending = transport(server.url, databand_access_token="t")
    sending.send(POINTS)
    sending.send(POINTS)
    sending.send(BATCH)  # a body of the protocol stays one
    assert forms(server) == ["protocol", "points", "protocol"]
    compact = server.requests[1]
    assert compact.body == {"points": GROUPS}
    assert compact.headers["X-Databand-Points"] == "1"
    assert compact.headers["X-Databand-Batch"] == f"{'ab' * 16}:1-1"


def test_the_login_says_it_too(server):
    server.answer = lambda r: (200, OURS if "auth" in r.path else {}, b"{}")
    transport(server.url).send(POINTS)
    assert forms(server) == ["points"]


def test_a_new_session_finds_it_out_anew(server):
    server.answer = lambda _: (200, OURS, b"{}")
    sending = transport(server.url, databand_access_token="t")
    sending.send(POINTS)
    sending.close()
    sending.send(POINTS)
    assert forms(server) == ["protocol", "protocol"]


@pytest.mark.parametrize("status", [400, 415, 422])
def test_a_server_that_does_not_know_points_after_all_gets_the_form_of_the_protocol(server, status):
    """Behind one address there may be servers of two versions."""
    server.answer = lambda r: (status, {}, b"") if "points" in r.body else (200, OURS, b"{}")
    sending = transport(server.url, databand_access_token="t")
    sending.send(POINTS)
    sending.send(POINTS)
    assert forms(server) == ["protocol", "points", "protocol"]


def test_points_that_are_too_large_are_not_sent_again_in_a_larger_form(server):
    server.answer = lambda r: (413, {}, b"") if "points" in r.body else (200, OURS, b"{}")
    sending = transport(server.url, databand_access_token="t")
    sending.send(POINTS)
    with pytest.raises(TooLargeError):
        sending.send(POINTS)
    assert forms(server) == ["protocol", "points"]


@pytest.mark.parametrize(
    ("text", "least", "most"),
    [
        ("7", 7, 7),
        ("0", 0, 0),
        ("-3", 0, 0),
        ("1e9", 3600, 3600),
        ("Tue, 01 Jan 2999 00:00:00 GMT", 3600, 3600),
        ("Tue, 01 Jan 2019 00:00:00 GMT", 0, 0),
        ("Tue, 01 Jan 2019 00:00:00", 0, 0),
        ("Tue, 01 Jan 2019 00:00:00 +99999999999999999999", None, None),
        ("soon", None, None),
        ("nan", None, None),
    ],
)
def test_retry_after_is_a_number_or_a_date(server, text, least, most):
    server.answer = lambda _: (429, {"Retry-After": text}, b"")
    with pytest.raises(BusyError) as caught:
        transport(server.url, databand_access_token="t").send(BATCH)
    asked = caught.value.retry_after
    assert asked is None if least is None else least <= asked <= most


def test_a_date_to_come_back_is_so_many_seconds_away(server):
    when = format_datetime(datetime.now(timezone.utc) + timedelta(seconds=1000), usegmt=True)
    server.answer = lambda _: (503, {"Retry-After": when}, b"")
    with pytest.raises(BusyError) as caught:
        transport(server.url, databand_access_token="t").send(BATCH)
    assert 0 < caught.value.retry_after <= 1000


@pytest.fixture
def cutting_server():
    """A server that takes each connection and ends it without an answer."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve():
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(1)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        listening.shutdown(socket.SHUT_RDWR)
    thread.join(60)


def test_a_connection_that_breaks_is_trouble_of_a_tracker_that_is_there(cutting_server):
    with pytest.raises(BusyError, match="the connection broke"):
        transport(cutting_server, databand_access_token="t").send(BATCH)


def test_no_request_goes_on_beyond_the_deadline(server):
    release = threading.Event()
    server.answer = lambda _: (release.wait(60), (200, {}, b"{}"))[1]
    sending = transport(server.url, databand_access_token="t")
    sending.deadline = time.monotonic() + 0.3
    with pytest.raises(BusyError, match="no answer within"):
        sending.send(BATCH)
    release.set()


@pytest.mark.parametrize(("answer", "state"), [(b'"shutdown"', "shutdown"), (b"{}", None), (b"7", None)])
def test_a_heartbeat_brings_the_state_of_the_run(server, answer, state):
    server.answer = lambda _: (200, {}, answer)
    assert transport(server.url, databand_access_token="t").heartbeat("run") == state
    (request,) = server.requests
    assert (request.path, request.body) == ("/api/v1/tracking/heartbeat", {"run_uid": "run"})


def test_what_a_tracker_drops_for_deleted_runs_is_told(server):
    run, other = str(uuid.uuid4()), str(uuid.uuid4())
    dropped = {"X-Databand-Dropped": f"{run}=3,{other}=1"}
    server.answer = lambda _: (200, dropped, b"{}")
    assert transport(server.url, databand_access_token="t").send(BATCH) == {run: 3, other: 1}
    dropped["X-Databand-Dropped"] = "nonsense"
    assert transport(server.url, databand_access_token="t").send(BATCH) == {}
