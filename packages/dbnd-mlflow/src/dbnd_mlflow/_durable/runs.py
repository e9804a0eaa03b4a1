"""Runs as this process knows them: what the store said of each, and what was logged here since."""

from __future__ import annotations

import math
import os
import threading
from array import array
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Any, Final

from mlflow.entities import Metric, Param, Run, RunData, RunInfo, RunStatus, RunTag
from mlflow.protos.service_pb2 import Run as RunMessage
from mlflow.protos.service_pb2 import RunInfo as InfoMessage
from mlflow.utils import validation
from mlflow.utils.mlflow_tags import MLFLOW_RUN_NAME
from mlflow.utils.name_utils import _generate_random_name

from dbnd.tracking import LARGEST_STEP

from .creation import CREATE_RUN
from .events import EXTRAS, have_no_place
from .ids import SPOOLED
from .target import Target

# Runs of a store that are remembered, by what was last asked or logged.
_MAX_VIEWS: Final = 1_000
# Points of a run that are remembered while it goes on, in 24 bytes each.
_MAX_POINTS: Final = 1_000_000
_EMPTY: Final = Run.from_proto(RunMessage(info=InfoMessage(status=RunStatus.RUNNING)))  # type: ignore[arg-type]  # of the stubs
_lock = threading.RLock()  # a signal handler may log, too


def _renew_lock() -> None:
    global _lock  # noqa: PLW0603  the one lock of the module; a thread of the parent may have held it
    _lock = threading.RLock()


os.register_at_fork(after_in_child=_renew_lock)


class Runs:
    """The runs of one store that this process has last asked for, logged to, or announced to the ``tracker``."""

    def __init__(self, target: Target, tracker: str) -> None:
        self._target = target
        self._tracker = tracker
        self._views: OrderedDict[str, RunView] = OrderedDict()

    def get(self, run_id: str) -> RunView | None:
        """What is known of a run."""
        with _lock:
            view = self._views.get(run_id)
            if view is not None:
                self._views.move_to_end(run_id)
            return view

    def put(self, run_id: str, run: Any = None) -> RunView:
        """Remember a run; returns what is known of it, which another thread may have remembered meanwhile."""
        made = RunView(run_id, run)
        with _lock:
            view = self._views.setdefault(run_id, made)
            if len(self._views) > _MAX_VIEWS:
                self._views.popitem(last=False)
            return view

    def forget(self, *run_ids: object) -> None:
        """Forget the runs among these, as far as the store can be asked for them."""
        with _lock:
            for run_id in run_ids:
                if isinstance(run_id, str) and not self._target.ids.is_uncreated(run_id):
                    self._views.pop(run_id, None)

    def forget_all(self) -> None:
        """Forget all runs that the store can be asked for."""
        with _lock:
            known = list(self._views)
        self.forget(*known)

    def announce(
        self, own: str, experiment_id: str, user: str, start: int, tags: Sequence[Any], name: str | None
    ) -> Any:
        """Keep how to create a run; returns it as MLflow's, and None where nothing can be kept."""
        checks = self._target.checks
        checked = (checks.checked(validation._validate_tag, t.key, t.value) or t for t in tags)
        given = {tag.key: tag.value for tag in checked}
        if name and given.get(MLFLOW_RUN_NAME, name) != name:
            text = (
                "Both 'run_name' argument and 'mlflow.runName' tag are specified, but with different values "
                f"(run_name='{name}', mlflow.runName='{given[MLFLOW_RUN_NAME]}')."
            )
            raise checks.error("INVALID_PARAMETER_VALUE", text)
        given[MLFLOW_RUN_NAME] = name or given.get(MLFLOW_RUN_NAME) or _generate_random_name()
        body: dict[str, Any] = {
            "own_id": own,
            "experiment_id": experiment_id,
            "user_id": user,
            "start_time": start,
            "tags": given,
            "tracker": self._tracker,
        }
        return _new_run(**body) if self._target.announce(CREATE_RUN, body) else None

    def announced(self, run_id: str) -> Any:
        """A run that any process has announced; None for one that the store has."""
        ids = self._target.ids
        if not ids.is_uncreated(run_id):
            return None
        creation = ids.creation(run_id)
        if creation is None or creation[0] != CREATE_RUN:
            raise self._target.checks.error("RESOURCE_DOES_NOT_EXIST", f"Run with id={run_id} not found")
        return _new_run(**creation[1])


class RunView:
    """A run as the store has answered it, or as it will be created; ``run`` is None where the store never answered."""

    def __init__(self, run_id: str, run: Any = None) -> None:
        self._message: Any = InfoMessage(run_id=run_id, run_uuid=run_id, lifecycle_stage="active")
        # Whether the store's word is in it, without which it is not the whole run.
        self.is_known = False
        self.outputs: set[str] = set()
        self._more: dict[str, Any] = {}  # inputs and outputs, where MLflow has them
        self.params: dict[str, str] = {}
        self.tags: dict[str, str] = {}
        self.metrics: dict[str, Any] = {}
        # Events of this run that were kept; None once something was written past the journal.
        self.kept: int | None = None
        # What it has logged since this process has created it; None where that is not known any more.
        self.history: History | None = None
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
        for name in ("inputs", "outputs"):  # which are missing where a run was just created
            if found := getattr(run, name, None) or getattr(_EMPTY, name, None):
                self._more[f"run_{name}"] = found
        if (outputs := self._more.get("run_outputs")) is not None:
            self.outputs = {each.model_id for each in outputs.model_outputs}

    def begin(self) -> None:
        """This process has created the run: what it logs from now on is all that is logged."""
        self.kept, self.history = 0, History()

    @property
    def is_deleted(self) -> bool:
        """Whether the run is in MLflow's trash."""
        return bool(self._message.lifecycle_stage == "deleted")

    def has_no_place(self, *logged: Iterable[Any]) -> bool:
        """Whether a store of files has none for metrics, params or tags (see ``have_no_place``)."""
        return any(map(have_no_place, (self.metrics, self.params, self.tags), logged))

    def log(self, metrics: Iterable[Any] = (), params: Iterable[Any] = (), tags: Iterable[Any] = ()) -> None:
        for metric in metrics:
            if self.history is not None and not self.history.add(metric):
                self.history = None
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
        if status is not None:
            self._message.status = status if isinstance(status, int) else RunStatus.from_string(status)
            self.history = None if RunStatus.is_terminated(self._message.status) else self.history
        if end_time is not None:
            self._message.end_time = end_time
        if name:
            self.tags[MLFLOW_RUN_NAME] = self._message.run_name = name

    def info(self) -> Any:
        return RunInfo.from_proto(self._message)

    def run(self) -> Any:
        """MLflow's run; the store must have answered it once."""
        # Threads log meanwhile. A copy is made at once; a list of pairs may let them in, where it makes Python collect.
        params = [Param(key, value) for key, value in self.params.copy().items()]
        tags = [RunTag(key, value) for key, value in self.tags.copy().items()]
        data = RunData(list(self.metrics.values()), params, tags)
        return Run(self.info(), data, **self._more)


class History:
    """The points of a run's metrics: of one that goes on, while the store is away, ``log_model`` asks for them."""

    def __init__(self) -> None:
        self._columns: dict[str, tuple[array[float], array[int], array[int], dict[int, Any]]] = {}
        self._count = 0
        self._process = os.getpid()

    def add(self, metric: Any) -> bool:
        """Remember a point; whether there was room, and it is of numbers as MLflow means them."""
        try:
            value, time_ms, step = float(metric.value), int(metric.timestamp), int(metric.step)
        except (OverflowError, TypeError, ValueError):  # a database may take it all the same
            return False
        if max(abs(time_ms), abs(step)) > LARGEST_STEP:
            return False
        with _lock:
            columns = self._columns.get(metric.key)
            if columns is None:
                columns = self._columns[metric.key] = array("d"), array("q"), array("q"), {}
            values, times, steps, whole = columns
            if any(getattr(metric, name, None) for name in EXTRAS):
                whole[len(values)] = metric
            values.append(value)
            times.append(time_ms)
            steps.append(step)
            self._count += 1
            return self._count <= _MAX_POINTS

    def points(self, key: str) -> list[Any] | None:
        """The points of a metric as MLflow's, in the order in which they were logged; None in a forked child."""
        if self._process != os.getpid():  # its parent may have gone on
            return None
        with _lock:
            *columns, whole = self._columns.get(key, ((), (), (), {}))
            rows = list(zip(*columns, strict=True))
            named = dict(whole)
        return [named.get(number) or Metric(key, *row) for number, row in enumerate(rows)]


def _new_run(own_id: str, experiment_id: str, user_id: str, start_time: int, tags: dict[str, str], **_: object) -> Any:
    """A run that the store has not created yet, as that will answer it."""
    message = RunMessage(
        info=InfoMessage(
            run_id=own_id,
            run_uuid=own_id,
            experiment_id=experiment_id,
            user_id=user_id,
            status=RunStatus.RUNNING,  # type: ignore[arg-type]  # of the stubs
            start_time=start_time,
            artifact_uri=f"{SPOOLED}{own_id}/artifacts",
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
