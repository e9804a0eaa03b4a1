"""Delivery to an MLflow store: the transport of journals whose URL is ``mlflow:`` and the store's URI."""

from __future__ import annotations

import functools
import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

import mlflow.entities
from mlflow.entities import ExperimentTag, RunStatus, RunTag
from mlflow.exceptions import MlflowException

from dbnd.plugins import CoreSettings, usable_folder
from dbnd.tracking import (
    AccessError,
    Batch,
    BusyError,
    RefusedError,
    TooLargeError,
    TransportError,
    UnreachableError,
    monotonic,
)

from .._mlflow import build_inner, file_of, in_workspace, is_any_of, metric_history
from .._uri import parse_journal_url
from . import events
from .artifacts import artifact_root, upload
from .creation import CREATIONS, Creation, OnCreated
from .errors import code_of, is_away, is_refused_access, is_too_large, reason_of, status_of, was_reached
from .ids import Ids, UncreatedError, spooled_root
from .target import made_patient, within

if TYPE_CHECKING:
    from pathlib import Path

    from dbnd import Config

# What MLflow's stores take in one log_batch.
_MAX_METRICS: Final = 1_000
_MAX_TEXTS: Final = 100
# File of a model that says what it is.
_MLMODEL: Final = "MLmodel"
# Seconds that a request may take while nobody waits for it, as in MLflow itself.
_PATIENCE: Final = 120.0
# What a server answers with an error of its own, or what nothing is known of, is tried so often before it is given up.
_TRIES: Final = 5
_OWN_ERROR: Final = 500


class MlflowTransport:
    """Delivers to the MLflow store of a journal's URL (see ``build_journal_url``), with its credentials.

    Repeating a batch of which a part was delivered changes nothing.
    """

    def __init__(self, url: str, config: Config, on_created: OnCreated) -> None:
        self._uri, self._workspace = parse_journal_url(url)
        self._ids = Ids(ids_folder(config))
        self._creation = Creation(self._ids, on_created)
        self.deadline: float | None = None
        # Which journal was sent from last, and up to which event an earlier try may have been taken.
        self._journal, self._tried = "", 0
        self._failures: Counter[tuple[str, int]] = Counter()
        self._is_doubtful = True

    def send(self, batch: Batch) -> Mapping[str, int] | None:
        is_new = batch.journal != self._journal
        if is_new:
            self._journal, self._tried = batch.journal, 0
        # A process that has ended may have sent the first events of a journal, and not noted it.
        self._is_doubtful = is_new or batch.first <= self._tried
        try:
            with within(self._seconds()), in_workspace(self._workspace):
                self._deliver(batch)
        except Exception as error:
            self._tried = max(batch.last, self._tried)
            if isinstance(error, TransportError):
                raise
            raise self._said(error, batch) from error
        self._failures.clear()
        return None

    def heartbeat(self, run_uid: str) -> str | None:  # noqa: ARG002  of the contract
        """MLflow's stores know none."""
        return None

    def check(self) -> None:
        """Ask for MLflow's default experiment."""
        try:
            with within(self._seconds()), in_workspace(self._workspace):
                self._store.search_experiments(max_results=1)
        except Exception as error:
            raise self._said(error, None) from error

    def close(self) -> None:
        """Release the connections of a database, and remove what killed processes have left."""
        with suppress(OSError):
            self._ids.tidy()
        store = self.__dict__.pop("_store", None)
        if (engine := getattr(store, "engine", None)) is not None:
            engine.dispose()

    def _seconds(self) -> float:
        return _PATIENCE if self.deadline is None else min(_PATIENCE, max(1.0, self.deadline - monotonic()))

    @functools.cached_property
    def _store(self) -> Any:
        place = file_of(self._uri)
        if place is not None and not place.exists():
            # MLflow would make an empty one, which would refuse what belongs to runs of this one.
            raise UnreachableError(f"{place} is not there")
        return made_patient(build_inner(self._uri, None))

    def _said(self, error: Exception, batch: Batch | None) -> Exception:
        """What an error means for delivery; one that no store should raise is left as it is."""
        reason = reason_of(error)
        if isinstance(error, UncreatedError):
            # Nothing is known of it: it is in another folder, or another machine's file is seen late.
            is_final = error.is_refused or self._is_hopeless(batch)
            return (RefusedError if is_final else BusyError)(reason)
        if is_refused_access(error) or (batch is None and code_of(error) == "PERMISSION_DENIED"):
            return AccessError(reason)
        if is_too_large(error):
            return TooLargeError(reason)
        if is_away(error):
            self._creation.forget_refusals()
            # The server's own answer: its database may be away, or it chokes on what is in the batch.
            if status_of(error) == _OWN_ERROR and self._is_hopeless(batch):
                return RefusedError(reason)
            return (BusyError if was_reached(error) else UnreachableError)(reason)
        return RefusedError(reason) if isinstance(error, (MlflowException, OSError)) else error

    def _is_hopeless(self, batch: Batch | None) -> bool:
        """Count a failure of a batch; whether there have been too many."""
        if batch is None:
            return False
        key = batch.journal, batch.first
        self._failures[key] += 1
        return self._failures[key] >= _TRIES

    def _deliver(self, batch: Batch) -> None:
        body = batch.body
        if batch.call == events.POINTS:
            self._log(body)
            return
        assert isinstance(body, dict)
        if batch.call in CREATIONS:
            self._creation.create(self._store, batch.call, body)
        else:
            getattr(self, f"_{batch.call}")(**body)

    def _log(self, groups: Any) -> None:
        """Params first: one that the store refuses takes nothing else along."""
        by_run: dict[str, dict[str, list[Any]]] = defaultdict(lambda: defaultdict(list))
        for group in groups:
            kind = events.kind_of(group, is_doubtful=self._is_doubtful)
            if isinstance(group[1], list) and group[1][1]:  # metrics of a model
                group[1][1] = self._translated(group[1][1])
            by_run[self._real(group[0])][kind] += events.entities_of(group)
        for run_id, found in by_run.items():
            for params in _parts(found[events.PARAM], _MAX_TEXTS):
                self._store.log_batch(run_id, [], params, [])
        for run_id, found in by_run.items():
            tags = {tag.key: RunTag(tag.key, self._translated(tag.value)) for tag in found[events.TAG]}
            if is_any_of(self._store, {"FileStore"}):  # whose batches shorten tags, and single calls do not
                for tag in tags.values():
                    self._store.set_tag(run_id, tag)
                tags.clear()
            for part in _parts(list(tags.values()), _MAX_TEXTS):
                self._store.log_batch(run_id, [], [], part)
            metrics = [*self._without_taken(run_id, found[events.REPEATED]), *found[events.METRIC]]
            for part in _parts(metrics, _MAX_METRICS):
                self._store.log_batch(run_id, part, [], [])

    def _without_taken(self, run_id: str, metrics: list[Any]) -> list[Any]:
        """The points that a file store does not have yet: it takes a point twice, and a database does not.

        Which of them a server has it does not say. A point that is later than the last one is new.
        """
        if not metrics or not is_any_of(self._store, {"FileStore", "RestStore"}):
            return metrics
        known = {metric.key for metric in metrics}
        if is_any_of(self._store, {"RestStore"}):  # a run in files is not read where a killed process left one empty
            last = {metric.key: metric for metric in self._store.get_run(run_id).data._metric_objs}
            known = {m.key for m in metrics if m.key in last and _moment(m) <= _moment(last[m.key])}
        taken = {(key, _point(metric)) for key in known for metric in metric_history(self._store, run_id, key)}
        return [metric for metric in metrics if (metric.key, _point(metric)) not in taken]

    def _real(self, own_id: str) -> str:
        return self._creation.real(self._store, own_id)

    def _translated(self, text: str) -> str:
        return self._creation.translated(self._store, text)

    def _update_run_info(self, run_id: str, run_status: str | None, end_time: int | None, run_name: str | None) -> None:
        status = None if run_status is None else RunStatus.from_string(run_status)
        self._store.update_run_info(self._real(run_id), status, end_time, run_name)

    def _delete_tag(self, run_id: str, key: str) -> None:
        with _passing_over_missing_tag():
            self._store.delete_tag(self._real(run_id), key)

    def _set_experiment_tag(self, experiment_id: str, key: str, value: str) -> None:
        self._store.set_experiment_tag(self._real(experiment_id), ExperimentTag(key, value))

    def _log_inputs(self, run_id: str, datasets: list[Any], models: list[Any]) -> None:
        models = self._with_real_ids(models)
        more = {"models": events.inputs_of(models)} if models else {}
        self._store.log_inputs(self._real(run_id), events.inputs_of(datasets), **more)

    def _log_artifact(self, root: str, artifact_path: str | None, name: str, file: str) -> None:
        spooled = self._ids.spool / file
        if not spooled.exists():
            if self._is_doubtful:  # sent and removed, and not acknowledged before the process ended
                return
            raise RefusedError(f"its copy {spooled} is gone")
        if (found := spooled_root(root)) is not None:
            own, below = found
            root = f"{artifact_root(self._store, self._real(own))}{below}"
        if name == _MLMODEL:  # names its run and itself
            text = spooled.read_text(encoding="utf-8")
            if (translated := self._translated(text)) != text:
                spooled.write_text(translated, encoding="utf-8")
        upload(root, self._uri, spooled, artifact_path, self._seconds(), name)
        spooled.unlink(missing_ok=True)

    def _log_outputs(self, run_id: str, models: list[Any]) -> None:
        real = self._real(run_id)
        outputs = getattr(self._store.get_run(real), "outputs", None)
        taken = {model.model_id for model in (outputs.model_outputs if outputs else ())}
        models = [each for each in self._with_real_ids(models) if each[1].get("model_id") not in taken]
        if models:
            self._store.log_outputs(real, events.inputs_of(models))

    def _finalize_logged_model(self, model_id: str, status: int) -> None:
        self._store.finalize_logged_model(self._real(model_id), mlflow.entities.LoggedModelStatus.from_int(status))

    def _set_logged_model_tags(self, model_id: str, tags: dict[str, str]) -> None:
        made = [mlflow.entities.LoggedModelTag(key, self._translated(tags[key])) for key in tags]
        self._store.set_logged_model_tags(self._real(model_id), made)

    def _delete_logged_model_tag(self, model_id: str, key: str) -> None:
        with _passing_over_missing_tag():
            self._store.delete_logged_model_tag(self._real(model_id), key)

    def _log_logged_model_params(self, model_id: str, params: dict[str, str]) -> None:
        real = self._real(model_id)
        taken = self._store.get_logged_model(real).params
        made = [mlflow.entities.LoggedModelParameter(key, params[key]) for key in params if key not in taken]
        if made:
            self._store.log_logged_model_params(real, made)

    def _with_real_ids(self, models: list[Any]) -> list[Any]:
        """Models as inputs or outputs, by the store's ids of them."""
        translated: list[Any] = json.loads(self._translated(json.dumps(models)))
        return translated


def ids_folder(config: Config) -> Path:
    """Where the store's ids are kept of what was created while it was away."""
    return usable_folder(config.settings(CoreSettings).journals) / "mlflow"


@contextmanager
def _passing_over_missing_tag() -> Iterator[None]:
    """Delete a tag that may be gone: by an earlier try, or by somebody else."""
    try:
        yield
    except MlflowException as error:
        if not (code_of(error) == "RESOURCE_DOES_NOT_EXIST" and "tag" in str(error).lower()):
            raise


def _moment(metric: Any) -> tuple[int, int]:
    return metric.step, metric.timestamp


def _point(metric: Any) -> tuple[Any, ...]:
    return str(float(metric.value)), metric.timestamp, metric.step


def _parts(entities: list[Any], size: int) -> list[list[Any]]:
    return [entities[start : start + size] for start in range(0, len(entities), size)]
