"""Where task runs can be seen elsewhere, and whether MLflow agrees with the tracker about them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timezone
from typing import Any, NamedTuple

from dbnd_tracker._storage.models import mlflow_run_of
from dbnd_tracker._views import TaskRunView


class Verdict(NamedTuple):
    """When ``dbnd mlflow verify --record`` compared the two sides, and in how much they differed."""

    time: datetime
    differences: int


class Link(NamedTuple):
    """Where a task run can be seen elsewhere; MLflow's own run has an id, and a verdict once it was compared."""

    task: TaskRunView
    name: str
    url: Any
    mlflow_run_id: str | None
    verdict: Verdict | None


class Links:
    """The links of task runs; ``verified`` are the values of their tags ``VERIFIED_TAG``."""

    def __init__(self, tasks: Iterable[TaskRunView], verified: Mapping[str, str | None]) -> None:
        found = [link for task in tasks for link in _links_of(task, verified.get(task.task_run_uid))]
        self.mlflow = [link for link in found if link.mlflow_run_id]
        self.others = [link for link in found if not link.mlflow_run_id]

    @property
    def differing(self) -> list[Link]:
        """The MLflow runs in which both sides were found to differ."""
        return [link for link in self.mlflow if link.verdict and link.verdict.differences]

    @property
    def look(self) -> str:
        """How what is known of all of them is shown: agree, differ, or not compared."""
        if self.differing:
            return "failed"
        return "success" if all(link.verdict for link in self.mlflow) else "waiting"

    @property
    def command(self) -> str | None:
        """What compares the two sides, or names what differs; None where all agree."""
        if self.look == "success":
            return None
        if self.differing:
            return f"dbnd mlflow verify {self.differing[0].mlflow_run_id}"
        waiting = [link for link in self.mlflow if not link.verdict]
        wanted = f" {waiting[0].mlflow_run_id}" if len(waiting) == 1 else ""
        return f"dbnd mlflow verify{wanted} --record"


def _links_of(task: TaskRunView, verified: str | None) -> list[Link]:
    found = []
    for name, url in task.links.items():
        run_id = mlflow_run_of(url)
        found.append(Link(task, name, url, run_id, _verdict(verified) if run_id else None))
    return found


def _verdict(text: str | None) -> Verdict | None:
    time, _, count = (text or "").partition(" ")
    try:
        return Verdict(datetime.fromisoformat(time).astimezone(timezone.utc), int(count))
    except (ValueError, OverflowError):  # anybody may set such a tag
        return None
