"""Building of the stores behind a composite URI: the user's own, wrapped where we have something to report.

MLflow calls builders while it holds a lock that is not reentrant, so the user's own store is built by its builder and
not through MLflow's cache; a cache of our own takes its place.

MLflow loads a logged model in a child process to find out what it imports. That is no run to track: the child gets the
user's own store as it is, and imports nothing of dbnd, which MLflow would take for a requirement of the model.
"""

from __future__ import annotations

import atexit
import functools
import inspect
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit
from weakref import WeakValueDictionary

from .._uri import is_composite_uri, parse_composite_uri
from .store import DatabandStore

if TYPE_CHECKING:
    from dbnd import TrackingAPIClient

_lock = threading.RLock()
# Kept as long as somebody uses them: MLflow has a cache of its own.
_stores: Final[WeakValueDictionary[tuple[int, str, str | None], Any]] = WeakValueDictionary()
# Stores of MLflow's own that are read without a request to a server.
_NEAR: Final = frozenset({"SqlAlchemyStore", "FileStore"})
# Where an MLflow server says which replica of its database it reads.
_READ_REPLICA: Final = "_MLFLOW_SERVER_READ_REPLICA_BACKEND_STORE"
# Scripts of MLflow that load a model to find out what it imports.
_CAPTURING: Final = frozenset({"_capture_modules.py", "_capture_transformers_modules.py"})


def _after_fork_in_child() -> None:
    global _lock  # noqa: PLW0603  the one lock of the module; a thread of the parent may have held it
    _lock = threading.RLock()
    reporter = sys.modules.get("dbnd_mlflow._reporting.reporter")
    if reporter is not None:
        reporter.renew_locks()


os.register_at_fork(after_in_child=_after_fork_in_child)


def tracking_store(store_uri: str | None, artifact_uri: str | None) -> Any:
    """The one store of this process for a composite URI (see ``get_dbnd_store``)."""
    uri = _resolve(store_uri)
    return _single(uri, artifact_uri, lambda: _build(uri, artifact_uri))


def _single(uri: str, other: str | None, build: Callable[[], Any]) -> Any:
    """The store that ``build`` makes, made once however many threads ask for it."""
    with _lock:
        # A forked child makes its own: connections and threads are its parent's.
        key = (os.getpid(), uri, other)
        store = _stores.get(key)
        if store is None:
            store = _stores[key] = build()
        return store


def _build(uri: str, artifact_uri: str | None) -> Any:
    composite = parse_composite_uri(uri)
    inner_uri = composite.duplicate_tracking_to or default_tracking_uri()
    inner = _build_inner(inner_uri, artifact_uri)
    if _finds_requirements():
        return inner
    from .._reporting.reporter import Reporter, StoreReader

    client = _client(composite.databand_url)
    is_near = any(base.__name__ in _NEAR for base in type(inner).__mro__)
    reporter = Reporter(client, inner_uri, StoreReader(is_near, inner.get_run, functools.partial(_tag, inner), inner))
    store = DatabandStore(inner, reporter, (tracking_store, (uri, artifact_uri)))
    queue = getattr(inner, "_async_logging_queue", None)
    if queue is not None and hasattr(
        queue, "_logging_func"
    ):  # it holds the inner log_batch, past which nothing would be reported
        queue._logging_func = store.log_batch  # noqa: SLF001
    return store


def _tag(store: Any, run_id: str, key: str, value: str) -> None:
    from mlflow.entities import RunTag

    store.set_tag(run_id, RunTag(key, value))


def _finds_requirements() -> bool:
    """Whether this is the process in which MLflow finds out what a model imports."""
    # MLflow 2.9 has no variable for it, only scripts.
    is_script = not _CAPTURING.isdisjoint(Path(script).name for script in sys.argv[:1])
    return is_script or bool(os.environ.get("MLFLOW_IN_CAPTURE_MODULE_PROCESS"))


def _client(databand_url: str) -> TrackingAPIClient:
    # The handler of the entry module runs after MLflow's own, which ends an open run; core's would run before it and
    from dbnd.tracking import close_all, current_config, get_client

    # The handler of the entry module runs after MLflow's own, which ends an open run; core's would run before it and
    # close the journal too early.
    atexit.unregister(close_all)
    return get_client(databand_url, current_config(lenient=True))


def _build_inner(uri: str, artifact_uri: str | None) -> Any:
    from mlflow.tracking._tracking_service import utils

    registry = utils._tracking_store_registry  # noqa: SLF001  its public get_store() would wait for the lock we are in
    from mlflow.utils.uri import is_local_uri

    if artifact_uri and is_local_uri(uri):
        # A server over a file store: MLflow's client-side builder leaves the artifact root out.
        from mlflow.store.tracking.file_store import FileStore

        return FileStore(uri, artifact_uri)
    registry = _server_registry("_tracking_store_registry", uri) or registry
    return _own_builder(registry.get_store_builder(uri))(store_uri=uri, artifact_uri=artifact_uri)


def _own_builder(builder: Callable[..., Any]) -> Callable[..., Any]:
    """MLflow's own builder, where one of ours follows it while tracking is on."""
    explicit = sys.modules.get(f"{__package__}.explicit")
    own: Callable[..., Any] = builder if explicit is None else explicit.followed(builder)
    return own


def _tracked_uri(uri: str) -> str | None:
    """The composite URI by which the store of a tracking URI is tracked; None if it is not."""
    explicit = sys.modules.get(f"{__package__}.explicit")
    if explicit is None:
        return uri if is_composite_uri(uri) else None
    composite: str | None = explicit.tracked_uri(uri)
    return composite


def _server_registry(name: str, uri: str) -> Any:
    """The builders of a server with a read replica, which those of a client leave out; None anywhere else."""
    handlers = sys.modules.get("mlflow.server.handlers")
    if handlers is None or _READ_REPLICA not in os.environ:
        return None
    from mlflow.store.db.db_types import DATABASE_ENGINES

    return getattr(handlers, name) if urlsplit(uri).scheme.partition("+")[0] in DATABASE_ENGINES else None


def default_tracking_uri() -> str:
    """Where MLflow itself would log, were no tracking URI set."""
    from mlflow.tracking._tracking_service import utils

    default = getattr(utils, "_get_default_tracking_uri", None)
    if default is not None:
        return str(default())
    from mlflow.store.tracking import DEFAULT_LOCAL_FILE_AND_ARTIFACT_PATH

    return str(DEFAULT_LOCAL_FILE_AND_ARTIFACT_PATH)


def model_registry_store(store_uri: str | None, tracking_uri: str | None) -> Any:
    """The model registry that MLflow would use with the user's own URI; versions of models are reported."""
    uri, tracking = _resolve(store_uri), _resolve(tracking_uri)
    return _single(f"registry:{uri}", tracking, lambda: _build_registry(uri, tracking))


def _build_registry(uri: str, tracking_uri: str) -> Any:
    from mlflow.tracking._model_registry import utils

    inner = _inner_uri(uri)
    resolve = getattr(utils, "_get_default_registry_uri_for_tracking_uri", None)
    if resolve is not None:  # Databricks keeps models in its Unity Catalog, under another URI
        inner = resolve(inner) or inner
    registry = _server_registry("_model_registry_store_registry", inner) or utils._get_store_registry()  # noqa: SLF001
    builder = registry.get_store_builder(inner)
    arguments = {"store_uri": inner, "tracking_uri": _inner_uri(tracking_uri)}
    # MLflow passes tracking_uri only to builders that name it, and so do we.
    if not {"store_uri", "tracking_uri"} <= set(inspect.signature(builder).parameters):
        del arguments["tracking_uri"]
    store = builder(**arguments)
    if not is_composite_uri(uri) or _finds_requirements():
        return store
    from .._reporting.reporter import Reporter, StoreReader

    client = _client(parse_composite_uri(uri).databand_url)

    def read_run(run_id: str) -> Any:
        return tracking_store(tracking_uri, None).get_run(run_id)

    reporter = Reporter(client, inner, StoreReader(is_near=False, run=read_run))
    return DatabandStore(store, reporter, (model_registry_store, (uri, tracking_uri)))


def scorer_store(tracking_uri: str | None) -> Any:
    """MLflow's own scorer store, over the tracking store of the composite URI."""
    from mlflow.genai.scorers import registry

    uri = _resolve(tracking_uri)
    builder = registry._scorer_store_registry.get_store_builder(_inner_uri(uri))  # noqa: SLF001  refuses as natively
    # Scorers of an MLflow store go through its tracking store, which is wrapped; others have stores of their own.
    is_plain = builder is registry.MlflowTrackingStore
    return builder(tracking_uri=uri if is_plain else _inner_uri(uri))


def workspace_store(workspace_uri: str | None) -> Any:
    """The workspace store that MLflow would use with the user's own URI."""
    from mlflow.tracking._workspace.registry import get_workspace_store

    return get_workspace_store(_inner_uri(_resolve(workspace_uri)))


def artifact_repository(*args: Any, **kwargs: Any) -> Any:
    """MLflow's own repository, resolving against the user's own MLflow server."""
    return _repository_class()(*args, **kwargs)


def dbfs_repository(artifact_uri: str, *args: Any, **kwargs: Any) -> Any:
    """MLflow's own repository of ``dbfs:`` URIs, with the Databricks profile of the user's own tracking URI."""
    import mlflow
    from mlflow.store.artifact.dbfs_artifact_repo import dbfs_artifact_repo_factory
    from mlflow.utils.uri import add_databricks_profile_info_to_artifact_uri

    tracking_uri = next((value for value in (*args[:1], kwargs.get("tracking_uri")) if value), None)
    tracking_uri = tracking_uri or str(mlflow.get_tracking_uri())
    if is_composite_uri(tracking_uri):
        # Done by MLflow before it asks for the repository, if the tracking URI is that of a workspace.
        artifact_uri = add_databricks_profile_info_to_artifact_uri(artifact_uri, _inner_uri(tracking_uri))
    return dbfs_artifact_repo_factory(artifact_uri, *args, **kwargs)


@functools.cache
def _repository_class() -> Any:
    import mlflow
    from mlflow.store.artifact.mlflow_artifacts_repo import MlflowArtifactsRepository

    class DatabandArtifactsRepository(MlflowArtifactsRepository):
        """``mlflow-artifacts:`` under a composite tracking URI."""

        def __init__(self, artifact_uri: str, *args: Any, **kwargs: Any) -> None:
            super().__init__(artifact_uri, *args, **kwargs)
            tracking_uri = getattr(self, "tracking_uri", None) or str(mlflow.get_tracking_uri())
            self._databand_root = artifact_uri
            # None where nothing is to be reported.
            tracked_uri = _tracked_uri(tracking_uri)
            self._databand_store = None if tracked_uri is None else tracking_store(tracked_uri, None)

        @classmethod
        def resolve_uri(cls, artifact_uri: str, tracking_uri: str) -> Any:
            """The http URL of an artifact."""
            return super().resolve_uri(artifact_uri, _inner_uri(tracking_uri))

        def log_artifact(self, local_file: str, artifact_path: str | None = None) -> None:
            """Send a file, and report its name: a run's end would have to ask the server for it."""
            super().log_artifact(local_file, artifact_path)
            if type(self._databand_store) is DatabandStore:
                name = Path(artifact_path or "", Path(local_file).name).as_posix()
                self._databand_store._databand_reporter.artifact_logged(self._databand_root, name)  # noqa: SLF001

    return DatabandArtifactsRepository


def _inner_uri(uri: str) -> str:
    """The user's own half of a composite URI; any other URI as it is."""
    if not is_composite_uri(uri):
        return uri
    return parse_composite_uri(uri).duplicate_tracking_to or default_tracking_uri()


def _resolve(uri: str | None) -> str:
    if uri is not None:
        return uri
    import mlflow

    return str(mlflow.get_tracking_uri())
