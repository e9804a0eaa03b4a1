from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import mlflow
import pytest
from kit.faults import Proxy
from mlflow import MlflowClient

from dbnd_mlflow import build_composite_uri


@pytest.fixture
def proxy(mlflow_server: str) -> Iterator[Proxy]:
    """What stands between us and MLflow's server, and can refuse, or do worse."""
    with Proxy(mlflow_server) as made:
        yield made


@pytest.fixture
def server(mlflow_server: str) -> MlflowClient:
    """A plain client of MLflow's server itself."""
    return MlflowClient(mlflow_server)


@pytest.fixture(params=["keep", "deferred"])
def writes(request: pytest.FixtureRequest) -> str:
    """How writes reach the store."""
    return str(request.param)


@pytest.fixture
def track(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], str]:
    """Set the composite URI of a store, whose writes are kept."""
    # A server that is really away refuses at once; one that is slow in a test is not to count as away.
    monkeypatch.setenv("DBND__MLFLOW_TRACKING__STORE_TIMEOUT", "60")
    monkeypatch.setenv("DBND__CORE__FLUSH_TIMEOUT", "60")

    def set_uri(inner: str, writes: str) -> str:
        uri = build_composite_uri(f"sqlite:///{tmp_path / 'tracker.db'}", inner, writes)
        mlflow.set_tracking_uri(uri)
        return uri

    return set_uri
