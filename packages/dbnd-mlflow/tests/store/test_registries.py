"""The registries beside the tracking store: each gives what it gives natively."""

from __future__ import annotations

import shutil
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import mlflow
import pytest
from kit.reports import outcome
from mlflow import MlflowClient
from mlflow.tracking._model_registry.utils import _get_store_registry

from dbnd_mlflow import build_composite_uri

pytestmark = pytest.mark.usefixtures("unflushed")


class Registry:
    def __init__(self, **given):
        self.given = given


def test_builders_of_registries_get_the_arguments_that_they_name(tracker_url):
    def both(store_uri, tracking_uri):
        return Registry(store_uri=store_uri, tracking_uri=tracking_uri)

    def one(store_uri):
        return Registry(store_uri=store_uri)

    from dbnd_mlflow.tracking_store import get_model_registry_store

    registry = _get_store_registry()
    for builder, expected in (
        (both, {"store_uri": "probe-both://x", "tracking_uri": "probe-both://x"}),
        (one, {"store_uri": "probe-one://x"}),
    ):
        scheme = f"probe-{builder.__name__}"
        registry.register(scheme, builder)
        try:
            uri = build_composite_uri(tracker_url, f"{scheme}://x")
            assert get_model_registry_store(store_uri=uri, tracking_uri=uri).given == expected
        finally:
            registry._registry.pop(scheme)


def test_the_registry_of_databricks_is_the_native_one(tracker_url, monkeypatch):
    for name in ("DATABRICKS_HOST", "DATABRICKS_TOKEN"):
        monkeypatch.setenv(name, "https://databricks.invalid")
    found = []
    for uri in ("databricks", build_composite_uri(tracker_url, "databricks")):
        mlflow.set_tracking_uri(uri)
        store = outcome(lambda: MlflowClient()._get_registry_client().store)
        found.append(store if isinstance(store, tuple) else store.__class__)
    assert found[1] == found[0]
    mlflow.set_tracking_uri(None)


@pytest.mark.parametrize("kind", ["sqlite", "file", "unknown"])
def test_scorers_are_listed_or_refused_as_natively(kind, tracker_url, inner_uri, tmp_path):
    registry = pytest.importorskip("mlflow.genai.scorers.registry")
    if not hasattr(registry, "_get_scorer_store"):
        pytest.skip("this MLflow has no scorer stores")
    inner = {"sqlite": inner_uri, "file": (tmp_path / "runs").as_uri(), "unknown": "nonsense://x"}[kind]
    experiment_id = "0"
    found = []
    for uri in (inner, build_composite_uri(tracker_url, inner)):
        mlflow.set_tracking_uri(uri)
        store = outcome(registry._get_scorer_store, uri)
        listed = store if isinstance(store, tuple) else outcome(store.list_scorers, experiment_id)
        found.append((store if isinstance(store, tuple) else type(store), listed))
    assert found[1] == found[0]


@pytest.mark.parametrize("kind", ["sqlite", "file"])
def test_workspaces_are_listed_or_refused_as_natively(kind, tracker_url, inner_uri, tmp_path):
    registry = pytest.importorskip("mlflow.tracking._workspace.registry")
    inner = inner_uri if kind == "sqlite" else (tmp_path / "runs").as_uri()
    native, ours = (
        outcome(registry.get_workspace_store, uri) for uri in (inner, build_composite_uri(tracker_url, inner))
    )
    assert type(ours) is type(native)
    if isinstance(native, tuple):
        assert ours == native
    else:
        assert [each.name for each in ours.list_workspaces()] == [each.name for each in native.list_workspaces()]


@pytest.fixture
def workspace():
    """A server that knows nothing: Databricks' library asks it about itself before it gives credentials."""

    class Unknowing(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_error(404)

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Unknowing)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("inner", ["databricks", "databricks://profile", "http://localhost:1"])
def test_dbfs_artifacts_have_the_profile_of_the_own_tracking_uri(inner, tracker_url, home, workspace, monkeypatch):
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    profiles = ("DEFAULT", "profile")
    text = "".join(f"[{name}]\nhost = {workspace}\ntoken = of {name}\n" for name in profiles)
    config_file = home / ".databrickscfg"
    config_file.write_text(text)
    # MLflow 2.x looks for the home when it is imported.
    monkeypatch.setenv("DATABRICKS_CONFIG_FILE", str(config_file))
    found = []
    for tracking_uri in (inner, build_composite_uri(tracker_url, inner)):
        mlflow.set_tracking_uri(tracking_uri)
        repository = get_artifact_repository(_with_profile("dbfs:/a/b", tracking_uri))
        credentials = repository.get_host_creds()
        found.append((type(repository), repository.artifact_uri, credentials.host, credentials.token))
    assert found[1] == found[0]


def _with_profile(uri, tracking_uri):
    """What MLflow does before it asks for a repository."""
    from mlflow.utils.uri import add_databricks_profile_info_to_artifact_uri

    return add_databricks_profile_info_to_artifact_uri(uri, tracking_uri)


_REPLICA = """
from mlflow.server import handlers
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

uri, replica, folder = {arguments}
SqlAlchemyStore(replica, folder).create_experiment("only on the replica")
handlers.initialize_backend_stores(uri, default_artifact_root=folder, read_replica_backend_store_uri=replica)
print(handlers._get_tracking_store().get_experiment_by_name("only on the replica").name)
print(handlers._get_model_registry_store().read_engine.url.database)
"""


def test_a_server_reads_its_replica(python, tracker_url, inner_uri, empty_database, tmp_path):
    constants = pytest.importorskip("mlflow.server.constants")
    if not hasattr(constants, "READ_REPLICA_BACKEND_STORE_URI_ENV_VAR"):
        pytest.skip("this MLflow has no read replicas")
    replica = shutil.copy(empty_database, tmp_path / "replica.db")
    uri = build_composite_uri(tracker_url, inner_uri)
    done = python(_REPLICA.format(arguments=(uri, f"sqlite:///{replica}", str(tmp_path))))
    assert done.stdout.splitlines() == ["only on the replica", str(replica)], done.stderr
