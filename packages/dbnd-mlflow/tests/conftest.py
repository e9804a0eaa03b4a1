from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kit.commands import Run
from kit.mlflow_stores import mlflow_server
from kit.servers import free_port as find_free_port
from kit.warm import Warm


@pytest.fixture(autouse=True)
def _restored_mlflow(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """MLflow's tracking URI, experiment and open runs are process-wide: what a test sets ends with it."""
    import mlflow
    from mlflow.tracking import fluent

    mlflow.set_tracking_uri(None)
    monkeypatch.setattr(fluent, "_active_experiment_id", None)
    # A process has one client for each URL, and a free port may come up again: each test starts with none.
    monkeypatch.setattr("dbnd._context.registry._by_url", {})
    monkeypatch.setattr("dbnd_mlflow._durable.store._outboxes", {})
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("GIT_PYTHON_REFRESH", "quiet")
    monkeypatch.setenv("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")  # a dozen processes that nobody needs
    yield
    while mlflow.active_run() is not None:
        mlflow.end_run()
    mlflow.set_tracking_uri(None)
    monkeypatch.delenv("MLFLOW_EXPERIMENT_ID", raising=False)


@pytest.fixture
def python(warm: Warm) -> Run:
    """Run a Python script in a process of its own, which has imported everything already and takes none of it apart."""
    return lambda code, timeout=100, **env: warm.run({"code": code}, timeout, **env)


@pytest.fixture
def tracker_url(free_port: int) -> str:
    """A tracker that is down: every event stays in the journal, to be looked at."""
    return f"http://127.0.0.1:{free_port}"


@pytest.fixture
def inner_uri(tmp_path: Path, empty_database: Path) -> str:
    shutil.copy(empty_database, tmp_path / "inner.db")
    return f"sqlite:///{tmp_path / 'inner.db'}"


@pytest.fixture
def uri(tracker_url: str, inner_uri: str) -> str:
    from dbnd_mlflow import build_composite_uri

    return build_composite_uri(tracker_url, inner_uri)


@pytest.fixture
def client(uri: str) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri)


@pytest.fixture
def store(uri: str) -> Any:
    from mlflow.tracking._tracking_service.utils import _get_store

    return _get_store(uri)


@pytest.fixture
def requests_to(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], list[str]]:
    """The addresses that are asked from now on, of a server."""
    import requests

    def listen(url: str) -> list[str]:
        sent: list[str] = []
        send = requests.Session.send

        def noting(session: Any, request: Any, **kwargs: Any) -> Any:
            if request.url.startswith(url):
                sent.append(request.url)
            return send(session, request, **kwargs)

        monkeypatch.setattr(requests.Session, "send", noting)
        return sent

    return listen


@pytest.fixture
def conf(tracker_url: str, inner_uri: str) -> dict[str, dict[str, Any]]:
    return {
        "core": {"databand_url": tracker_url, "flush_timeout": 0},
        "mlflow_tracking": {"databand_tracking": True, "duplicate_tracking_to": inner_uri},
    }


@pytest.fixture(params=["sqlite", "file", pytest.param("http", marks=pytest.mark.process)])
def any_inner(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URI of an empty store of each kind."""
    if request.param == "http":
        return str(request.getfixturevalue("mlflow_server"))
    if request.param == "file":
        (tmp_path / "runs").mkdir()
        return (tmp_path / "runs").as_uri()
    return str(request.getfixturevalue("inner_uri"))


@pytest.fixture
def server_over(start_server: Any, home: Path, monkeypatch: pytest.MonkeyPatch, warm: Warm) -> Any:
    """A ``mlflow server`` with a backend store, whose journal stands in this test's home."""
    monkeypatch.setenv("DBND__CORE__FLUSH_TIMEOUT", "1")

    @contextlib.contextmanager
    def start(uri: str, *options: str) -> Iterator[str]:
        port = find_free_port()
        address = ["--host", "127.0.0.1", "--port", str(port)]
        arguments = [*address, "--workers", "1", "--backend-store-uri", uri, *options]
        with start_server(mlflow_server(warm, arguments, os.environ), f"http://127.0.0.1:{port}", "/health") as url:
            yield url

    return start


@pytest.fixture
def unflushed(monkeypatch: pytest.MonkeyPatch) -> None:
    """No exit waits for the tracker: it is down."""
    monkeypatch.setenv("DBND__CORE__FLUSH_TIMEOUT", "0")


@pytest.fixture
def seen_nothing() -> Callable[[], None]:
    """Forget, when called, all that this process knows of runs: it is as new as another one."""

    from dbnd_mlflow._reporting.runs import _maps

    def forget() -> None:
        for runs in _maps.values():
            runs._runs.clear()
            runs._idle.clear()
            runs.experiments.clear()

    return forget
