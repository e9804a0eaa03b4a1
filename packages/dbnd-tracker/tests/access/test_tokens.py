"""Tokens, roles, sessions, CSRF, and names of hosts."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import timedelta
from typing import Any

import pytest
import requests

from dbnd_tracker._access.roles import Role, role_needed
from dbnd_tracker._access.tokens import create_token, is_guarded, revoke_token
from dbnd_tracker._settings import TrackerSettings

READ, WRITE, ADMIN = Role.READ, Role.WRITE, Role.ADMIN


@pytest.fixture
def token(tracker: Any) -> Callable[..., str]:
    """Makes a token and returns its secret."""

    def make(role: Role = ADMIN, **options: Any) -> str:
        return tracker.database.write(lambda writer: create_token(writer, label=role.value, role=role, **options))[1]

    return make


@pytest.fixture
def guarded(tracker: Any, serve: Any) -> Any:
    return serve(tracker.database, guarded=True)


def _bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


@pytest.mark.parametrize(
    ("method", "path", "role"),
    [
        ("GET", "/api/v1/auth/csrf", None),
        ("POST", "/api/v1/auth/login", None),
        ("GET", "/api/v1/auth/ping", None),
        ("GET", "/healthz", None),
        ("GET", "/readyz", None),
        ("GET", "/login", None),
        ("GET", "/static/page.css", None),
        ("POST", "/api/v1/tracking/init_run", WRITE),
        ("POST", "/api/v1/tracking/heartbeat", WRITE),
        ("POST", "/api/v1/log_exception", WRITE),
        ("GET", "/api/v1/runs", READ),
        ("GET", "/", READ),
        ("GET", "/openapi.json", READ),
        ("GET", "/metrics", READ),
        ("POST", "/api/v1/task/tasks", READ),
        ("POST", "/api/v1/runs/stop", ADMIN),
        ("POST", "/api/v1/auth/personal_access_token", ADMIN),
        ("DELETE", "/anything/new", ADMIN),
    ],
)
def test_what_a_request_needs(method: str, path: str, role: Role | None) -> None:
    assert role_needed(method, path) is role


def test_the_token_of_the_configuration_opens_everything(tracker: Any, serve: Any, make_run: Any) -> None:
    server = serve(tracker.database, token="s3cret")
    body = make_run().init()
    for given in ("", "Bearer wrong", "Basic czpzM2NyZXQ=", "x", "Bearer ", "Bearer s3cre", "Bearer s3cret2"):
        headers = {"Authorization": given}
        answer = server.post("init_run", body, headers=headers)
        assert answer.status_code == 401
        assert "core.databand_access_token" in answer.json()["detail"]
        assert server.get("/api/v1/runs", headers=headers).status_code == 401
    for path in ("/", "/openapi.json", "/docs", "/metrics", "/no/such/page"):
        assert server.get(path).status_code == 401, path
    for path in ("/api/v1/auth/csrf", "/api/v1/auth/ping", "/healthz", "/readyz"):
        assert server.get(path).ok, path

    assert server.post("init_run", body, headers=_bearer("s3cret")).ok
    assert server.get("/api/v1/runs", headers=_bearer("s3cret")).json()["meta"]["total"] == 1
    assert server.get("/", headers={"Authorization": "bearer  s3cret"}).ok


def test_roles_allow_what_they_say(guarded: Any, token: Any, make_run: Any) -> None:
    allowed = {}
    for role in Role:
        headers = _bearer(token(role))
        run = make_run()
        allowed[role] = (
            guarded.post("init_run", run.init(), headers=headers).status_code,
            guarded.get("/api/v1/runs", headers=headers).status_code,
            guarded.post("auth/personal_access_token", {"label": "x"}, headers=headers).status_code,
        )
    assert allowed == {WRITE: (200, 403, 403), READ: (403, 200, 403), ADMIN: (200, 200, 200)}
    answer = guarded.get("/api/v1/runs", headers=_bearer(token(WRITE)))
    assert answer.json()["detail"] == "The token 'write' is for write; this needs one for read."


def test_a_token_that_is_revoked_or_expired_opens_nothing(tracker: Any, guarded: Any, token: Any) -> None:
    expired = token(lifespan=timedelta(microseconds=1))
    assert guarded.get("/api/v1/runs", headers=_bearer(expired)).status_code == 401
    assert guarded.get("/api/v1/runs", headers=_bearer(token(lifespan=timedelta(days=1)))).ok

    made, secret = tracker.database.write(lambda writer: create_token(writer, label="x", role=ADMIN))
    session = requests.Session()
    login = session.post(f"{guarded.url}/api/v1/auth/login", json={"username": "u", "password": secret}, timeout=30)
    assert login.ok
    assert session.get(f"{guarded.url}/api/v1/runs", timeout=30).ok
    tracker.database.write(lambda writer: revoke_token(writer, made.uid))
    assert guarded.get("/api/v1/runs", headers=_bearer(secret)).status_code == 401
    assert session.get(f"{guarded.url}/api/v1/runs", timeout=30).status_code == 401
    session.close()


def test_only_tokens_that_are_valid_and_were_asked_for_guard(tracker: Any, server: Any, token: Any) -> None:
    def guards() -> bool:
        with tracker.database.read() as session:
            return is_guarded(session)

    assert not guards()
    # An open tracker makes tokens for those who ask, which must not lock out those who did not.
    made = server.post("auth/personal_access_token", {"label": "java", "lifespan": "3600"}).json()
    assert set(made) == {"token", "uid"}
    token(lifespan=timedelta(microseconds=1))
    assert not guards()
    secret = token()
    assert guards()
    with tracker.database.read() as session:
        from dbnd_tracker._access.tokens import list_tokens

        roles = {one.label: (one.role, one.expires_at is not None) for one in list_tokens(session)}
        assert roles["java"] == ("write", True)
        kept = str([vars(one) for one in list_tokens(session)])
    assert secret not in kept
    assert made["token"] not in kept


def test_the_login_of_the_original_client(guarded: Any, token: Any, make_run: Any) -> None:
    """csrf, login, then calls with the session's cookies and the csrf cookie's value as a header."""
    secret = token(WRITE)
    session = guarded.session
    assert guarded.get("/api/v1/auth/csrf").ok
    csrf = session.cookies["X-CSRF-TOKEN"]
    wrong = guarded.post("auth/login", {"username": "databand", "password": "databand"})
    assert wrong.status_code == 401
    assert guarded.post("init_run", make_run().init()).status_code == 401
    for body in ({}, [], {"password": 5}):
        assert guarded.post("auth/login", body).status_code == 401

    login = guarded.post("auth/login", {"username": "databand", "password": secret}, headers={"X-CSRFToken": csrf})

    assert (login.status_code, login.json()) == (200, {"status": "ok"})
    cookie = login.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=lax" in cookie
    assert secret not in cookie
    for name in ("X-CSRFToken", "X-CSRF-Token"):  # of the Python client, and of the Java client
        assert guarded.post("init_run", make_run().init(), headers={name: csrf}).ok
    assert guarded.get("/api/v1/auth/csrf").ok
    assert session.cookies["X-CSRF-TOKEN"] == csrf
    for headers in ({}, {"X-CSRFToken": "other"}, {"X-CSRFToken": ""}):
        answer = guarded.post("init_run", make_run().init(), headers=headers)
        assert answer.status_code == 403
        assert "X-CSRFToken" in answer.json()["detail"]
    # The session has the role of its token.
    assert guarded.get("/api/v1/runs").status_code == 403


def test_a_stranger_learns_nothing_of_a_database_that_is_broken(tracker: Any, guarded: Any) -> None:
    tracker.database.path.write_bytes(b"no database" * 1000)
    answers = [guarded.post("auth/login", {"password": "a"}), guarded.get("/api/v1/runs", headers=_bearer("a"))]
    assert {answer.status_code for answer in answers} == {503}
    assert not any(tracker.database.name in answer.text for answer in answers)


@pytest.mark.parametrize("password", ["\ud800", "\0", "x" * 10_000])
def test_a_password_of_any_characters_is_wrong(guarded: Any, password: str) -> None:
    assert guarded.post("auth/login", {"username": "databand", "password": password}).status_code == 401


def test_a_person_signs_in_by_a_form(guarded: Any, token: Any) -> None:
    page = {"Accept": "text/html,application/xhtml+xml"}
    away = guarded.get("/app/jobs/a/b?x=1", headers=page, allow_redirects=False)
    assert (away.status_code, away.headers["location"]) == (303, "/login?next=/app/jobs/a/b%3Fx%3D1")
    form = guarded.get("/", headers=page)
    assert "Access token" in form.text
    assert "form-action 'self'" in form.headers["Content-Security-Policy"]

    def sign_in(secret: str, wanted: str = "/") -> requests.Response:
        return guarded.session.post(
            f"{guarded.url}/login", data={"token": secret, "next": wanted}, allow_redirects=False, timeout=30
        )

    wrong = sign_in("wrong")
    assert wrong.status_code == 401
    assert "no token of this tracker" in wrong.text
    secret = token(READ)
    for wanted, place in (
        ("/app/jobs/a/b?x=1", "/app/jobs/a/b?x=1"),
        ("https://evil.example/", "/"),
        ("//evil.example", "/"),
        ("/\\evil.example", "/"),
        ("/a\r\nSet-Cookie: x=y", "/"),
    ):
        signed = sign_in(f" {secret} ", wanted)
        assert (signed.status_code, signed.headers["location"]) == (303, place)
    assert "HttpOnly" in signed.headers["set-cookie"]
    assert guarded.get("/", headers=page).ok
    assert "Sign out" in guarded.get("/login").text

    out = guarded.session.post(f"{guarded.url}/logout", allow_redirects=False, timeout=30)
    assert (out.status_code, out.headers["location"]) == (303, "/login")
    assert guarded.get("/", headers=page, allow_redirects=False).status_code == 303


def test_an_open_tracker_asks_nobody(server: Any, make_run: Any) -> None:
    assert server.get("/login", allow_redirects=False).headers["location"] == "/"
    assert server.post("auth/login", {"username": "databand", "password": "databand"}).json() == {"status": "ok"}
    assert server.post("init_run", make_run().init()).ok


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ({}, "wrong at label"),
        ({"label": ""}, "wrong at label"),
        ({"label": "x", "lifespan": "soon"}, "wrong at lifespan"),
        ({"label": "x", "lifespan": 0}, "wrong at lifespan"),
        ({"label": "x", "lifespan": 10**12}, "wrong at lifespan"),
    ],
)
def test_tokens_that_cannot_be_made_are_refused(server: Any, body: Any, sentence: str) -> None:
    answer = server.post("auth/personal_access_token", body)
    assert answer.status_code == 422
    assert sentence in answer.json()["detail"]


def test_names_of_a_proxy_are_allowed_by_a_setting(tracker: Any, serve: Any) -> None:
    server = serve(tracker.database, settings=TrackerSettings(allowed_hosts=["Tracker.Example.com"]))
    assert server.get("/api/v1/runs", headers={"Host": "tracker.example.com"}).ok
    assert server.get("/api/v1/runs", headers={"Host": "localhost:1"}).ok
    refused = server.get("/api/v1/runs", headers={"Host": "evil.example"})
    assert refused.status_code == 400
    assert "tracker.allowed_hosts" in refused.json()["detail"]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Sec-Fetch-Site": "same-origin", "Origin": "null"}, 200),
        ({"Sec-Fetch-Site": "none"}, 200),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Origin": "{url}"}, 200),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "http://localhost:1"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://[::1"}, 403),
    ],
)
def test_pages_of_other_sites_may_not_write(server: Any, make_run: Any, headers: dict[str, str], status: int) -> None:
    given = {name: value.format(url=server.url) for name, value in headers.items()}
    assert server.post("init_run", make_run().init(), headers=given).status_code == status
    assert server.get("/api/v1/runs", headers=given).ok


def test_tokens_are_managed_by_commands(dbnd: Callable[..., Any], home: Any) -> None:
    made = dbnd("tracker", "token", "create", "nightly jobs", "--expires", "90d", "--json")
    assert made.returncode == 0, made.stderr
    facts = json.loads(made.stdout)
    assert (facts["label"], facts["role"], facts["state"]) == ("nightly jobs", "write", "valid")
    plain = dbnd("tracker", "token", "create", "me", "--role", "admin")
    assert re.fullmatch(r"dbnd_[\w-]{43}\n", plain.stdout)
    with closing(sqlite3.connect(home / "dbnd/tracker.db")) as connection:
        dump = "\n".join(connection.iterdump())
    assert plain.stdout.strip() not in dump
    assert facts["token"] not in dump

    listed = dbnd("tracker", "token", "list")
    assert "nightly jobs" in listed.stdout
    assert facts["token"] not in listed.stdout
    revoked = dbnd("tracker", "token", "revoke", facts["uid"][:8], "--json")
    assert json.loads(revoked.stdout)["state"] == "revoked"
    states = {one["label"]: one["state"] for one in json.loads(dbnd("tracker", "token", "list", "--json").stdout)}
    assert states == {"nightly jobs": "revoked", "me": "valid"}

    unknown = dbnd("tracker", "token", "revoke", "ffff")
    assert unknown.returncode == 2
    assert "No token has a uid that starts with 'ffff'" in unknown.stderr
    assert dbnd("tracker", "token", "revoke", "").returncode == 2
    never = dbnd("tracker", "token", "create", "x", "--expires", "soon")
    assert (never.returncode, "no time such as 30m" in never.stderr) == (2, True)
