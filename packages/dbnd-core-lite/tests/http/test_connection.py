"""What answers at the tracker's address may be anything: real sockets that drip, flood, break off and pretend."""

from __future__ import annotations

import contextlib
import gzip
import http.client
import socket
import ssl
import subprocess
import threading
import time
import tracemalloc
import zlib

import pytest
import requests
import urllib3

from dbnd._base.paths import journal_folder
from dbnd._config.settings import CoreSettings
from dbnd._context.registry import load_config
from dbnd._http.connection import Connection, Limits
from dbnd._http.route import server_of
from dbnd._http.transport import HttpTransport
from dbnd._journal.journal import Journal
from dbnd._journal.leftovers import find
from dbnd._run.sync import Sync
from dbnd._tracking.contracts import (
    Batch,
    BusyError,
    NotATrackerError,
    PartlyAppliedError,
    RefusedError,
    UnreachableError,
)

PATIENCE = 60
BATCH = Batch("log_metrics", {"metrics_info": []}, "ab" * 16, 3, 7)
ENDLESS = 10**12
OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"


def transport(url, **core):
    settings = load_config(conf={"core": {"databand_access_token": "t", **core}}).settings(CoreSettings)
    return HttpTransport(url, settings)


class RawServer:
    """Reads the head of each request and lets ``speak`` write whatever it wants, until nobody listens."""

    def __init__(self, wrap=None):
        self.wrap = wrap
        self.heads = []
        self.open = []
        self.over = threading.Event()
        self.speak = lambda connection, _: connection.sendall(OK)
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.port = self.listening.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.threads = [threading.Thread(target=self.listen, daemon=True)]
        self.threads[0].start()

    def listen(self):
        while True:
            try:
                connection, _ = self.listening.accept()
            except OSError:
                return
            self.open.append(connection)
            self.threads.append(threading.Thread(target=self.serve, args=(connection,), daemon=True))
            self.threads[-1].start()

    def serve(self, accepted):
        try:
            with self.wrap(accepted) if self.wrap else accepted as connection:
                self.open[self.open.index(accepted)] = connection
                while head := self.read_head(connection):
                    self.heads.append(head)
                    self.speak(connection, head)
        except OSError:  # whoever asked has gone
            pass

    def read_head(self, connection):
        data = b""
        while b"\r\n\r\n" not in data:
            part = connection.recv(65536)
            if not part:
                return ""
            data += part
        head, _, body = data.partition(b"\r\n\r\n")
        for line in head.split(b"\r\n"):
            if line.lower().startswith(b"content-length:"):
                while len(body) < int(line.partition(b":")[2]):
                    body += connection.recv(65536)
        return head.decode()

    def close(self):
        self.over.set()
        self.listening.shutdown(socket.SHUT_RDWR)
        self.listening.close()
        for connection in self.open:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self.threads:
            thread.join(PATIENCE)


@pytest.fixture
def raw():
    server = RawServer()
    yield server
    server.close()


def ask(server, **limits):
    asking = Connection(server_of(server.url), verifies=True)
    try:
        return asking.request(
            "GET", "/", {}, b"", Limits(**{"connect": 5, "answer": 60, "transfer": 60, "size": 1 << 18, **limits})
        )
    finally:
        asking.close()


def drip(server, start, piece=b"x"):
    def speak(connection, _):
        connection.sendall(start)
        while not server.over.wait(0.05):
            connection.sendall(piece)

    return speak


def flood(start, piece):
    def speak(connection, _):
        connection.sendall(start)
        while True:
            connection.sendall(piece)

    return speak


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


@pytest.mark.parametrize(
    ("start", "piece"),
    [
        (b"", b"H"),
        (HEAD, b"X"),
        (HEAD, b"X-A: b\r\n"),
        (HEAD + b"Content-Length: 99999\r\n\r\n", b" "),
        (HEAD + b"\r\n", b" "),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    ],
)
def test_an_answer_that_drips_ends_in_time(raw, start, piece):
    raw.speak = drip(raw, start, piece)
    with pytest.raises(UnreachableError, match=r"its answer did not end within 0\.3 s"):
        ask(raw, transfer=0.3)


def test_a_dripping_answer_holds_nobody_beyond_the_deadline(raw):
    raw.speak = drip(raw, HEAD + b"Content-Length: 99999\r\n\r\n")
    sending = transport(raw.url)
    started = time.monotonic()
    sending.deadline = started + 0.5
    with pytest.raises(UnreachableError):
        sending.send(BATCH)
    assert time.monotonic() - started < PATIENCE / 2


def test_a_dripping_tracker_holds_no_sync(raw, home):
    raw.speak = drip(raw, HEAD)
    for _ in range(3):
        journal = Journal(journal_folder(), raw.url)
        journal.append("a", {})
        journal.close()
    there = load_config(conf={"core.databand_url": raw.url, "core.databand_access_token": "t"})
    started = time.monotonic()
    report = Sync(journal_folder(), there).deliver(patience=0.5)
    assert time.monotonic() - started < PATIENCE / 2
    assert list(report.unreachable) == [f"the tracker {raw.url}"]
    assert sum(leftover.events for leftover in find(journal_folder())) == 3


def test_the_time_of_an_answer_begins_with_its_first_byte(raw):
    def speak(connection, _):
        raw.over.wait(0.5)  # a tracker may think for long ...
        connection.sendall(OK)

    raw.speak = speak
    assert ask(raw, transfer=0.3).body == b"{}"  # ... and then speak quickly


def zeros(size):
    packing = zlib.compressobj(9, wbits=31)
    return b"".join(packing.compress(bytes(1 << 20)) for _ in range(size >> 20)) + packing.flush()


@pytest.mark.parametrize(
    ("start", "piece"),
    [
        (HEAD + b"\r\n", b" " * 65536),
        (HEAD + f"Content-Length: {ENDLESS}\r\n\r\n".encode(), b" " * 65536),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"10000\r\n" + b" " * 65536 + b"\r\n"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n" * 10000),
        (HEAD + f"Transfer-Encoding: chunked\r\n\r\n{ENDLESS:x}\r\n".encode(), b" " * 65536),
        (HEAD, b"X-A: b\r\n" * 1000),
        (HEAD + b"X-A: ", b"b" * 65536),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 1000),
        (b"", b"x" * 65536),
    ],
)
def test_an_endless_answer_is_no_delivery_and_takes_no_memory(raw, start, piece):
    raw.speak = flood(start, piece)
    tracemalloc.start()
    try:
        with pytest.raises(UnreachableError):
            transport(raw.url).send(BATCH)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


def test_a_packed_answer_is_unpacked_and_a_bomb_is_not(raw):
    def answer(body):
        head = HEAD + f"Content-Encoding: gzip\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        raw.speak = lambda connection, _: connection.sendall(head + body)

    answer(gzip.compress(b'{"a": 1}'))
    assert ask(raw).body == b'{"a": 1}'
    transport(raw.url).send(BATCH)
    bomb = zeros(128 << 20)
    assert len(bomb) < 1 << 18
    answer(bomb)
    tracemalloc.start()
    try:
        with pytest.raises(NotATrackerError):
            transport(raw.url).send(BATCH)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


def message(status=b"200 OK", kind=b"application/json", body=b"{}", more=b""):
    kind = b"Content-Type: " + kind + b"\r\n" if kind else b""
    return b"HTTP/1.1 " + status + b"\r\n" + kind + more + f"Content-Length: {len(body)}\r\n\r\n".encode() + body


PAGE = b"<!DOCTYPE html><title>Welcome to the hotel</title>"
PRETENDERS = {
    "page": message(kind=b"text/html; charset=utf-8", body=PAGE),
    "page without a type": message(kind=b"", body=PAGE),
    "page that calls itself JSON": message(body=PAGE),
    "page that was made": message(b"201 Created", b"text/html", PAGE),
    "nothing": message(body=b""),
    "nothing of no type": message(kind=b"", body=b""),
    "no content": b"HTTP/1.1 204 No Content\r\n\r\n",
    "text": message(kind=b"text/plain", body=b"OK"),
    "JSON as text": message(kind=b"text/plain", body=b"{}"),
    "half of JSON": message(body=b'{"a": '),
    "JSON that breaks off": HEAD + b"Content-Length: 9\r\n\r\n{}",
    "JSON that names an error": message(body=b'{"error": "no such path", "status": 404}'),
    "GraphQL": message(body=b'{"errors": [{"message": "Must provide query string."}]}'),
    "JSON that says no": message(body=b'{"success": false}'),
    "JSON that has the state of an error": message(body=b'{"status": "error", "message": "no such path"}'),
    "deep JSON": message(body=b"[" * 100_000),
    "not found": message(b"404 Not Found", b"text/html", PAGE),
    "not allowed": message(b"405 Method Not Allowed", b"text/html", PAGE),
    "HTTP to a port of HTTPS": message(b"400 Bad Request", b"text/html", PAGE),
    "a proxy that wants a password": message(b"407 Proxy Authentication Required", b"text/plain", b"who?"),
    "early hints": b"HTTP/1.1 103 Early Hints\r\n\r\n",
    "another protocol": b"SSH-2.0-OpenSSH_9.6\r\n",
}


@pytest.mark.parametrize("name", PRETENDERS)
def test_what_does_not_answer_as_a_tracker_has_taken_nothing(raw, name):
    def speak(connection, _):
        connection.sendall(PRETENDERS[name])
        connection.shutdown(socket.SHUT_WR)

    raw.speak = speak
    for call in (
        lambda: transport(raw.url).send(BATCH),
        transport(raw.url).check,
        lambda: transport(raw.url).heartbeat("u"),
    ):
        with pytest.raises(UnreachableError) as caught:
            call()
        assert isinstance(caught.value, (NotATrackerError, BusyError))


def test_a_foreign_tracker_may_refuse_with_a_page_what_it_does_not_know(raw):
    sending = transport(raw.url)
    sending.send(BATCH)
    raw.speak = lambda connection, _: connection.sendall(PRETENDERS["not found"])
    with pytest.raises(RefusedError):
        sending.send(BATCH)
    sending.close()


def test_a_page_is_named_with_its_beginning(raw):
    raw.speak = lambda connection, _: connection.sendall(PRETENDERS["page"])
    with pytest.raises(NotATrackerError, match="it answered 200 with text/html, and not as a tracker does: '<!DOCTYPE"):
        transport(raw.url).send(BATCH)


@pytest.mark.parametrize("page", ["/auth/csrf", "/auth/login"])
def test_a_page_is_no_login(raw, page):
    raw.speak = lambda connection, head: connection.sendall(PRETENDERS["page"] if page in head else OK)
    with pytest.raises(NotATrackerError, match="text/html"):
        transport(raw.url, databand_access_token=None).check()


@pytest.mark.parametrize("body", [b"{}", b"null", b"[]", b'"ok"', b'{"value": NaN}', b'{"error": null}'])
@pytest.mark.parametrize("kind", [b"application/json", b"application/json; charset=utf-8", b""])
def test_a_foreign_tracker_is_known_by_its_json(raw, kind, body):
    raw.speak = lambda connection, _: connection.sendall(message(kind=kind, body=body))
    transport(raw.url).send(BATCH)


@pytest.mark.parametrize("number", [b"0", b"2", b"6", b"8", b"999999999", b"-7", b"x", b"", b"7.0", b"9" * 10_000])
def test_a_success_that_has_applied_something_else_is_no_delivery(raw, number):
    raw.speak = lambda connection, _: connection.sendall(message(more=b"X-Databand-Applied: " + number + b"\r\n"))
    with pytest.raises(NotATrackerError, match="to events 3 to 7"):
        transport(raw.url).send(BATCH)


def test_a_success_that_has_applied_the_batch_is_a_delivery(raw):
    raw.speak = lambda connection, _: connection.sendall(message(more=b"X-Databand-Applied: 7\r\n"))
    transport(raw.url).send(BATCH)


def test_where_our_tracker_was_another_answer_is_no_delivery(raw):
    sending = transport(raw.url)
    raw.speak = lambda connection, _: connection.sendall(message(more=b"X-Databand-Applied: 7\r\n"))
    sending.send(BATCH)
    raw.speak = lambda connection, _: connection.sendall(message())
    for _ in range(2):
        with pytest.raises(NotATrackerError, match="not as the tracker that was there before"):
            sending.send(BATCH)
    sending.check()
    transport(raw.url).send(BATCH)
    sending.close()


@pytest.mark.parametrize(("number", "possible"), [(2, False), (3, True), (6, True), (7, False), (999_999_999, False)])
def test_a_conflict_is_believed_within_the_batch(raw, number, possible):
    more = f"X-Databand-Applied: {number}\r\n".encode()
    raw.speak = lambda connection, _: connection.sendall(message(b"409 Conflict", more=more))
    with pytest.raises(PartlyAppliedError if possible else NotATrackerError):
        transport(raw.url).send(BATCH)


def trap(*_, **__):
    raise AssertionError("our traffic went through what the process has patched")


PATCHED = [
    (requests.Session, "request"),
    (requests.Session, "send"),
    (requests, "post"),
    (requests.adapters.HTTPAdapter, "send"),
    (urllib3.PoolManager, "request"),
    (urllib3.PoolManager, "urlopen"),
    (urllib3.HTTPConnectionPool, "urlopen"),
    (urllib3.connection.HTTPConnection, "request"),
    (http.client, "HTTPConnection"),
    (http.client, "HTTPSConnection"),
    (http.client, "HTTPResponse"),
    (http.client.HTTPConnection, "request"),
    (http.client.HTTPConnection, "putrequest"),
    (http.client.HTTPConnection, "getresponse"),
    (http.client.HTTPConnection, "connect"),
    (socket, "socket"),
    (socket, "create_connection"),
    (socket, "getaddrinfo"),
    (ssl, "SSLContext"),
    (ssl.SSLContext, "wrap_socket"),
]


def test_what_a_process_patches_for_its_own_requests_does_not_see_ours(server, monkeypatch):
    """As the libraries do that mock, record and trace: responses, requests-mock, vcrpy, pook, httpretty, mocket."""
    with monkeypatch.context() as patching:
        for owner, name in PATCHED:
            if name != "socket":  # the server of this test makes no socket by this name, and is not to be disturbed
                patching.setattr(owner, name, trap)
        sending = transport(server.url, databand_access_token=None)
        sending.send(BATCH)
        sending.close()
    assert [r.path.rpartition("/")[2] for r in server.requests] == ["csrf", "login", "log_metrics"]


def test_a_connection_is_used_again_until_the_server_closes_it(raw):
    sending = transport(raw.url)
    sending.send(BATCH)
    sending.send(BATCH)
    assert len(raw.open) == 1
    closed = threading.Event()

    def speak(connection, _):
        connection.sendall(OK)
        connection.shutdown(socket.SHUT_RDWR)
        closed.set()

    raw.speak = speak
    sending.send(BATCH)
    assert closed.wait(PATIENCE)
    sending.send(BATCH)
    assert len(raw.open) == 2
    sending.close()


def test_an_answer_that_comes_before_all_is_read_counts(raw):
    def speak(connection, _):
        connection.sendall(message(b"503 Busy", more=b"Retry-After: 7\r\nConnection: close\r\n"))

    raw.speak = speak
    raw.read_head = lambda connection: connection.recv(100) and "head"
    big = Batch("a", {"x": [*range(200_000)]}, "ab" * 16, 1, 1)
    with pytest.raises(BusyError, match=r"503|the connection broke"):
        transport(raw.url).send(big)


@pytest.mark.parametrize("token", ["a\nb", "a\r\nX-Evil: 1", "\u00fc"])
def test_a_token_that_is_no_line_of_text_is_named_and_not_shown(raw, token):
    with pytest.raises(UnreachableError, match="the header 'Authorization' cannot be sent") as caught:
        transport(raw.url, databand_access_token=token).send(BATCH)
    assert token not in str(caught.value)
    assert raw.heads == []


def test_a_header_whose_name_is_not_ascii_is_named(raw):
    with pytest.raises(UnreachableError, match="the header 'ü' cannot be sent"):
        transport(raw.url, databand_access_token="t", extra_default_headers={"ü": "x"}).send(BATCH)


@pytest.mark.parametrize("url", ["http://127.0.0.1:99999", "http://", "http://a..b", f"http://{'a' * 70}.com"])
def test_an_address_that_cannot_be_is_trouble_and_no_stack_trace(url):
    with pytest.raises(UnreachableError):
        transport(url).send(BATCH)


@pytest.fixture
def environment(monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
def test_a_proxy_of_the_environment_gets_the_whole_address(raw, environment, name):
    environment.setenv(name, raw.url.replace("//", "//me:p%40ss@"))
    transport("http://tracker.example:8080").send(BATCH)
    lines = raw.heads[0].split("\r\n")
    assert lines[0] == "POST http://tracker.example:8080/api/v1/tracking/log_metrics HTTP/1.1"
    assert "Host: tracker.example:8080" in lines
    assert "Proxy-Authorization: Basic bWU6cEBzcw==" in lines


@pytest.mark.parametrize("exceptions", ["127.0.0.1", "*", "127.0.0.0/8", "other.example, 127.0.0.1:{port}"])
def test_no_proxy_is_for_what_the_environment_excepts(raw, environment, exceptions):
    environment.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    environment.setenv("NO_PROXY", exceptions.format(port=raw.port))
    transport(raw.url).send(BATCH)
    assert raw.heads[0].startswith("POST /api/v1/")


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:1", "http://127.0.0.1:x", "http://"])
def test_a_proxy_that_cannot_be_used_is_named(raw, environment, proxy):
    environment.setenv("HTTP_PROXY", proxy)
    with pytest.raises(UnreachableError, match=r"the proxy .* of the environment cannot be used"):
        transport(raw.url).send(BATCH)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    paths = folder / "tracker.crt", folder / "tracker.key"
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "2",
    ]
    command += [
        "-subj",
        "/CN=localhost",
        "-addext",
        "subjectAltName=DNS:localhost",
        "-out",
        paths[0],
        "-keyout",
        paths[1],
    ]
    subprocess.run([*map(str, command)], check=True, capture_output=True)
    return paths


@pytest.fixture
def secure(certificate):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    server = RawServer(lambda connection: context.wrap_socket(connection, server_side=True))
    server.url = f"https://localhost:{server.port}"
    yield server
    server.close()


@pytest.mark.parametrize("name", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"])
def test_certificates_of_the_environment_are_trusted(secure, environment, certificate, name):
    environment.setenv(name, str(certificate[0]))
    sending = transport(secure.url)
    sending.send(BATCH)
    sending.send(BATCH)
    assert len(secure.open) == 1
    sending.close()


def test_an_unknown_certificate_is_trouble_unless_that_is_allowed(secure, environment):
    with pytest.raises(UnreachableError, match=r"its certificate is not accepted: self.signed"):
        transport(secure.url).send(BATCH)
    transport(secure.url, ignore_ssl_errors=True).send(BATCH)


def test_certificates_that_cannot_be_read_are_named(secure, environment, tmp_path):
    environment.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "none.pem"))
    with pytest.raises(UnreachableError, match=r"the certificates of REQUESTS_CA_BUNDLE = .*none\.pem"):
        transport(secure.url).send(BATCH)


def test_a_server_that_speaks_no_tls_is_trouble(raw, environment):
    with pytest.raises(UnreachableError):
        transport(raw.url.replace("http", "https"), connect_timeout=0.5).send(BATCH)


def test_https_goes_through_the_tunnel_of_a_proxy(raw, secure, environment, certificate):
    def tunnel(connection, head):
        if not head.startswith("CONNECT tracker.example:443 "):
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
            return
        connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        with socket.create_connection(("127.0.0.1", secure.port)) as behind:
            other = threading.Thread(target=pump, args=(behind, connection))
            other.start()
            pump(connection, behind)
            other.join(PATIENCE)

    def pump(source, sink):
        try:
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    raw.speak = tunnel
    environment.setenv("HTTPS_PROXY", raw.url.replace("//", "//me:secret@"))
    sending = transport("https://tracker.example", ignore_ssl_errors=True)
    sending.send(BATCH)
    sending.close()
    assert "Proxy-Authorization: Basic" in raw.heads[0]
    assert secure.heads[0].startswith("POST /api/v1/tracking/log_metrics HTTP/1.1")
    assert "Proxy-Authorization" not in secure.heads[0]


def test_a_proxy_that_refuses_a_tunnel_is_trouble(raw, environment):
    raw.speak = lambda connection, _: connection.sendall(b"HTTP/1.1 407 Who\r\nContent-Length: 0\r\n\r\n")
    environment.setenv("HTTPS_PROXY", raw.url)
    with pytest.raises(UnreachableError, match=rf"the proxy 127\.0\.0\.1:{raw.port} answered 407"):
        transport("https://tracker.example").send(BATCH)
