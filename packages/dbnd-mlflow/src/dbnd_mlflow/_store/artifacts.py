"""MLflow's own artifact repositories, for those URIs whose meaning depends on the tracking URI."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from .._uri import is_composite_uri
from .builders import inner_uri, tracking_store, uri_or_current
from .explicit import tracked_uri
from .store import DatabandStore


def artifact_repository(*args: Any, **kwargs: Any) -> Any:
    """The repository of ``mlflow-artifacts:`` URIs, which are resolved against the user's own MLflow server."""
    return _repository_class()(*args, **kwargs)


def dbfs_repository(artifact_uri: str, *args: Any, **kwargs: Any) -> Any:
    """The repository of ``dbfs:`` URIs, with the Databricks profile of the user's own tracking URI."""
    from mlflow.store.artifact.dbfs_artifact_repo import dbfs_artifact_repo_factory
    from mlflow.utils.uri import add_databricks_profile_info_to_artifact_uri

    tracking_uri = uri_or_current((args[0] if args else kwargs.get("tracking_uri")) or None)
    if is_composite_uri(tracking_uri):
        # Done by MLflow before it asks for the repository, if the tracking URI is that of a workspace.
        artifact_uri = add_databricks_profile_info_to_artifact_uri(artifact_uri, inner_uri(tracking_uri))
    return dbfs_artifact_repo_factory(artifact_uri, *args, **kwargs)


@functools.cache
def _repository_class() -> Any:
    from mlflow.store.artifact.mlflow_artifacts_repo import MlflowArtifactsRepository

    class DatabandArtifactsRepository(MlflowArtifactsRepository):
        """``mlflow-artifacts:`` under a composite tracking URI."""

        def __init__(self, artifact_uri: str, *args: Any, **kwargs: Any) -> None:
            super().__init__(artifact_uri, *args, **kwargs)
            self._databand_root = artifact_uri
            composite = tracked_uri(uri_or_current(getattr(self, "tracking_uri", None) or None))
            self._databand_store = None if composite is None else tracking_store(composite, None)

        @classmethod
        def resolve_uri(cls, artifact_uri: str, tracking_uri: str) -> Any:
            """The http URL of an artifact."""
            return super().resolve_uri(artifact_uri, inner_uri(tracking_uri))

        def log_artifact(self, local_file: str, artifact_path: str | None = None) -> None:
            """Send a file, and report its name: a run's end would have to ask the server for it."""
            super().log_artifact(local_file, artifact_path)
            if type(self._databand_store) is DatabandStore:
                name = Path(artifact_path or "", Path(local_file).name).as_posix()
                self._databand_store._databand_reporter.artifact_logged(self._databand_root, name)

    return DatabandArtifactsRepository
