"""What is made of the answers of MLflow servers that are old, wrong or silent; the browser looks at a real one's."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from dbnd_tracker._access.places import Places
from dbnd_tracker._content.mlflow_facts import mlflow_facts
from dbnd_tracker._content.opened import ArtifactError
from dbnd_tracker._settings import TrackerSettings

VERSIONS = {"model_versions": [{"name": "a b", "version": "2"}, {"name": "a b", "version": "3"}]}
MODEL = {"registered_model": {"name": "a b", "aliases": [{"alias": "champion", "version": "3"}]}}
PROMPTS = [{"name": "a/b", "version": "1"}, {"name": "c", "version": "12"}]
RUN = {"run": {"data": {"tags": [{"key": "mlflow.linkedPrompts", "value": json.dumps(PROMPTS)}]}}}
TRACES = {"traces": [{"assessments": [{}, {}]}, {}], "next_page_token": "more"}

Answers = Callable[..., str]


@pytest.fixture
def answers() -> Iterator[Answers]:
    """Starts a server that answers so to the question that a part of its path tells, and else with 404."""
    servers = []

    def start(**given: Any) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                found = next((answer for part, answer in given.items() if part in self.path), None)
                body = found if isinstance(found, bytes) else json.dumps(found).encode()
                self.send_response(404 if found is None else 200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_POST = do_GET  # noqa: N815  the name that http.server calls

            def log_message(self, *args: object) -> None:
                del args

        servers.append(ThreadingHTTPServer(("127.0.0.1", 0), Handler))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def _links(url: str) -> list[str]:
    return ["https://example.com/other", f"{url}#/experiments/7/runs/{'a' * 32}"]


def test_versions_have_their_aliases_and_traces_their_number(answers: Answers) -> None:
    url = answers(versions=VERSIONS, models=MODEL, traces=TRACES)
    found = mlflow_facts(_links(url), Places(TrackerSettings(), guarded=False))
    assert found is not None
    assert [(each.name, each.version, each.aliases) for each in found.versions] == [
        ("a b", "2", []),
        ("a b", "3", ["champion"]),
    ]
    assert found.versions[1].url == f"{url}/#/models/a%20b/versions/3"
    assert (found.traces, found.has_more_traces, found.assessments) == (2, True, 2)
    assert found.traces_url == f"{url}/#/experiments/7/runs/{'a' * 32}/traces"


def test_prompts_that_a_run_has_used_are_linked(answers: Answers) -> None:
    url = answers(versions={}, **{"runs/get": RUN})
    found = mlflow_facts(_links(url), Places(TrackerSettings(), guarded=False))
    assert found is not None
    assert [(each.name, each.version, each.url) for each in found.prompts] == [
        ("a/b", "1", f"{url}/#/prompts/a%2Fb"),
        ("c", "12", f"{url}/#/prompts/c"),
    ]


def test_a_server_that_is_older_than_traces_has_none(answers: Answers) -> None:
    found = mlflow_facts(_links(answers(versions={})), Places(TrackerSettings(), guarded=False))
    assert found is not None
    assert (found.versions, found.prompts, found.traces) == ([], [], 0)


def test_a_server_that_may_not_be_asked_is_not(answers: Answers) -> None:
    links = _links(answers(versions=VERSIONS, models=MODEL, traces=TRACES))
    settings = TrackerSettings(artifact_places=["http://127.0.0.1:1"])
    assert mlflow_facts(links, Places(settings, guarded=False)) is None
    assert mlflow_facts(links, Places(TrackerSettings(), guarded=True)) is None


@pytest.mark.parametrize("tag", ["", "{", "1", "[1]", '{"a": 1}', '[{"name": "c"}]', "[" * 10_000])
def test_a_tag_of_prompts_that_is_not_mlflows_hides_nothing_else(answers: Answers, tag: str) -> None:
    run = {"run": {"data": {"tags": [{"key": "mlflow.linkedPrompts", "value": tag}]}}}
    links = _links(answers(versions=VERSIONS, models=MODEL, traces=TRACES, **{"runs/get": run}))
    found = mlflow_facts(links, Places(TrackerSettings(), guarded=False))
    assert found is not None
    assert (found.prompts, len(found.versions), found.traces) == ([], 2, 2)


@pytest.mark.parametrize("lie", [b"", b"{", b"[1]", b'"x"', b'{"model_versions": 1}', b'{"model_versions": [{}]}'])
def test_an_answer_of_another_kind_is_said(answers: Answers, lie: bytes) -> None:
    with pytest.raises(ArtifactError, match="has not answered as one"):
        mlflow_facts(_links(answers(versions=lie)), Places(TrackerSettings(), guarded=False))
