"""What MLflow's entry points name: builders for stores behind a composite URI.

MLflow imports this module while ``import mlflow`` is still going on, and an exception here would break that for
everyone. So it imports nothing but the standard library, and never with an absolute name what is ours (MLflow would
list it among the requirements of a model that is logged).
"""

from __future__ import annotations

import atexit
import functools
import os
import sys
from collections.abc import Callable
from typing import Any


def get_dbnd_store(store_uri: str | None = None, artifact_uri: str | None = None, **_: Any) -> Any:
    """The tracking store of a composite URI: a ``DatabandStore`` over the user's own.

    Raises:
        ConfigError: The URI or the configuration cannot be used.
        MlflowException: The user's own store cannot be built.
    """
    from ._store.builders import tracking_store

    return tracking_store(store_uri, artifact_uri)


# MLflow passes `tracking_uri` only to builders that name both arguments.
def get_model_registry_store(store_uri: str | None = None, tracking_uri: str | None = None, **_: Any) -> Any:
    """The model registry of a composite URI: that of the user's own store."""
    from ._store.builders import model_registry_store

    return model_registry_store(store_uri, tracking_uri)


def get_scorer_store(tracking_uri: str | None = None, **_: Any) -> Any:
    """The scorer store of a composite URI, which works through its tracking store."""
    from ._store.builders import scorer_store

    return scorer_store(tracking_uri)


def get_workspace_store(workspace_uri: str | None = None, **_: Any) -> Any:
    """The workspace store of a composite URI: that of the user's own store."""
    from ._store.builders import workspace_store

    return workspace_store(workspace_uri)


def get_artifact_repository(*args: Any, **kwargs: Any) -> Any:
    """The repository of ``mlflow-artifacts:`` URIs, which are relative to the user's own MLflow server."""
    from ._store.artifacts import DatabandArtifactsRepository

    return DatabandArtifactsRepository(*args, **kwargs)


def get_spool_repository(*args: Any, **kwargs: Any) -> Any:
    """The repository of a run that was created while MLflow's server was away (``dbnd-spool:``)."""
    from ._store.artifacts import SpoolRepository

    return SpoolRepository(*args, **kwargs)


def get_dbfs_repository(*args: Any, **kwargs: Any) -> Any:
    """The repository of ``dbfs:`` URIs, which belong to the workspace of the user's own tracking URI."""
    from ._store.artifacts import dbfs_repository

    return dbfs_repository(*args, **kwargs)


# The tracking URI of the environment; MLflow puts that of set_tracking_uri() in its place.
_given = os.environ.get("MLFLOW_TRACKING_URI", "")


class RunContext:
    """Made by MLflow when it is imported, and asked for tags before MLflow creates a run."""

    def __init__(self) -> None:
        """Have stores tracked that code of this process names by their own URI, past that of its environment."""
        # What is there already: MLflow's import is still going on.
        utils = sys.modules.get("mlflow.tracking._tracking_service.utils")
        registry: Any = getattr(utils, "_tracking_store_registry", None)
        builders = dict(getattr(registry, "_registry", {}))
        if builders.get(_given.partition(":")[0].lower()) is get_dbnd_store:
            for scheme, builder in builders.items():
                if builder is not get_dbnd_store:
                    registry.register(scheme, _watched(builder))

    def in_context(self) -> bool:
        """Whether there are tags."""
        return _main_file() is not None

    def tags(self) -> dict[str, str]:
        """The source of a run under ``dbnd run``: MLflow itself would name the command ``dbnd``, and its commit."""
        from ._store.source import source_tags

        main_file = _main_file()
        return {} if main_file is None else source_tags(main_file)


def _watched(builder: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(builder)
    def build(store_uri: str, artifact_uri: str | None = None, **kwargs: Any) -> Any:
        from ._store.explicit import build_watched

        return build_watched(_given, builder, store_uri, artifact_uri, **kwargs)

    build.databand_wraps = builder  # type: ignore[attr-defined]
    return build


def _main_file() -> str | None:
    dbnd = sys.modules.get("dbnd")
    context = None if dbnd is None else dbnd.get_databand_context()
    if context is not None and context.main_file is not None:
        return str(context.main_file)
    # A worker of multiprocessing or joblib is given the command line of the process that has started it.
    command = sys.argv[0] if sys.argv else ""
    return os.environ.get("DBND_MAIN_FILE") if command.rpartition(os.sep)[2] == "dbnd" else None


def _close_clients() -> None:
    tracking = sys.modules.get("dbnd.tracking")
    if tracking is not None:
        tracking.close_all()


# Handlers run last in, first out: this one is registered before MLflow's own, which ends the run that a script has left
# open, and so runs after it.
atexit.register(_close_clients)
