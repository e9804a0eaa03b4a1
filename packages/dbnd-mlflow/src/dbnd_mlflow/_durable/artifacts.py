"""Artifacts that go through MLflow's server: sent, or kept in a spool until they can be.

Files that a run logs elsewhere, such as in a bucket, do not depend on the server, and go there as in MLflow.
"""

from __future__ import annotations

import posixpath
import shutil
import tempfile
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from mlflow.entities import FileInfo
from mlflow.exceptions import MlflowException

from .errors import PassOverAway
from .ids import MODEL, spooled_root
from .target import Target, request

LOG_ARTIFACT: Final = "log_artifact"


class Artifacts:
    """Sends the files of one store's runs; those that wait in the spool may take ``max_bytes`` together."""

    def __init__(self, target: Target, max_bytes: int) -> None:
        self._target = target
        self._folder = target.ids.spool
        self._max_bytes = max_bytes

    def log(self, root: str, local_file: str, artifact_path: str | None) -> None:
        """Send a file to an artifact root, or keep it; MLflow's own error where neither can be done."""
        Path(local_file).stat()  # raises for a file that is not there, as opening it does in MLflow
        is_there = not (self._target.outbox.unsent or self._target.is_away)
        if self._target.is_direct and is_there and self._sent(root, local_file, artifact_path):
            return
        spooled = self._spool(Path(local_file))
        if spooled is not None:
            body = {"root": root, "artifact_path": artifact_path, "name": Path(local_file).name, "file": spooled.name}
            if self._target.keep(LOG_ARTIFACT, body):
                return
            spooled.unlink(missing_ok=True)
        if not self._upload(root, local_file, artifact_path):
            raise MlflowException(
                f"The artifact {local_file} cannot be kept until MLflow's server is back: the spool has reached "
                f"mlflow_tracking.store_spool_max_bytes = {self._max_bytes}, or the disk is full."
            )

    def _sent(self, root: str, local_file: str, artifact_path: str | None) -> bool:
        with PassOverAway(), self._target.asking():
            return self._upload(root, local_file, artifact_path)
        return False

    def _upload(self, root: str, local_file: str, artifact_path: str | None) -> bool:
        """Put a file where it belongs; False if the store has no such place yet."""
        real = self.real_root(root)
        if real is not None:
            upload(real, self._target.uri, local_file, artifact_path, self._target.timeout)
        return real is not None

    def real_root(self, root: str) -> str | None:
        """The store's own name of an artifact root; None while there is none."""
        found = spooled_root(root)
        if found is None:
            return root
        own, below = found
        real = self._target.ids.find(own)
        if real is None:
            return None
        with self._target.asking():
            return f"{artifact_root(self._target.inner, real)}{below}"

    def deliver(self) -> None:
        """Deliver what waits, before artifacts are listed or read; within bounds."""
        self._target.has_delivered()

    def spooled(self, root: str) -> Spooled:
        """What waits below an artifact root."""
        files = {}
        for record in self._target.outbox.waiting():
            if record.call == LOG_ARTIFACT and not record.trouble:
                body = record.body
                path = posixpath.join(body["root"], body["artifact_path"] or "", body["name"])
                if path.startswith(f"{root}/"):
                    files[path.removeprefix(f"{root}/")] = self._folder / body["file"]
        return Spooled(root, files)

    def _spool(self, file: Path) -> Path | None:
        """A copy of a file; None where the spool is full. The user may change the file."""
        copy = self._folder / uuid.uuid4().hex
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if sum(map(_size, self._folder.iterdir())) + file.stat().st_size > self._max_bytes:
                return None
            shutil.copyfile(file, copy)
        except OSError:
            copy.unlink(missing_ok=True)
            return None
        return copy


class Spooled:
    """The artifacts of a run that its store has not created: all of them wait, as ``files`` of the spool, by path."""

    def __init__(self, root: str, files: Mapping[str, Path]) -> None:
        self._root, self._files = root, files

    def list_artifacts(self, path: str | None = None) -> list[FileInfo]:
        """The files and folders directly below a folder."""
        start = f"{path}/" if path else ""
        sizes: dict[str, int | None] = {}
        for each, file in self._files.items():
            if each.startswith(start):
                name, _, more = each.removeprefix(start).partition("/")
                sizes[f"{start}{name}"] = None if more else _size(file)
        return [FileInfo(name, size is None, size) for name, size in sorted(sizes.items())]

    def _download_file(self, remote_file_path: str, local_path: str) -> None:
        if remote_file_path not in self._files:
            raise MlflowException(f"There is no {remote_file_path} in {self._root}.")
        shutil.copyfile(self._files[remote_file_path], local_path)


def artifact_root(store: Any, real: str) -> str:
    """The artifact root of a run or logged model that a store has."""
    if real.startswith(MODEL):
        return str(store.get_logged_model(real).artifact_location)
    return str(store.get_run(real).info.artifact_uri)


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except FileNotFoundError:  # delivered since
        return 0


def upload(
    root: str, uri: str, local_file: str | Path, artifact_path: str | None, timeout: float, name: str = ""
) -> None:
    """Put a file where MLflow's own repository would, with one request that is not tried again.

    Args:
        root: Artifact root, ``mlflow-artifacts:`` or any other that MLflow knows.
        uri: The tracking URI of the server.
        local_file: The file.
        artifact_path: Folder below the root; None for the root itself.
        timeout: Seconds in which the server has to be reached; how long it takes to store the file is its own affair.
        name: What the file is called there, if not as here.
    """
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
    from mlflow.store.artifact.http_artifact_repo import HttpArtifactRepository
    from mlflow.store.artifact.mlflow_artifacts_repo import MlflowArtifactsRepository

    name = name or Path(local_file).name
    if not root.startswith("mlflow-artifacts:"):
        with tempfile.TemporaryDirectory() as folder:  # which gives the copy its name
            named = shutil.copyfile(local_file, Path(folder, name))
            get_artifact_repository(root).log_artifact(str(named), artifact_path)
        return
    endpoint = posixpath.join("/", artifact_path or "", name)
    creds = HttpArtifactRepository(MlflowArtifactsRepository.resolve_uri(root, uri))._host_creds
    with Path(local_file).open("rb") as file:
        response = request(creds, endpoint, "PUT", timeout=(timeout, 120), data=file)
    response.raise_for_status()
