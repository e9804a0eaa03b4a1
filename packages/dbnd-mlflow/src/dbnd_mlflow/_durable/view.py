"""A run as this process knows it: what the store said of it, and what was logged here since."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Final

from mlflow.entities import Param, Run, RunData, RunInfo, RunStatus, RunTag
from mlflow.protos.service_pb2 import Run as RunMessage
from mlflow.protos.service_pb2 import RunInfo as InfoMessage

RUN_NAME: Final = "mlflow.runName"


class RunView:
    """One run.

    Args:
        run: The run as the store has answered it, or as it will be created; None where the store never answered.
    """

    def __init__(self, run: Any) -> None:
        self._message: Any = None
        self._inputs: dict[str, Any] = {}
        self.params: dict[str, str] = {}
        self.tags: dict[str, str] = {}
        self.metrics: dict[str, Any] = {}
        # Events of this run that were kept; None once something was written past the journal.
        self.kept: int | None = None
        if run is not None:
            self.refresh(run)

    def refresh(self, run: Any) -> None:
        """Take the store's word, when it has everything that was logged here."""
        self._message = run.info.to_proto()
        self.params, self.tags = dict(run.data.params), dict(run.data.tags)
        self.metrics = {metric.key: metric for metric in run.data._metric_objs}
        self._inputs = {name: getattr(run, name) for name in ("inputs", "outputs") if getattr(run, name, None)}

    @property
    def is_known(self) -> bool:
        """Whether the store's word is in it, without which it is not the whole run."""
        return self._message is not None

    @property
    def is_deleted(self) -> bool:
        """Whether the run is in MLflow's trash."""
        return self.is_known and self._message.lifecycle_stage == "deleted"

    def log(self, metrics: Iterable[Any] = (), params: Iterable[Any] = (), tags: Iterable[Any] = ()) -> None:
        """Note what was logged."""
        for metric in metrics:
            known = self.metrics.get(metric.key)
            if known is None or _rank(metric) > _rank(known):
                self.metrics[metric.key] = metric
        for param in params:
            self.params.setdefault(param.key, str(param.value))
        for tag in tags:
            self.tags[tag.key] = str(tag.value)
            if tag.key == RUN_NAME and self.is_known:
                self._message.run_name = self.tags[tag.key]

    def update(self, status: Any, end_time: int | None, name: str | None) -> None:
        """Note a new status, end and name."""
        if name:
            self.tags[RUN_NAME] = name
        if self.is_known:
            if status is not None:
                self._message.status = status if isinstance(status, int) else RunStatus.from_string(status)
            if end_time is not None:
                self._message.end_time = end_time
            if name:
                self._message.run_name = name

    def info(self, run_id: str) -> Any:
        """MLflow's information on the run."""
        if self.is_known:
            return RunInfo.from_proto(self._message)
        return RunInfo.from_proto(InfoMessage(run_id=run_id, run_uuid=run_id, lifecycle_stage="active"))

    def run(self) -> Any:
        """MLflow's run; the store must have answered it once."""
        params = [Param(key, value) for key, value in self.params.items()]
        tags = [RunTag(key, value) for key, value in self.tags.items()]
        data = RunData(list(self.metrics.values()), params, tags)
        return Run(RunInfo.from_proto(self._message), data, *self._inputs.values())


def new_run(run_id: str, experiment_id: str, user: str, start: int, tags: dict[str, str], artifact_uri: str) -> Any:
    """A run that the store will create, as it would have answered it."""
    message = RunMessage(
        info=InfoMessage(
            run_id=run_id,
            run_uuid=run_id,
            experiment_id=experiment_id,
            user_id=user,
            status=RunStatus.RUNNING,  # type: ignore[arg-type]  # of the stubs
            start_time=start,
            artifact_uri=artifact_uri,
            lifecycle_stage="active",
            run_name=tags.get(RUN_NAME, ""),
        )
    )
    for key, value in tags.items():
        message.data.tags.add(key=key, value=value)
    return Run.from_proto(message)


def _rank(metric: Any) -> tuple[int, int, float]:
    """MLflow's order: the last value is that of the highest step, then of the latest time, then the greatest."""
    return metric.step, metric.timestamp, 0.0 if math.isnan(metric.value) else metric.value
