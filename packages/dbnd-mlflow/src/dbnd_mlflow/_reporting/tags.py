"""The tags by which an MLflow run names its task run."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

RUN_UID: Final = "dbnd.run_uid"
TASK_RUN_UID: Final = "dbnd.task_run_uid"
ATTEMPT_UID: Final = "dbnd.task_run_attempt_uid"
RUN_URL: Final = "dbnd.run_url"
MADE_FOR: Final = "dbnd.mlflow_run_id"
"""Tag of an MLflow run that says for which run its link tags were made: copies of a run carry them, too."""
LINK_TAGS: Final = frozenset({RUN_UID, TASK_RUN_UID, ATTEMPT_UID, RUN_URL, MADE_FOR})
"""Tags of an MLflow run that are ours, and no tags of the user's."""


class Link(NamedTuple):
    """The task run that the tags of an MLflow run name."""

    run_uid: str
    task_run_uid: str
    attempt_uid: str

    @classmethod
    def of(cls, run: Any) -> Link | None:
        """The link that was made for this very run, if there is one."""
        tags = run.data.tags
        return cls.in_tags(tags) if tags.get(MADE_FOR) == run.info.run_id else None

    @classmethod
    def in_tags(cls, tags: Mapping[str, str]) -> Link | None:
        """The link that tags hold, whichever run it was made for."""
        try:
            return cls(*(str(uuid.UUID(tags[name])) for name in (RUN_UID, TASK_RUN_UID, ATTEMPT_UID)))
        except (KeyError, ValueError):  # anybody may set such tags
            return None
