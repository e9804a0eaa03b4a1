"""Building of the stores behind a composite URI: the user's own, wrapped where we have something to report.

MLflow calls builders while it holds a lock that is not reentrant, so the user's own store is built by its builder and
not through MLflow's cache; a cache of our own takes its place.
"""

from __future__ import annotations

import atexit
import functools
import inspect
import os
import threading
from typing import Any, Final

from dbnd._config import current_config
from dbnd._tracking.client import close_all, get_client

from ._reporter import Reporter
from ._store import DatabandStore
from ._uri import is_composite_uri, parse_composite_uri

# The handler of the entry module runs after MLflow's own, which ends an open run; core's would run before it and close
# the journal too early.
atexit.unregister(close_all)

_lock: Final = threading.RLock()
_stores: Final[dict[tuple[int, str, str | None], Any]] = {}


def tracking_store(store_uri: str | None, artifact_uri: str | None) -> Any:  # noqa: ANN401  a store has no base class
    """The one store of this process for a composite URI (see ``get_dbnd_store``)."""
    uri = _resolve(store_uri)
    with _lock:
        # A forked child makes its own: connections and threads are its parent's.
        key = (os.getpid(), uri, artifact_uri)
        if key not in _stores:
            _stores[key] = _build(uri, artifact_uri)
        return _stores[key]


def _build(uri: str, artifact_uri: str | None) -> Any:  # noqa: ANN401
    composite = parse_composite_uri(uri)
    inner_uri = composite.duplicate_tracking_to or default_tracking_uri()
    inner = _build_inner(inner_uri, artifact_uri)
    # MLflow loads a logged model in a child process to find what it imports: that is no run to track.
    if os.environ.get("_MLFLOW_IN_CAPTURE_MODULE_PROCESS"):
        return inner
    client = get_client(composite.databand_url, current_config())
    store = DatabandStore(inner, Reporter(client, inner_uri, inner.get_run), (tracking_store, (uri, artifact_uri)))
    queue = getattr(inner, "_async_logging_queue", None)
    if queue is not None and hasattr(
        queue, "_logging_func"
    ):  # it holds the inner log_batch, past which nothing would be reported
        queue._logging_func = store.log_batch  # noqa: SLF001
    return store


def _build_inner(uri: str, artifact_uri: str | None) -> Any:  # noqa: ANN401
    from mlflow.tracking._tracking_service import utils

    registry = utils._tracking_store_registry  # noqa: SLF001  its public get_store() would wait for the lock we are in
    from mlflow.utils.uri import is_local_uri

    if artifact_uri and is_local_uri(uri):
        # A server over a file store: MLflow's client-side builder leaves the artifact root out.
        from mlflow.store.tracking.file_store import FileStore

        return FileStore(uri, artifact_uri)
    return registry.get_store_builder(uri)(store_uri=uri, artifact_uri=artifact_uri)


def default_tracking_uri() -> str:
    """Where MLflow itself would log, were no tracking URI set."""
    from mlflow.tracking._tracking_service import utils

    default = getattr(utils, "_get_default_tracking_uri", None)
    if default is not None:
        return str(default())
    from mlflow.store.tracking import DEFAULT_LOCAL_FILE_AND_ARTIFACT_PATH

    return str(DEFAULT_LOCAL_FILE_AND_ARTIFACT_PATH)


def model_registry_store(store_uri: str | None, tracking_uri: str | None) -> Any:  # noqa: ANN401
    """The model registry that MLflow would use with the user's own URI; versions of models are reported."""
    uri, tracking = _resolve(store_uri), _resolve(tracking_uri)
    with _lock:
        key = (os.getpid(), f"registry:{uri}", tracking)
        if key not in _stores:
            _stores[key] = _build_registry(uri, tracking)
        return _stores[key]


def _build_registry(uri: str, tracking_uri: str) -> Any:  # noqa: ANN401
    from mlflow.tracking._model_registry import utils

    inner = _inner_uri(uri)
    resolve = getattr(utils, "_get_default_registry_uri_for_tracking_uri", None)
    if resolve is not None:  # Databricks keeps models in its Unity Catalog, under another URI
        inner = resolve(inner) or inner
    builder = utils._get_store_registry().get_store_builder(inner)  # noqa: SLF001
    arguments = {"store_uri": inner, "tracking_uri": _inner_uri(tracking_uri)}
    # MLflow passes tracking_uri only to builders that name it, and so do we.
    if not {"store_uri", "tracking_uri"} <= set(inspect.signature(builder).parameters):
        del arguments["tracking_uri"]
    store = builder(**arguments)
    if not is_composite_uri(uri):
        return store
    client = get_client(parse_composite_uri(uri).databand_url, current_config())

    def read_run(run_id: str) -> Any:  # noqa: ANN401
        return tracking_store(tracking_uri, None).get_run(run_id)

    return DatabandStore(store, Reporter(client, inner, read_run), (model_registry_store, (uri, tracking_uri)))


def scorer_store(tracking_uri: str | None) -> Any:  # noqa: ANN401
    """MLflow's own scorer store, over the tracking store of the composite URI."""
    from mlflow.genai.scorers import registry

    uri = _resolve(tracking_uri)
    builder = registry._scorer_store_registry.get_store_builder(_inner_uri(uri))  # noqa: SLF001  refuses as natively
    # Scorers of an MLflow store go through its tracking store, which is wrapped; others have stores of their own.
    is_plain = builder is registry.MlflowTrackingStore
    return builder(tracking_uri=uri if is_plain else _inner_uri(uri))


def workspace_store(workspace_uri: str | None) -> Any:  # noqa: ANN401
    """The workspace store that MLflow would use with the user's own URI."""
    from mlflow.tracking._workspace.registry import get_workspace_store

    return get_workspace_store(_inner_uri(_resolve(workspace_uri)))


def artifact_repository(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401  its arguments differ between MLflow versions
    """MLflow's own repository, resolving against the user's own MLflow server."""
    return _repository_class()(*args, **kwargs)


@functools.cache
def _repository_class() -> Any:  # noqa: ANN401
    from mlflow.store.artifact.mlflow_artifacts_repo import MlflowArtifactsRepository

    class DatabandArtifactsRepository(MlflowArtifactsRepository):
        """``mlflow-artifacts:`` under a composite tracking URI."""

        @classmethod
        def resolve_uri(cls, artifact_uri: str, tracking_uri: str) -> Any:  # noqa: ANN401  as MLflow declares it
            """The http URL of an artifact."""
            return super().resolve_uri(artifact_uri, _inner_uri(tracking_uri))

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
