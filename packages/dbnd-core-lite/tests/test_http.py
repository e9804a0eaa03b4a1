from __future__ import annotations

import re

import pytest

from dbnd._config import Config
from dbnd._settings import CoreSettings
from dbnd._tracking.http import HttpTransport
from dbnd._tracking.transport import (
    AccessError,
    Batch,
    BusyError,
    PartlyAppliedError,
    RefusedError,
    TooLargeError,
    UnreachableError,
)
from dbnd._tracking.wire import PROTOCOL_VERSION

BATCH = Batch("log_metrics", {"metrics_info": [{"value": float("nan")}]}, "ab" * 16, 3, 7)


def transport(url, **core):
    return HttpTransport(url, Config.load(conf={"core": core}).settings(CoreSettings))


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


def test_a_refused_login_is_trouble_that_names_the_key(server):
    server.answer = lambda _: (404, {}, b"")
    with pytest.raises(UnreachableError, match=r"its login answered 404; set core\.databand_access_token"):
        transport(server.url).send(BATCH)


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


def test_success_is_whatever_the_body_says(server):
    server.answer = lambda _: (200, {}, b"<html>not json</html>")
    transport(server.url, databand_access_token="t").send(BATCH)
    assert len(server.requests) == 1


def test_nobody_listening_is_trouble_with_its_reason(free_port):
    with pytest.raises(UnreachableError, match=r"no connection: .*refused"):
        transport(f"http://127.0.0.1:{free_port}").send(BATCH)


def test_a_password_in_the_url_is_not_sent_in_it(server):
    url = server.url.replace("http://", "http://user:hunter2@")
    transport(url, databand_access_token="t").send(BATCH)
    assert server.requests[0].headers["Authorization"] == "Bearer t"
