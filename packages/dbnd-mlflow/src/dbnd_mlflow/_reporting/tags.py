"""Tags of MLflow runs with a meaning: those by which a run names its task run, and those that are fields of a run."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from dbnd.tracking import EDITED_TAG, VERIFIED_TAG

from .._durable.ids import FIRST_ID

RUN_UID: Final = "dbnd.run_uid"
TASK_RUN_UID: Final = "dbnd.task_run_uid"
ATTEMPT_UID: Final = "dbnd.task_run_attempt_uid"
RUN_URL: Final = "dbnd.run_url"
MADE_FOR: Final = "dbnd.mlflow_run_id"
"""For which run the link tags were made: copies of a run carry them, too."""
LINK_TAGS: Final = frozenset({RUN_UID, TASK_RUN_UID, ATTEMPT_UID, RUN_URL, MADE_FOR})
"""Tags of an MLflow run that are ours, and not the user's."""

LIFECYCLE: Final = "dbnd.lifecycle_stage"
"""Tag of a task run: whether MLflow's run is active or deleted."""
IMPORTED: Final = "dbnd.imported"
"""Tag of a task run: what its MLflow run was like when ``dbnd mlflow import`` last brought it over."""
EXPERIMENT: Final = "dbnd.experiment"
"""Tag of a task run: the name of its MLflow run's experiment, where that is not the project of its run."""
OWN_TAGS: Final = LINK_TAGS | {EDITED_TAG, EXPERIMENT, FIRST_ID, LIFECYCLE, IMPORTED, VERIFIED_TAG}
"""Names that are ours. All other tags of an MLflow run are reported, also those that begin with "dbnd."."""

PARENT: Final = "mlflow.parentRunId"
RUN_NAME: Final = "mlflow.runName"
SOURCE_NAME: Final = "mlflow.source.name"
USER: Final = "mlflow.user"
NOTE: Final = "mlflow.note.content"
FIELDS: Final = frozenset({RUN_NAME, PARENT, SOURCE_NAME, USER, NOTE})
"""Tags that MLflow's own page shows as fields of a run, as the tracker's does."""
MODELS: Final = "mlflow.log-model.history"
"""Where stores before MLflow 3 list a run's models, by themselves; the tracker has them as artifacts."""


class Link(NamedTuple):
    """The task run that the tags of an MLflow run name."""

    run_uid: str
    task_run_uid: str
    attempt_uid: str

    def tags(self) -> dict[str, str]:
        return dict(zip((RUN_UID, TASK_RUN_UID, ATTEMPT_UID), self, strict=True))

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


def fields_of(tags: Mapping[str, str]) -> dict[str, str]:
    return {name: tags[name] for name in FIELDS & tags.keys()}
