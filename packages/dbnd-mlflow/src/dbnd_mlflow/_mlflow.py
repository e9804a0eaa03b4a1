"""MLflow's own tracking stores, built as MLflow builds them."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Iterator
from collections.abc import Set as AbstractSet
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

STAGES: Final = {
    "_hard_delete_experiment": "deleted",
    "_hard_delete_run": "deleted",
    "delete_experiment": "deleted",
    "delete_run": "deleted",
    "restore_experiment": "active",
    "restore_run": "active",
}
"""Methods that delete or restore a run, or all runs of an experiment: the stage of those runs afterwards."""
# Where an MLflow server says which replica of its database it reads.
_READ_REPLICA: Final = "_MLFLOW_SERVER_READ_REPLICA_BACKEND_STORE"


def build_inner(uri: str, artifact_uri: str | None) -> Any:
    """The tracking store that MLflow would use with this URI, built by MLflow's own builder."""
    from mlflow.tracking._tracking_service import utils
    from mlflow.utils.uri import is_local_uri

    if artifact_uri and is_local_uri(uri):
        # A server over a file store: MLflow's client-side builder leaves the artifact root out.
        from mlflow.store.tracking.file_store import FileStore

        return FileStore(uri, artifact_uri)
    registry = server_registry("_tracking_store_registry", uri) or utils._tracking_store_registry
    builder = registry.get_store_builder(uri)
    # MLflow's own, where it is wrapped in one of ours (see ``explicit``).
    while hasattr(builder, "databand_wraps"):
        builder = builder.databand_wraps
    return builder(store_uri=uri, artifact_uri=artifact_uri)


def file_of(uri: str) -> Path | None:
    """The file or folder of a store that is one: of a SQLite database or of a file store."""
    parts = urlsplit(uri)
    if parts.scheme.partition("+")[0] == "sqlite":
        from mlflow.store.db import utils  # it has SQLAlchemy, whose versions differ in what they make of a "%"

        file = utils.sqlalchemy.make_url(uri).database  # type: ignore[attr-defined]
        # SQLite reads what begins with "file:" as a URI of its own.
        return Path(file) if file and not file.startswith((":memory:", "file:")) else None
    if parts.scheme == "file":
        return Path(unquote(parts.path))
    return Path(unquote(uri)) if parts.scheme == "" and uri != "databricks" else None


def current_workspace() -> str | None:
    """The workspace in which calls of this thread are made; None where none is set, and before MLflow 3.10."""
    return _workspace_getter()()


@functools.cache
def _workspace_getter() -> Callable[[], str | None]:
    try:
        from mlflow.utils.workspace_context import get_request_workspace
    except ImportError:
        return lambda: None
    found: Callable[[], str | None] = get_request_workspace
    return found


def in_workspace(name: str | None) -> AbstractContextManager[object]:
    """Make the calls of this thread in a workspace; where there is none, as they would be."""
    if name is None:
        return nullcontext()
    # As a server sets it: the environment is that of all threads.
    from mlflow.utils.workspace_context import ServerWorkspaceContext

    found: AbstractContextManager[object] = ServerWorkspaceContext(name)
    return found


def is_any_of(store: Any, names: AbstractSet[str]) -> bool:
    """Whether a store's class, or one that it is made from, has one of these names; nothing is imported for it."""
    return any(base.__name__ in names for base in type(store).__mro__)


def server_registry(name: str, uri: str) -> Any:
    """The builders of a server with a read replica, which those of a client leave out; None anywhere else."""
    handlers = sys.modules.get("mlflow.server.handlers")
    if handlers is None or _READ_REPLICA not in os.environ:
        return None
    from mlflow.store.db.db_types import DATABASE_ENGINES

    return getattr(handlers, name) if urlsplit(uri).scheme.partition("+")[0] in DATABASE_ENGINES else None


def pages(ask: Callable[[str | None], Any]) -> Iterator[Any]:
    """What MLflow answers page by page, where ``ask`` takes the token of a page."""
    token = None
    while True:
        page = ask(token)
        yield from page
        token = page.token
        if not token:
            return


def metric_history(store: Any, run_id: str, key: str) -> Iterator[Any]:
    """All points of a metric, asked for page by page, as MLflow's client does.

    Without the size of a page, a server of MLflow 3.1 to 3.8 answers with no point.
    """
    from mlflow.store.tracking import GET_METRIC_HISTORY_MAX_RESULTS

    def ask(token: str | None) -> Any:
        return store.get_metric_history(run_id, key, max_results=GET_METRIC_HISTORY_MAX_RESULTS, page_token=token)

    return pages(ask)
