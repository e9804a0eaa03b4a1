"""A run as this process knows it: what the store said of it, and what was logged here since."""

from __future__ import annotations

import math
import os
import threading
import weakref
from collections import OrderedDict
from collections.abc import Iterable
from typing import Any, Final

from mlflow.entities import Param, Run, RunData, RunInfo, RunStatus, RunTag
from mlflow.protos.service_pb2 import Run as RunMessage
from mlflow.protos.service_pb2 import RunInfo as InfoMessage
from mlflow.utils.mlflow_tags import MLFLOW_RUN_NAME

from .ids import Ids, is_own

# Runs that are remembered, by what was last asked or logged.
_MAX_VIEWS: Final = 1_000


class Views:
    """The runs that this process has last asked for or logged to.

    Args:
        ids: Tell which of them the store has not created.
    """

    def __init__(self, ids: Ids) -> None:
        self._ids = ids
        self._views: OrderedDict[str, RunView] = OrderedDict()
        self._renew_lock()
        _known.add(self)

    def _renew_lock(self) -> None:
        self._lock = threading.Lock()

    def get(self, run_id: str) -> RunView | None:
        """What is known of a run."""
        with self._lock:
            view = self._views.get(run_id)
            if view is not None:
                self._views.move_to_end(run_id)
            return view

    def put(self, run_id: str, view: RunView) -> RunView:
        """Remember a run; returns what another thread has remembered meanwhile."""
        with self._lock:
            view = self._views.setdefault(run_id, view)
            if len(self._views) > _MAX_VIEWS:
                self._views.popitem(last=False)
            return view

    def forget(self, *run_ids: object) -> None:
        """Forget the runs among these, as far as the store can be asked for them."""
        with self._lock:
            for run_id in run_ids:
                if isinstance(run_id, str) and (not is_own(run_id) or self._ids.find(run_id) is not None):
                    self._views.pop(run_id, None)

    def forget_all(self) -> None:
        """Forget all runs that the store can be asked for."""
        with self._lock:
            known = list(self._views)
        self.forget(*known)


_known: Final[weakref.WeakSet[Views]] = weakref.WeakSet()


def _renew_locks() -> None:
    for views in _known:
        views._renew_lock()


os.register_at_fork(after_in_child=_renew_locks)  # a thread of the parent may have held one


class RunView:
    """One run.

    Args:
        run_id: Its id.
        run: The run as the store has answered it, or as it will be created; None where the store never answered.
    """

    def __init__(self, run_id: str, run: Any = None) -> None:
        self._message: Any = InfoMessage(run_id=run_id, run_uuid=run_id, lifecycle_stage="active")
        # Whether the store's word is in it, without which it is not the whole run.
        self.is_known = False
        self.outputs: set[str] = set()
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
        try:
            self._message, self.is_known = run.info.to_proto(), True
        except (TypeError, ValueError):  # an SQL store has taken what is no time or text
            self.is_known = False
            return
        self.params, self.tags = dict(run.data.params), dict(run.data.tags)
        self.metrics = {metric.key: metric for metric in run.data._metric_objs}
        self._inputs = {name: getattr(run, name) for name in ("inputs", "outputs") if getattr(run, name, None)}
        if "outputs" in self._inputs:
            self.outputs = {each.model_id for each in self._inputs["outputs"].model_outputs}

    @property
    def is_deleted(self) -> bool:
        """Whether the run is in MLflow's trash."""
        return bool(self._message.lifecycle_stage == "deleted")

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
            if tag.key == MLFLOW_RUN_NAME:
                self._message.run_name = self.tags[tag.key]

    def update(self, status: Any, end_time: int | None, name: str | None) -> None:
        """Note a new status, end and name."""
        if status is not None:
            self._message.status = status if isinstance(status, int) else RunStatus.from_string(status)
        if end_time is not None:
            self._message.end_time = end_time
        if name:
            self.tags[MLFLOW_RUN_NAME] = self._message.run_name = name

    def info(self) -> Any:
        """MLflow's information on the run."""
        return RunInfo.from_proto(self._message)

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
            run_name=tags.get(MLFLOW_RUN_NAME, ""),
        )
    )
    for key, value in tags.items():
        message.data.tags.add(key=key, value=value)
    return Run.from_proto(message)


def _rank(metric: Any) -> tuple[int, int, float]:
    """MLflow's order: the last value is that of the highest step, then of the latest time, then the greatest."""
    return metric.step, metric.timestamp, 0.0 if math.isnan(metric.value) else metric.value
