"""Building the stores behind a composite URI: the user's own, wrapped where there is something to report.

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
from typing import Any, Final
from weakref import WeakValueDictionary

from .._mlflow import build_inner, is_any_of, server_registry
from .._uri import is_composite_uri, parse_composite_uri
from .store import DatabandStore

_lock = threading.RLock()
# Kept as long as somebody uses them: MLflow has a cache of its own.
_stores: Final[WeakValueDictionary[tuple[int, str, str | None], Any]] = WeakValueDictionary()
# Stores of MLflow's own that are read without a request to a server.
_NEAR: Final = frozenset({"SqlAlchemyStore", "FileStore"})
# MLflow 2.9 sets no variable for the process in which it loads a model to find out what it imports.
_CAPTURING: Final = frozenset({"_capture_modules.py", "_capture_transformers_modules.py"})


def _renew_lock() -> None:
    global _lock  # noqa: PLW0603  the one lock of the module; a thread of the parent may have held it
    _lock = threading.RLock()


os.register_at_fork(after_in_child=_renew_lock)


def tracking_store(store_uri: str | None, artifact_uri: str | None) -> Any:
    """The one store of this process for a composite URI (see ``get_dbnd_store``)."""
    uri = uri_or_current(store_uri)
    return _single(uri, artifact_uri, lambda: _build(uri, artifact_uri))


def model_registry_store(store_uri: str | None, tracking_uri: str | None) -> Any:
    """The model registry that MLflow would use with the user's own URI; versions of models are reported."""
    uri, tracking = uri_or_current(store_uri), uri_or_current(tracking_uri)
    return _single(f"registry:{uri}", tracking, lambda: _build_registry(uri, tracking))


def scorer_store(tracking_uri: str | None) -> Any:
    """MLflow's own scorer store, over the tracking store of the composite URI."""
    from mlflow.genai.scorers import registry

    uri = uri_or_current(tracking_uri)
    builder = registry._scorer_store_registry.get_store_builder(inner_uri(uri))  # refuses as natively
    # Scorers of an MLflow store go through its tracking store, which is wrapped; others have stores of their own.
    is_plain = builder is registry.MlflowTrackingStore
    return builder(tracking_uri=uri if is_plain else inner_uri(uri))


def workspace_store(workspace_uri: str | None) -> Any:
    """The workspace store that MLflow would use with the user's own URI."""
    from mlflow.tracking._workspace.registry import get_workspace_store

    return get_workspace_store(inner_uri(uri_or_current(workspace_uri)))


def inner_uri(uri: str) -> str:
    """The user's own half of a composite URI; any other URI as it is."""
    if not is_composite_uri(uri):
        return uri
    return parse_composite_uri(uri).duplicate_tracking_to or default_tracking_uri()


def default_tracking_uri() -> str:
    """Where MLflow itself would log, were no tracking URI set."""
    from mlflow.tracking._tracking_service import utils

    default = getattr(utils, "_get_default_tracking_uri", None)
    if default is not None:
        return str(default())
    from mlflow.store.tracking import DEFAULT_LOCAL_FILE_AND_ARTIFACT_PATH

    return str(DEFAULT_LOCAL_FILE_AND_ARTIFACT_PATH)


def uri_or_current(uri: str | None) -> str:
    """``uri``, or MLflow's tracking URI for None."""
    if uri is not None:
        return uri
    import mlflow

    return str(mlflow.get_tracking_uri())


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
    plain = build_inner(inner_uri(uri), artifact_uri)
    if finds_requirements():
        return plain
    inner, first_id = _durable(plain, uri)
    is_near = is_any_of(plain, _NEAR)
    reporter = _reporter(uri, lambda: inner, is_near=is_near, first_id=first_id)
    store = DatabandStore(inner, reporter, (tracking_store, (uri, artifact_uri)))
    queue: Any = getattr(plain, "_async_logging_queue", None)
    if hasattr(queue, "_logging_func"):  # the inner store's log_batch, which nothing would report
        queue._logging_func = store.log_batch
    return store


def _durable(plain: Any, uri: str) -> tuple[Any, Callable[[str], str]]:
    """The store as ``mlflow_tracking.store_writes`` wants it, and what gives the first ids of its runs."""
    writes = _writes(uri)
    if writes is None:
        return plain, str
    from dbnd.plugins import mask_url
    from dbnd.tracking import current_config

    from .._durable.ids import Ids
    from .._durable.store import durable_store
    from .._durable.transport import ids_folder
    from .._reporting.pairs import report_pair

    config, inner = current_config(lenient=True), inner_uri(uri)
    on_created = functools.partial(report_pair, config, inner)
    tracker = mask_url(parse_composite_uri(uri).databand_url)
    store = durable_store(plain, inner, tracker, config, writes, on_created)
    return store, Ids(ids_folder(config)).first


def _writes(uri: str) -> str | None:
    """How writes are kept, as ``mlflow_tracking.store_writes`` or, which counts more, the URI says; None for not."""
    from dbnd.tracking import current_config

    from .._settings import DIRECT, MlflowTrackingSettings

    said = parse_composite_uri(uri).store_writes if is_composite_uri(uri) else DIRECT
    writes = said or current_config(lenient=True).settings(MlflowTrackingSettings).store_writes
    return None if writes == DIRECT else writes


def _build_registry(uri: str, tracking_uri: str) -> Any:
    from mlflow.tracking._model_registry import utils

    inner = inner_uri(uri)
    resolve = getattr(utils, "_get_default_registry_uri_for_tracking_uri", None)
    if resolve is not None:  # Databricks keeps models in its Unity Catalog, under another URI
        inner = resolve(inner) or inner
    registry = server_registry("_model_registry_store_registry", inner) or utils._get_store_registry()
    builder = registry.get_store_builder(inner)
    arguments = {"store_uri": inner, "tracking_uri": inner_uri(tracking_uri)}
    # MLflow passes tracking_uri only to builders that name it, and so do we.
    if not {"store_uri", "tracking_uri"} <= set(inspect.signature(builder).parameters):
        del arguments["tracking_uri"]
    store = builder(**arguments)
    if not is_composite_uri(uri) or finds_requirements():
        return store
    reporter = _reporter(uri, lambda: tracking_store(tracking_uri, None), is_near=False)
    if _writes(tracking_uri) is not None:
        from .._durable.store import durable_registry

        store = durable_registry(store, tracking_store(tracking_uri, None)._databand_inner)
    return DatabandStore(store, reporter, (model_registry_store, (uri, tracking_uri)))


def _reporter(uri: str, store: Callable[[], Any], *, is_near: bool, first_id: Callable[[str], str] = str) -> Any:
    """The reporter of a composite URI, which reads runs from ``store`` (see ``StoreReader``)."""
    from dbnd.tracking import close_all, current_config, get_client

    from .._reporting.reporter import Reporter
    from .._reporting.store_reader import StoreReader

    # The handler of the entry module runs after MLflow's own, which ends an open run; core's would run before it and
    # close the journal too early.
    atexit.unregister(close_all)
    client = get_client(parse_composite_uri(uri).databand_url, current_config(lenient=True))
    return Reporter(client, inner_uri(uri), StoreReader(store, is_near=is_near, first_id=first_id))


def finds_requirements() -> bool:
    """Whether this is the process in which MLflow finds out what a model imports."""
    is_script = not _CAPTURING.isdisjoint(Path(script).name for script in sys.argv[:1])
    return is_script or bool(os.environ.get("MLFLOW_IN_CAPTURE_MODULE_PROCESS"))
