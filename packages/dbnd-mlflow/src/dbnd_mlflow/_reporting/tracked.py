"""An MLflow run as this process knows it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from dbnd import TaskRun
from dbnd.tracking import monotonic


@dataclass(slots=True, eq=False)
class TrackedRun:
    """An MLflow run and the task run that it is reported as.

    Args:
        task_run: The task run that its points belong to.
        host: The task run of the user's own code in which it was started, or None outside of any.
        is_own: Whether ``task_run`` is the user's own task, whose state is not MLflow's to say.
        is_guess: Whether the task run follows from nothing but the run's id, and may turn out to be another.
        is_announced: Whether this process has announced it, and so knows all that there is to know of it.
        is_detached: Whether it was nested in another one, and is no more.
        has_ended: Whether MLflow gave it a final status last.
        info: MLflow's RunInfo, once known.
        fields: Those of its tags that are fields of the run.
        links: Its link tags; none outside of tasks.
        datasets: Name and digest of the datasets that were reported.
        heard_at: When something was last reported of it, in monotonic seconds.
        beats: Whether heartbeats of it are sent from here, or by the process that this one is a fork of.
    """

    task_run: TaskRun
    host: TaskRun | None
    is_own: bool
    is_guess: bool = False
    is_announced: bool = False
    is_detached: bool = False
    has_ended: bool = False
    info: Any = None
    fields: dict[str, str] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    artifact_uri: str | None = None
    artifacts: set[str] = field(default_factory=set)
    datasets: set[tuple[str, str]] = field(default_factory=set)
    heard_at: float = field(default_factory=monotonic)
    beats: bool = False

    @property
    def is_dbnd_run(self) -> bool:
        """Whether it is a dbnd run of its own, whose state is MLflow's to say."""
        return self.host is None and not self.is_own and self.task_run.is_root
