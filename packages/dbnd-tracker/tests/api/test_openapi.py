"""Random requests by the OpenAPI document: no server error, and every answer is as the document says."""

from __future__ import annotations

from typing import Any

import pytest
import requests
from hypothesis import given, settings
from kit.scale import scaled


def _request_everything(server: Any, tracker: Any) -> int:
    """Send each operation of the document some requests; returns how many operations there are."""
    # To import it takes longer than most tests do.
    schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is not installed")
    from schemathesis import checks
    from schemathesis.specs.openapi import checks as openapi

    every = [
        checks.not_a_server_error,
        openapi.content_type_conformance,
        openapi.response_headers_conformance,
        openapi.response_schema_conformance,
        openapi.status_code_conformance,
    ]
    run, task = tracker.started()
    tracker.call("log_metrics", task.floats("loss", 5))
    schema = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
    count = 0
    for found in schema.get_all_operations():
        operation = found.ok()
        count += 1

        @settings(max_examples=scaled(2, 150))
        @given(case=operation.as_strategy())
        def check(case: Any) -> None:
            # Half of what takes a uid is asked about something that exists.
            known = {"run_uid": run.uid, "task_run_uid": task.uid}
            for name, uid in known.items():
                if name in (case.path_parameters or {}) and len(str(case.path_parameters[name])) % 2:
                    case.path_parameters[name] = uid
            try:
                response = case.call(session=server.session, timeout=60)
            except requests.exceptions.InvalidHeader:
                return  # no client can send it
            case.validate_response(response, checks=every)

        check()
    return count


@pytest.mark.timeout(1800)
def test_answers_are_as_the_document_says(tracker: Any, server: Any) -> None:
    assert _request_everything(server, tracker) > 45


def test_the_bodies_of_tracking_calls_are_documented(server: Any) -> None:
    document = server.get("/openapi.json").json()
    for path in ("tracking/init_run", "tracking/log_metrics", "tracking/log_dbt_metadata", "log_exception"):
        body = document["paths"][f"/api/v1/{path}"]["post"]["requestBody"]["content"]["application/json"]["schema"]
        name = body["$ref"].removeprefix("#/components/schemas/")
        assert document["components"]["schemas"][name]["properties"]
    state = document["components"]["schemas"]["SetRunState"]["properties"]["state"]
    assert state["enum"] == ["SCHEDULED", "RUNNING", "SUCCESS", "FAILED", "SHUTDOWN", "CANCELLED"]
