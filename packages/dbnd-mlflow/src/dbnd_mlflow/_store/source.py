"""The tags by which an MLflow run names its source: those that it has when ``python`` runs the file."""

from __future__ import annotations

import functools
from typing import Final

from mlflow.tracking.context import git_context
from mlflow.tracking.context.system_environment_context import SystemEnvironmentContext

from .._reporting.tags import SOURCE_NAME

# The tags of MLflow's own provider, by its functions; older versions have the commit alone.
_GIT: Final = {
    "get_git_commit": "mlflow.source.git.commit",
    "get_git_branch": "mlflow.source.git.branch",
    "get_git_repo_url": "mlflow.source.git.repoURL",
}


def source_tags(main_file: str) -> dict[str, str]:
    """The tags of a run that ``main_file`` begins. What the environment says of it stands, as in MLflow."""
    environment = SystemEnvironmentContext()
    given = environment.tags() if environment.in_context() else {}
    return {SOURCE_NAME: main_file, **_git_tags(main_file), **given}


@functools.lru_cache(maxsize=1)  # it starts git
def _git_tags(main_file: str) -> dict[str, str]:
    found = {tag: getattr(git_context, name, lambda _: None)(main_file) for name, tag in _GIT.items()}
    return {} if found["mlflow.source.git.commit"] is None else {tag: text for tag, text in found.items() if text}
