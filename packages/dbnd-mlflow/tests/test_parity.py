"""MLflow under the composite URI does what it does under the user's own.

Each scenario runs twice, against two equal empty stores: once with the inner URI set, once with the composite one.
What it observes, and how many rows or files of each kind it leaves in the store, must be equal; and what the tracker
has of it must be what the store has.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlflow
import pytest
from click.testing import CliRunner
from kit.warm import Warm
from mlflow.tracking import fluent
from mlflow.tracking._tracking_service.utils import _get_store

from dbnd._context.registry import current_config, get_client
from dbnd_mlflow import DatabandStore, build_composite_uri
from dbnd_mlflow._commands.cli import mlflow as commands
from dbnd_mlflow._durable.store import outboxes

# Each module registers its scenarios.
from parity import artifacts, experiments, models, points, processes, runs, traces, training  # noqa: F401
from parity.normal import Normal, census
from parity.scenario import SCENARIOS, Side
from parity.stores import SIDES, Servers, Store, allows_files, file_store, sqlite_store
from parity.trackers import TROUBLES, Troubles

pytestmark = [pytest.mark.parity, pytest.mark.timeout(400)]

# What a tracker that is in trouble could get in the way of: threads, the exit of a process, calls of every kind.
UNDER_TROUBLE = ("fluent_logging", "asynchronous_logging", "nested_runs", "a_child_process_that_leaves_its_run_open")


def perform(name: str, side: Side, store: Store) -> tuple[Any, dict[str, int], Exception | None]:
    """Run a scenario on one side; returns what it observed, what it has added to the store, and what it raised."""
    result, raised = None, None
    os.chdir(side.folder)  # before MLflow builds the store, whose artifacts stand in the working directory
    assert (type(_get_store(side.uri)) is DatabandStore) is (side.uri != store.uri)
    mlflow.set_tracking_uri(side.uri)
    before = census(store.place)
    try:
        side.experiment_id = mlflow.set_experiment(side.experiment).experiment_id
        result = SCENARIOS[name].function(side)
    except Exception as error:  # noqa: BLE001  it is compared, too: the other side must have raised the same
        raised = error
    finally:
        while mlflow.active_run() is not None:
            mlflow.end_run()
        for outbox in outboxes():
            assert outbox.flush(100), outbox.trouble
            assert (outbox.refused, outbox.dropped) == (0, 0)
        mlflow.set_tracking_uri(None)
        fluent._active_experiment_id = None
        os.environ.pop("MLFLOW_EXPERIMENT_ID", None)
        os.environ.pop("MLFLOW_RUN_ID", None)
    added = census(store.place)
    added.subtract(before)
    counted = added.keys() - SCENARIOS[name].uncounted
    return Normal(side, store.uri)(result), {key: added[key] for key in sorted(counted) if added[key]}, raised


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SQLite store of this MLflow without anything in it."""
    sqlalchemy_store = pytest.importorskip("mlflow.store.tracking.sqlalchemy_store", reason="SQL needs full MLflow")
    path = tmp_path_factory.mktemp("empty") / "store.db"
    sqlalchemy_store.SqlAlchemyStore(f"sqlite:///{path}", str(path.parent / "never")).engine.dispose()
    return path


@pytest.fixture(scope="session")
def empty_tracker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The database of a tracker that has nothing yet."""
    from dbnd_tracker._storage.database import open_database

    path = tmp_path_factory.mktemp("tracker") / "tracker.db"
    open_database(f"sqlite:///{path}").close()
    return path


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory, empty_store: Path, warm: Warm) -> Iterator[Servers]:
    # mlflow-skinny serves nothing: its clients are tested against servers of another environment.
    start = os.environ.get("PARITY_SERVER_PYTHON") or warm
    made = Servers(tmp_path_factory.mktemp("servers"), empty_store, start)
    yield made
    made.stop()


@pytest.fixture(scope="session")
def troubles() -> Iterator[Troubles]:
    made = Troubles()
    yield made
    made.close()


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("GIT_PYTHON_REFRESH", "quiet")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_SERVER_ENABLE_CUSTOM_SCORERS", "true")  # which MLflow asks for without an http URI


Compare = Callable[..., Store]


@pytest.fixture
def compare(tmp_path: Path, empty_store: Path, servers: Servers) -> Compare:
    """Run a scenario on both sides and compare; returns the store of the side with the composite URI."""

    def store_of(kind: str, side: str) -> Store:
        folder = tmp_path / side
        folder.mkdir()
        if kind == "http":
            return servers.store(side)
        return file_store(folder) if kind == "file" else sqlite_store(folder, empty_store)

    def run(name: str, kind: str, tracker_url: str, writes: str | None = None) -> Store:
        if not SCENARIOS[name].needs():
            pytest.skip("it needs what is not installed, or what this MLflow does not have")
        if kind == "file" and not allows_files(tmp_path / "asked"):
            pytest.skip("this MLflow keeps no runs in files")
        stores = {side: store_of(kind, side) for side in SIDES}
        uris = {
            "single": stores["single"].uri,
            "double": build_composite_uri(tracker_url, stores["double"].uri, writes),
        }
        single, double = (perform(name, Side(uris[side], tmp_path / side, name), stores[side]) for side in SIDES)
        for _, _, error in (single, double):
            if error is not None:
                raise error
        assert json.loads(json.dumps(double[0])) == json.loads(json.dumps(single[0]))
        assert double[1] == single[1]
        return stores["double"]

    return run


CELLS = [(name, kind) for name, found in SCENARIOS.items() for kind in found.kinds]


@pytest.mark.parametrize("writes", [None, "keep", "deferred"], ids=["direct", "keep", "deferred"])
@pytest.mark.parametrize(("name", "kind"), CELLS)
def test_the_composite_uri_changes_nothing_and_everything_reaches_the_tracker(
    name, kind, writes, compare, empty_tracker, tmp_path, monkeypatch
):
    monkeypatch.setenv("DBND__CORE__FLUSH_TIMEOUT", "100")  # for a child process on a busy machine
    shutil.copy(empty_tracker, tmp_path / "tracker.db")
    tracker_url = f"sqlite:///{tmp_path / 'tracker.db'}"
    store = compare(name, kind, tracker_url, writes)
    client = get_client(tracker_url, current_config())
    assert client.flush(100), client.trouble
    assert (client.refused, client.dropped) == (0, 0)
    client.close()
    settings = {"CORE__DATABAND_URL": tracker_url, "MLFLOW_TRACKING__DUPLICATE_TRACKING_TO": store.uri}
    result = CliRunner(env={f"DBND__{key}": value for key, value in settings.items()}).invoke(commands, ["verify"])
    assert result.exit_code == 0, result.output


def trouble(name: str, kind: str, compare: Compare, troubles: Troubles, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compare the sides of a scenario while the tracker is of no use."""
    monkeypatch.setenv("DBND__CORE__FLUSH_TIMEOUT", "0")
    asked = troubles.asked(kind)
    if asked is not None:
        asked.clear()
    url = troubles.url(kind)
    compare(name, "sqlite", url)
    if asked is not None and get_client(url, current_config()).unsent:  # what has no runs has nothing to report
        assert asked.wait(100)


@pytest.mark.parametrize("kind", TROUBLES)
@pytest.mark.parametrize("name", UNDER_TROUBLE)
def test_a_troubled_tracker_changes_nothing(name, kind, compare, troubles, monkeypatch):
    trouble(name, kind, compare, troubles, monkeypatch)


@pytest.mark.thorough
@pytest.mark.parametrize("kind", TROUBLES)
@pytest.mark.parametrize("name", sorted(SCENARIOS.keys() - set(UNDER_TROUBLE)))
def test_no_trouble_changes_any_scenario(name, kind, compare, troubles, monkeypatch):
    trouble(name, kind, compare, troubles, monkeypatch)
