"""Views: addresses of pages under names, which all share."""

from __future__ import annotations

from typing import Any

import pytest


def _send(server: Any, method: str, name: str, **options: Any) -> int:
    answer = server.session.request(method, f"{server.url}/api/v1/views/{name}", timeout=30, **options)
    return int(answer.status_code)


def test_a_view_is_saved_replaced_and_forgotten(server: Any) -> None:
    address = "/?where=metrics.loss+%3C+1&charts=beside"
    for shown in ("/", address):
        assert _send(server, "PUT", "good%20losses", json={"address": shown}) == 204
    assert server.get("/api/v1/views").json() == {"good losses": address}
    answer = server.get("/app/views/good%20losses", allow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, address)
    assert 'href="/app/views/good%20losses"' in server.get("/").text
    assert _send(server, "DELETE", "good%20losses") == 204
    assert _send(server, "DELETE", "good%20losses") == 404
    assert server.get("/app/views/good%20losses").status_code == 404


def test_a_name_that_is_shortened_leads_to_the_view(server: Any) -> None:
    assert _send(server, "PUT", "x" * 2_000, json={"address": "/"}) == 204
    assert server.get(f"/app/views/{'x' * 2_000}", allow_redirects=False).status_code == 303


@pytest.mark.parametrize(
    "address",
    ["//example.com/", "https://example.com", "javascript:1", "/\\example.com", "", "/logout", "/api/v1/runs"],
)
def test_a_view_leads_to_pages_of_runs_and_nowhere_else(server: Any, address: str) -> None:
    answer = server.session.put(f"{server.url}/api/v1/views/x", json={"address": address}, timeout=30)
    assert (answer.status_code, repr(address) in answer.json()["detail"]) == (422, True)
    assert server.get("/api/v1/views").json() == {}
