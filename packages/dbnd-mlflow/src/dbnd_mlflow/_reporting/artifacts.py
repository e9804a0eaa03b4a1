"""Which artifacts a run has, and where they stand."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

# No more artifacts than this are listed of one run; a folder of that many files is listed as a folder.
MAX_ARTIFACTS: Final = 500
MODEL: Final = "model:"
"""What the names of artifacts that are models begin with."""
_SERVED: Final = "mlflow-artifacts"
# Where an MLflow server says where the artifacts stand that are sent to it.
_DESTINATION: Final = "_MLFLOW_SERVER_ARTIFACT_DESTINATION"
# The artifact root of a run, which its server makes of the ids of experiment and run, and a folder below it.
_RUN_FOLDER: Final = re.compile(r"(?P<root>.*/(?P<run_id>[0-9a-f]{32})/artifacts)(?:/(?P<folder>.*))?$", re.DOTALL)


def artifacts_of(uri: str | None) -> list[tuple[str, str]]:
    """Names and places of a run's artifacts; only a folder of this machine is listed, since asking takes time."""
    if not uri:
        return []
    folder = _folder(uri)
    if folder is None:
        return [("artifacts", uri)]
    root = str(folder) if is_local(uri) else uri
    found: list[tuple[str, str]] = []
    for parent, _, names in os.walk(folder):
        for name in names:
            path = Path(parent, name).relative_to(folder).as_posix()
            found.append((path, f"{root}/{path}"))
            if len(found) == MAX_ARTIFACTS:
                return [("artifacts", uri)]
    return sorted(found)


def sent_artifact(root: str, name: str) -> tuple[str, str, str] | None:
    """Run id, path and place of a file that was sent to a run's artifact root, or a folder below it; None elsewhere."""
    found = _RUN_FOLDER.match(root)
    if found is None:
        return None
    path = f"{found['folder'] or ''}/{name}".lstrip("/")
    return found["run_id"], path, f"{found['root']}/{path}"


def is_local(uri: str | None) -> bool:
    """Whether the artifacts at ``uri`` are in a folder that it names."""
    return uri is None or urlsplit(uri).scheme in {"", "file"}


def may_have_unlisted(run_id: str, uri: str) -> bool:
    """Whether a run that ends may have artifacts at ``uri`` that were not reported on their way.

    Files that a client sends to an MLflow server are. Nobody is asked what stands elsewhere: only if MLflow has used
    the run's artifacts in this process, some were perhaps logged.
    """
    if _folder(uri) is not None:
        return True
    client: Any = sys.modules.get("mlflow.tracking._tracking_service.client")
    utils = sys.modules.get("mlflow.tracking._tracking_service.utils")
    # MLflow keeps the repositories of runs; before 2.10 in the class of its client.
    caches = (utils, getattr(client, "TrackingServiceClient", None))
    was_used = any(run_id in getattr(cache, "_artifact_repos_cache", ()) for cache in caches)
    return was_used and urlsplit(uri).scheme != _SERVED


def _folder(uri: str) -> Path | None:
    """The folder of this machine in which the artifacts at ``uri`` stand, if it is one."""
    parts = urlsplit(uri)
    path = unquote(parts.path)
    if parts.scheme == "file":
        return Path(path)
    if parts.scheme == "":
        return Path(uri)
    handlers = sys.modules.get("mlflow.server.handlers")
    if parts.scheme != _SERVED or handlers is None or _DESTINATION not in os.environ:
        return None
    # This is the server that they are sent to; only a folder has this attribute.
    folder = getattr(handlers._get_artifact_repo_mlflow_artifacts(), "artifact_dir", None)
    return None if folder is None else Path(folder, path.lstrip("/"))
