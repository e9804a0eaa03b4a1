"""MLflow's own artifact repositories, for those URIs whose meaning depends on the tracking URI."""

from __future__ import annotations

import os
import posixpath
from pathlib import Path
from typing import Any

from mlflow.store.artifact.artifact_repo import ArtifactRepository, verify_artifact_path
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.store.artifact.mlflow_artifacts_repo import MlflowArtifactsRepository

from .._uri import is_composite_uri
from .builders import inner_uri, tracking_store, uri_or_current
from .explicit import tracked_uri
from .store import DatabandStore


def dbfs_repository(artifact_uri: str, *args: Any, **kwargs: Any) -> Any:
    """The repository of ``dbfs:`` URIs, with the Databricks profile of the user's own tracking URI."""
    from mlflow.store.artifact.dbfs_artifact_repo import dbfs_artifact_repo_factory
    from mlflow.utils.uri import add_databricks_profile_info_to_artifact_uri

    tracking_uri = uri_or_current((args[0] if args else kwargs.get("tracking_uri")) or None)
    if is_composite_uri(tracking_uri):
        # Done by MLflow before it asks for the repository, if the tracking URI is that of a workspace.
        artifact_uri = add_databricks_profile_info_to_artifact_uri(artifact_uri, inner_uri(tracking_uri))
    return dbfs_artifact_repo_factory(artifact_uri, *args, **kwargs)


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
        """Send a file, or keep it, and report its name: a run's end would have to ask the server for it."""
        durable = durable_artifacts(self._databand_store)
        if durable is None:
            super().log_artifact(local_file, artifact_path)
        else:
            verify_artifact_path(artifact_path)
            durable.log(self._databand_root, local_file, artifact_path)
        report_artifact(self._databand_store, self._databand_root, local_file, artifact_path)

    def list_artifacts(self, path: str | None = None) -> Any:
        """The files and folders below one, those among them that waited to be sent."""
        if (durable := durable_artifacts(self._databand_store)) is not None:
            durable.deliver()
        return super().list_artifacts(path)

    def _download_file(self, remote_file_path: str, local_path: str) -> Any:
        if (durable := durable_artifacts(self._databand_store)) is not None:
            durable.deliver()
        return super()._download_file(remote_file_path, local_path)


class SpoolRepository(ArtifactRepository):
    """Artifacts of a run that MLflow's store has not created yet, or only since."""

    def __init__(self, artifact_uri: str, *args: Any, **kwargs: Any) -> None:
        super().__init__(artifact_uri, *args, **kwargs)
        self._databand_store = tracking_store(uri_or_current(getattr(self, "tracking_uri", None) or None), None)
        self._databand_durable = durable_artifacts(self._databand_store)

    def log_artifact(self, local_file: str, artifact_path: str | None = None) -> None:
        """Keep a file until the run is created."""
        verify_artifact_path(artifact_path)
        self._databand_durable.log(self.artifact_uri, local_file, artifact_path)
        report_artifact(self._databand_store, self.artifact_uri, local_file, artifact_path)

    def log_artifacts(self, local_dir: str, artifact_path: str | None = None) -> None:
        """Keep the files of a folder, and of those below it."""
        for parent, _, names in os.walk(local_dir):
            below = posixpath.normpath(posixpath.join(artifact_path or "", os.path.relpath(parent, local_dir)))
            for name in names:
                self.log_artifact(str(Path(parent, name)), None if below == "." else below)

    def list_artifacts(self, path: str | None = None) -> Any:
        """The files and folders below one."""
        return self._real().list_artifacts(path)

    def _download_file(self, remote_file_path: str, local_path: str) -> Any:
        return self._real()._download_file(remote_file_path, local_path)

    def _real(self) -> Any:
        self._databand_durable.deliver()
        root = self._databand_durable.real_root(self.artifact_uri)
        if root is None:
            return self._databand_durable.spooled(self.artifact_uri)
        uri = getattr(self, "tracking_uri", None)  # older versions of MLflow have but the one that is set
        return get_artifact_repository(root, uri) if uri else get_artifact_repository(root)


def durable_artifacts(store: Any) -> Any:
    """What keeps the artifacts of a store until its server has them; None where nothing does."""
    if type(store) is not DatabandStore:
        return None
    from .._durable.store import DurableStore

    durable = store._databand_inner
    return durable._databand_with.current.artifacts if type(durable) is DurableStore else None


def report_artifact(store: Any, root: str, local_file: str, artifact_path: str | None) -> None:
    """Report a file that was logged, if the store is tracked."""
    if type(store) is DatabandStore:
        store._databand_with.artifact_logged(root, Path(artifact_path or "", Path(local_file).name).as_posix())
