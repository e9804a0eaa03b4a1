"""Delivery to an MLflow store: the transport of journals whose URL is ``mlflow:`` and the store's URI."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from mlflow.entities import ExperimentTag, RunStatus, RunTag, ViewType
from mlflow.exceptions import MlflowException

from dbnd.plugins import CoreSettings
from dbnd.tracking import (
    AccessError,
    Batch,
    BusyError,
    RefusedError,
    TransportError,
    UnreachableError,
    monotonic,
)

from .._mlflow import build_inner
from . import events
from .artifacts import upload
from .calls import code_of, is_away, is_refused_access, made_patient, reason_of, within
from .ids import FIRST_ID, SPOOLED, Ids, UncreatedError
from .view import RUN_NAME

if TYPE_CHECKING:
    from pathlib import Path

    from dbnd import Config

# What MLflow's stores take in one log_batch.
_MAX_METRICS: Final = 1_000
_MAX_TEXTS: Final = 100
# Seconds that a request may take while nobody waits for it, as in MLflow itself.
_PATIENCE: Final = 120.0
# Requests that a server answers with an error of its own are tried so often before they are given up.
_TRIES: Final = 5


class MlflowTransport:
    """Delivers to one MLflow store. Repeating a batch of which a part was delivered changes nothing.

    Args:
        url: ``mlflow:`` and the store's tracking URI, with its credentials.
        config: The configuration, for the folder of the journals.
        on_created: Called with the store's URI, the tracker, the id of ours, the run and its tags, when a run is
            created late.

    Attributes:
        deadline: As of ``dbnd.tracking.Transport``.
    """

    def __init__(self, url: str, config: Config, on_created: Callable[..., object]) -> None:
        self._uri = url.partition(":")[2]
        self._ids = Ids(ids_folder(config))
        self.deadline: float | None = None
        self._on_created = on_created
        self._store: Any = None
        # Whether what is sent next may have been taken before: at first, and after every failure.
        self._is_doubtful = True
        self._failures: Counter[tuple[str, int]] = Counter()

    def send(self, batch: Batch) -> Mapping[str, int] | None:
        """Deliver a batch (see ``dbnd.tracking.Transport``)."""
        try:
            with within(self._seconds()):
                self._deliver(batch)
        except TransportError:
            raise
        except UncreatedError as error:
            self._is_doubtful = True
            raise (BusyError if error.reason is None else RefusedError)(str(error)) from None
        except Exception as error:
            self._is_doubtful = True
            raise self._said(error, batch) from error
        self._is_doubtful = False
        self._failures.clear()
        return None

    def heartbeat(self, run_uid: str) -> str | None:  # noqa: ARG002  of the contract
        """MLflow's stores know none."""
        return None

    def check(self) -> None:
        """Ask for MLflow's default experiment."""
        try:
            with within(self._seconds()):
                self._opened().search_experiments(max_results=1)
        except Exception as error:
            raise self._said(error, None) from error

    def close(self) -> None:
        """Release the connections of a database."""
        store, self._store = self._store, None
        if (engine := getattr(store, "engine", None)) is not None:
            engine.dispose()

    def _seconds(self) -> float:
        return _PATIENCE if self.deadline is None else min(_PATIENCE, max(1.0, self.deadline - monotonic()))

    def _opened(self) -> Any:
        if self._store is None:
            self._store = made_patient(build_inner(self._uri, None))
        return self._store

    def _said(self, error: Exception, batch: Batch | None) -> Exception:
        """What an error means for delivery; one that no store should raise is left as it is."""
        reason = reason_of(error)
        if is_refused_access(error):
            return AccessError(reason)
        if is_away(error):
            if code_of(error) == "INTERNAL_ERROR" and getattr(error, "json", None) and batch is not None:
                # The server's own answer: its database may be away, or it chokes on what is in the batch.
                key = batch.journal, batch.first
                self._failures[key] += 1
                if self._failures[key] >= _TRIES:
                    return RefusedError(reason)
            return UnreachableError(reason)
        return RefusedError(reason) if isinstance(error, MlflowException) else error

    def _deliver(self, batch: Batch) -> None:
        store, body = self._opened(), batch.body
        if batch.call == events.POINTS:
            self._log(store, body)
            return
        assert isinstance(body, dict)
        getattr(self, f"_{batch.call}")(store, **body)

    def _log(self, store: Any, groups: Any) -> None:
        """Params first: one that the store refuses takes nothing else along."""
        by_run: dict[str, dict[str, list[Any]]] = defaultdict(lambda: defaultdict(list))
        for group in groups:
            kind = "metrics" if events.is_metrics(group) else group[1]
            by_run[self._ids.real(group[0])][kind] += events.entities_of(group)
        for run_id, found in by_run.items():
            for params in _parts(found[events.PARAM], _MAX_TEXTS):
                store.log_batch(run_id, [], params, [])
        for run_id, found in by_run.items():
            tags = {tag.key: RunTag(tag.key, self._ids.translated(tag.value)) for tag in found[events.TAG]}
            for part in _parts(list(tags.values()), _MAX_TEXTS):
                store.log_batch(run_id, [], [], part)
            metrics = self._without_taken(store, run_id, found["metrics"])
            for part in _parts(metrics, _MAX_METRICS):
                store.log_batch(run_id, part, [], [])

    def _without_taken(self, store: Any, run_id: str, metrics: list[Any]) -> list[Any]:
        """The points that a file store does not have yet: it takes a point twice, and the other stores do not."""
        if not self._is_doubtful or "FileStore" not in {base.__name__ for base in type(store).__mro__}:
            return metrics
        left = list(metrics)
        for key in dict.fromkeys(metric.key for metric in metrics):
            stored = [_point(metric) for metric in store.get_metric_history(run_id, key)]
            wanted = [metric for metric in metrics if metric.key == key]
            points = [_point(metric) for metric in wanted]
            taken = next(
                n for n in range(min(len(points), len(stored)), -1, -1) if points[:n] == stored[len(stored) - n :]
            )
            gone = set(map(id, wanted[:taken]))
            left = [metric for metric in left if id(metric) not in gone]
        return left

    def _create_run(
        self,
        store: Any,
        own_id: str,
        experiment_id: str,
        user_id: str,
        start_time: int,
        tags: dict[str, str],
        tracker: str,
    ) -> None:
        if self._ids.find(own_id) is not None:
            return
        experiment_id = self._ids.real(experiment_id)
        filter_string = f"tags.`{FIRST_ID}` = '{own_id}'"
        found = store.search_runs([experiment_id], filter_string, ViewType.ALL, max_results=1)
        try:
            run = (
                found[0]
                if found
                else store.create_run(
                    experiment_id,
                    user_id,
                    start_time,
                    [RunTag(key, self._ids.translated(value)) for key, value in {**tags, FIRST_ID: own_id}.items()],
                    tags[RUN_NAME],
                )
            )
        except Exception as error:
            self._note_refusal(own_id, error)
            raise
        self._ids.keep(own_id, run.info.run_id)
        self._on_created(self._uri, tracker, own_id, run, tags)

    def _create_experiment(
        self,
        store: Any,
        own_id: str,
        name: str,
        artifact_location: str | None,
        tags: dict[str, str],
    ) -> None:
        if self._ids.find(own_id) is not None:
            return
        found = store.get_experiment_by_name(name)  # somebody may have made it since
        try:
            real = (
                found.experiment_id
                if found
                else store.create_experiment(
                    name, artifact_location, [ExperimentTag(key, value) for key, value in tags.items()]
                )
            )
        except Exception as error:
            self._note_refusal(own_id, error)
            raise
        self._ids.keep(own_id, str(real))

    def _note_refusal(self, own: str, error: Exception) -> None:
        if not is_away(error) and not is_refused_access(error):
            self._ids.refuse(own, str(error))

    def _update_run_info(
        self, store: Any, run_id: str, run_status: str | None, end_time: int | None, run_name: str | None
    ) -> None:
        status = None if run_status is None else RunStatus.from_string(run_status)
        store.update_run_info(self._ids.real(run_id), status, end_time, run_name)

    def _delete_tag(self, store: Any, run_id: str, key: str) -> None:
        try:
            store.delete_tag(self._ids.real(run_id), key)
        except MlflowException as error:
            if not (self._is_doubtful and code_of(error) == "RESOURCE_DOES_NOT_EXIST" and "tag" in str(error).lower()):
                raise

    def _set_experiment_tag(self, store: Any, experiment_id: str, key: str, value: str) -> None:
        store.set_experiment_tag(self._ids.real(experiment_id), ExperimentTag(key, value))

    def _log_inputs(self, store: Any, run_id: str, datasets: list[Any], models: list[Any]) -> None:
        more = {"models": events.inputs_of(models)} if models else {}
        store.log_inputs(self._ids.real(run_id), events.inputs_of(datasets), **more)

    def _log_artifact(self, store: Any, root: str, artifact_path: str | None, name: str, file: str) -> None:
        spooled = self._ids.spool / file
        if not spooled.exists():
            if self._is_doubtful:  # sent and removed, and not acknowledged before the process ended
                return
            raise RefusedError(f"its copy {spooled} is gone")
        if root.startswith(SPOOLED):
            own, _, below = root.removeprefix(SPOOLED).partition("/artifacts")
            root = f"{store.get_run(self._ids.real(own)).info.artifact_uri}{below}"
        upload(root, self._uri, spooled, artifact_path, self._seconds(), name)
        spooled.unlink(missing_ok=True)

    def _log_outputs(self, store: Any, run_id: str, models: list[Any]) -> None:
        real = self._ids.real(run_id)
        if self._is_doubtful:
            outputs = getattr(store.get_run(real), "outputs", None)
            taken = {model.model_id for model in (outputs.model_outputs if outputs else ())}
            models = [model for model in models if model[1].get("model_id") not in taken]
        if models:
            store.log_outputs(real, events.inputs_of(models))


def ids_folder(config: Config) -> Path:
    """Where the store's ids are kept of what was created while it was away."""
    return config.settings(CoreSettings).journals / "mlflow"


def _point(metric: Any) -> tuple[Any, ...]:
    return str(float(metric.value)), metric.timestamp, metric.step


def _parts(entities: list[Any], size: int) -> list[list[Any]]:
    return [entities[start : start + size] for start in range(0, len(entities), size)]
