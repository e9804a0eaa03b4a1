"""Wrong tokens and passwords, and how many of them an address may send."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from typing import Any

import pytest

from dbnd_tracker._access import throttle
from dbnd_tracker._access.roles import Role
from dbnd_tracker._access.throttle import BURST, SECONDS, Throttle
from dbnd_tracker._access.tokens import create_token
from dbnd_tracker._settings import TrackerSettings


class Clock:
    """A time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def _wrong(found: Throttle, address: str, times: int = BURST) -> None:
    for number in range(times):
        found.note(address, f"guess {number}", is_right=False)


def test_wrong_secrets_are_forgiven_with_time(clock: Clock) -> None:
    found = Throttle(clock)
    _wrong(found, "192.0.2.1", BURST - 1)
    assert found.wait("192.0.2.1", "x") == 0
    _wrong(found, "192.0.2.1", 1)
    assert found.wait("192.0.2.1", "x") == SECONDS
    clock.now += SECONDS - 1
    assert found.wait("192.0.2.1", "x") == 1
    clock.now += 1
    assert found.wait("192.0.2.1", "x") == 0
    _wrong(found, "192.0.2.1", 1)
    assert found.wait("192.0.2.1", "x") == SECONDS
    clock.now += BURST * SECONDS
    _wrong(found, "192.0.2.1", BURST - 1)
    assert found.wait("192.0.2.1", "x") == 0


def test_other_addresses_and_known_secrets_are_heard_meanwhile(clock: Clock) -> None:
    found = Throttle(clock)
    found.note("192.0.2.1", "mine", is_right=True)
    _wrong(found, "192.0.2.1")
    assert found.wait("192.0.2.1", "new")
    assert found.wait("192.0.2.2", "new") == 0
    assert found.wait("192.0.2.1", "mine") == 0
    found.note("192.0.2.1", "mine", is_right=False)  # it was revoked
    assert found.wait("192.0.2.1", "mine")


@pytest.mark.parametrize(
    ("first", "second", "is_one"),
    [
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("fe80::1%eth0", "fe80::2%eth1", True),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("unknown", "<script>", True),
        ("", "_hidden", True),
    ],
)
def test_what_counts_as_one_address(clock: Clock, first: str, second: str, is_one: bool) -> None:
    found = Throttle(clock)
    _wrong(found, first)
    assert bool(found.wait(second, "x")) is is_one


def test_many_addresses_do_not_fill_the_memory(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throttle, "_REMEMBERED", 100)
    found = Throttle(clock)
    for number in range(1000):
        found.note(str(ipaddress.ip_address(number)), "x", is_right=False)
        found.note("192.0.2.1", f"{number}", is_right=True)
    assert (len(found._forgiven), len(found._right)) == (100, 100)


@pytest.fixture
def no_forgiveness(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow the machine is, nothing is forgiven within a test."""
    monkeypatch.setattr(throttle, "SECONDS", 1000.0)


@pytest.fixture
def guarded(sqlite_tracker: Any, serve: Any, no_forgiveness: None) -> Any:
    return serve(sqlite_tracker.database, token="right", settings=TrackerSettings(allowed_hosts=["tracker.example"]))


def _bearer(guarded: Any, secret: str, **headers: str) -> Any:
    return guarded.get("/api/v1/runs", headers={"Authorization": f"Bearer {secret}", **headers})


def _login(guarded: Any, secret: str, **headers: str) -> Any:
    return guarded.post("auth/login", {"username": "databand", "password": secret}, headers=headers)


def _form(guarded: Any, secret: str, **headers: str) -> Any:
    data = {"token": secret, "next": "/healthz"}
    return guarded.session.post(f"{guarded.url}/login", data=data, headers=headers, timeout=30)


@pytest.mark.parametrize("ask", [_bearer, _login, _form])
def test_who_guesses_is_asked_to_wait_and_nobody_else_is(guarded: Any, ask: Callable[..., Any]) -> None:
    for number in range(BURST):
        assert ask(guarded, f"guess {number}").status_code == 401
    refused = ask(guarded, "another guess")
    assert refused.status_code == 429
    assert 0 < int(refused.headers["Retry-After"]) <= 1000
    assert "Too many wrong tokens" in refused.text
    assert ask(guarded, "right").status_code == 429, "a guess that is right by chance is told from others"
    # The proxy on this machine says that this is another client.
    assert ask(guarded, "right", **{"X-Forwarded-For": "192.0.2.7"}).ok
    # Now that it is known, it is heard from every address.
    assert ask(guarded, "right").ok


def test_without_a_proxy_nobody_says_where_he_comes_from(sqlite_tracker: Any, serve: Any, no_forgiveness: None) -> None:
    server = serve(sqlite_tracker.database, token="right")
    for number in range(2 * BURST):
        status = _login(server, f"guess {number}", **{"X-Forwarded-For": f"192.0.2.{number}"}).status_code
        assert status == (401 if number < BURST else 429)


def test_a_token_of_the_tracker_s_own_making_never_waits(sqlite_tracker: Any, guarded: Any) -> None:
    _, made = sqlite_tracker.database.write(lambda writer: create_token(writer, label="x", role=Role.ADMIN))
    for number in range(2 * BURST):
        wrong = f"{made[:-1]}{'bdefhij'[number % 7]}"  # no token ends so: its bits are 256
        assert _bearer(guarded, wrong).status_code == (401 if number < BURST else 429)
    refused = _bearer(guarded, f"{made[:-1]}l")
    assert refused.status_code == 429
    assert int(refused.headers["Retry-After"]) <= 1000
    assert _bearer(guarded, made).ok


def test_requests_without_a_token_are_no_guesses(guarded: Any) -> None:
    for _ in range(2 * BURST):
        assert guarded.get("/api/v1/runs").status_code == 401
    assert _bearer(guarded, "right").ok


def test_an_open_tracker_takes_every_login(sqlite_tracker: Any, serve: Any) -> None:
    server = serve(sqlite_tracker.database)
    for _ in range(2 * BURST):
        assert _login(server, "databand").ok
        assert _bearer(server, "anything").ok
