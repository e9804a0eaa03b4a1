from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(autouse=True)
def _restored_mlflow(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """MLflow's tracking URI, experiment and open runs are process-wide: what a test sets ends with it."""
    import mlflow
    from mlflow.tracking import fluent

    mlflow.set_tracking_uri(None)
    monkeypatch.setattr(fluent, "_active_experiment_id", None)
    # A process has one client for each URL, and a free port may come up again: each test starts with none.
    monkeypatch.setattr("dbnd._tracking.client._by_url", {})
    yield
    while mlflow.active_run() is not None:
        mlflow.end_run()
    mlflow.set_tracking_uri(None)
    monkeypatch.delenv("MLFLOW_EXPERIMENT_ID", raising=False)


@pytest.fixture
def tracker_url(free_port: int) -> str:
    """A tracker that is down: every event stays in the journal, to be looked at."""
    return f"http://127.0.0.1:{free_port}"


@pytest.fixture
def inner_uri(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'inner.db'}"


@pytest.fixture
def conf(tracker_url: str, inner_uri: str) -> dict[str, dict[str, Any]]:
    return {
        "core": {"databand_url": tracker_url, "flush_timeout": 0},
        "mlflow_tracking": {"databand_tracking": True, "duplicate_tracking_to": inner_uri},
    }
