from __future__ import annotations

import re

import pytest
from fastapi.testclient import TestClient

from dbnd_tracker._server.app import create_app
from dbnd_tracker._storage.database import Database


@pytest.fixture
def client(tmp_path):
    return TestClient(create_app(Database(f"sqlite:///{tmp_path / 'tracker.db'}")), base_url="http://localhost")


def test_every_operation_of_the_document_is_shown(client):
    page = client.get("/docs").text
    document = client.get("/openapi.json").json()
    wanted = [f"{method.upper()} {path}" for path, methods in document["paths"].items() for method in methods]
    assert len(wanted) > 30
    assert [name for name in wanted if f"<code>{name}</code>" not in page] == []
    assert "<code>task_run_attempt_uid</code>" in page


def test_nothing_is_loaded_from_another_host(client):
    answer = client.get("/docs")
    assert re.findall(r'(?:src|href)="(?!/)([^"#]+)', answer.text) == []
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    assert client.get("/redoc").status_code == 404
