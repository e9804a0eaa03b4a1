"""Creating in MLflow's store what was created while it was away: once, by whichever process needs it first."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import mlflow.entities
from mlflow.entities import ExperimentTag, RunTag, ViewType
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_RUN_NAME

from dbnd.tracking import BusyError

from .errors import code_of, is_away, is_refused_access
from .ids import FIRST_ID, FIRST_MODEL_ID, OWN_ID, Ids, UncreatedError

OnCreated = Callable[[str, str, Any, dict[str, str]], object]

CREATE_RUN: Final = "create_run"
CREATE_EXPERIMENT: Final = "create_experiment"
CREATE_MODEL: Final = "create_logged_model"
CREATIONS: Final = frozenset({CREATE_RUN, CREATE_EXPERIMENT, CREATE_MODEL})
"""Calls that create something, whose bodies ``Creation.create`` takes."""


class Creation:
    """Creates runs, experiments and logged models in one store, which the methods are given.

    ``on_created`` is called with a run that is created late: its tracker, the id of ours, the run, and its tags.
    """

    def __init__(self, ids: Ids, on_created: OnCreated) -> None:
        self._ids = ids
        self._on_created = on_created
        self._refused: dict[str, str] = {}

    def forget_refusals(self) -> None:
        """Try again what was refused: it may have been something else that answered."""
        self._refused.clear()

    def real(self, store: Any, own_id: str) -> str:
        """The store's id of ``own_id``, created if need be; UncreatedError where it is refused, or not known."""
        found = self._ids.find(own_id)
        if found is not None:
            return found
        if own_id in self._refused:
            raise UncreatedError(self._refused[own_id], is_refused=True)
        announced = self._ids.creation(own_id)
        return self._ids.real(own_id) if announced is None else self.create(store, *announced)

    def translated(self, store: Any, text: str) -> str:
        """``text`` with every id of ours replaced by the store's."""
        for own in dict.fromkeys(OWN_ID.findall(text)):
            try:
                text = text.replace(own, self.real(store, own))
            except UncreatedError:
                continue
        return text

    def create(self, store: Any, call: str, body: dict[str, Any]) -> str:
        """Create what a call and its body say, unless it is; returns the store's id of it.

        Raises:
            BusyError: Another process creates something at the moment.
            UncreatedError: The store refuses it.
        """
        own = body["own_id"]
        if (done := self._ids.find(own)) is not None:
            return done
        make: Callable[[], str] = getattr(self, f"_{call}")(store, **body)
        with self._ids.alone() as is_alone:
            if not is_alone:
                raise BusyError("another process creates something in it at the moment")
            real = self._ids.find(own)
            if real is None:
                try:
                    real = make()
                except MlflowException as error:
                    if is_away(error) or is_refused_access(error):
                        raise
                    self._refused[own] = f"what has the id {own} was refused by it ({error})"
                    raise UncreatedError(self._refused[own], is_refused=True) from error
                self._ids.keep(own, real)
            return real

    # Each creates what the arguments name, and returns what then creates the thing itself, or finds it: the answer to
    # an earlier try may have been lost.

    def _create_run(
        self,
        store: Any,
        own_id: str,
        experiment_id: str,
        user_id: str,
        start_time: int,
        tags: dict[str, str],
        tracker: str,
    ) -> Callable[[], str]:
        experiment_id = self.real(store, experiment_id)
        given = [RunTag(key, self.translated(store, value)) for key, value in tags.items()]
        given.append(RunTag(FIRST_ID, own_id))
        name = tags[MLFLOW_RUN_NAME]

        def make() -> str:
            of_own = f"tags.`{FIRST_ID}` = '{own_id}'"
            found = store.search_runs([experiment_id], of_own, ViewType.ALL, max_results=1)
            run = found[0] if found else store.create_run(experiment_id, user_id, start_time, given, name)
            self._on_created(tracker, own_id, run, tags)
            return str(run.info.run_id)

        return make

    def _create_experiment(
        self,
        store: Any,
        own_id: str,  # noqa: ARG002  of the body
        name: str,
        artifact_location: str | None,
        tags: dict[str, str],
    ) -> Callable[[], str]:
        def make() -> str:
            found = store.get_experiment_by_name(name)
            if found is not None:
                return str(found.experiment_id)
            given = [ExperimentTag(key, value) for key, value in tags.items()]
            try:
                return str(store.create_experiment(name, artifact_location, given))
            except MlflowException as error:
                if code_of(error) != "RESOURCE_ALREADY_EXISTS":
                    raise
                return str(store.get_experiment_by_name(name).experiment_id)  # another machine was quicker

        return make

    def _create_logged_model(
        self,
        store: Any,
        own_id: str,
        experiment_id: str,
        name: str,
        source_run_id: str | None,
        tags: dict[str, str],
        params: dict[str, str],
        model_type: str | None,
    ) -> Callable[[], str]:
        experiment_id = self.real(store, experiment_id)
        source = self.real(store, source_run_id) if source_run_id else None
        values = {key: self.translated(store, value) for key, value in tags.items()}
        tag, param = mlflow.entities.LoggedModelTag, mlflow.entities.LoggedModelParameter
        given = [tag(key, value) for key, value in {**values, FIRST_MODEL_ID: own_id}.items()]
        made = [param(key, value) for key, value in params.items()]

        def make() -> str:
            of_own = f"tags.`{FIRST_MODEL_ID}` = '{own_id}'"
            found = store.search_logged_models([experiment_id], of_own, max_results=1)
            model = (
                found[0] if found else store.create_logged_model(experiment_id, name, source, given, made, model_type)
            )
            return str(model.model_id)

        return make
