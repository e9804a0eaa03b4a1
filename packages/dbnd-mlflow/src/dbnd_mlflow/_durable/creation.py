"""Creating in MLflow's store what was created while it was away: once, by whichever process needs it first."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import mlflow.entities
from mlflow.entities import ExperimentTag, RunTag, ViewType
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_RUN_NAME

from dbnd.tracking import BusyError

from .calls import is_away, is_refused_access
from .ids import FIRST_ID, FIRST_MODEL_ID, OWN_ID, Ids, UncreatedError

OnCreated = Callable[[str, str, Any, dict[str, str]], object]

CREATE_RUN: Final = "create_run"
CREATE_EXPERIMENT: Final = "create_experiment"
CREATE_MODEL: Final = "create_logged_model"


class Creation:
    """Creates runs, experiments and logged models in one store, which the methods are given.

    Args:
        ids: The store's ids of them.
        on_created: Called with a run that is created late: its tracker, the id of ours, the run, and its tags.
    """

    def __init__(self, ids: Ids, on_created: OnCreated) -> None:
        self._ids = ids
        self._on_created = on_created
        self._refused: dict[str, str] = {}

    def forget_refusals(self) -> None:
        """Try again what was refused: it may have been something else that answered."""
        self._refused.clear()

    def real(self, store: Any, run_id: str) -> str:
        """The store's id of ``run_id``, which is created if need be.

        Raises:
            UncreatedError: The store refuses it, or nothing is known of it.
        """
        found = self._ids.find(run_id)
        if found is not None:
            return found
        if run_id in self._refused:
            raise UncreatedError(self._refused[run_id], is_refused=True)
        creation = self._ids.creation(run_id)
        if creation is None:
            return self._ids.real(run_id)
        call, body = creation
        if call == CREATE_MODEL:
            return self.create_model(store, **body)
        return self.create_run(store, **body) if call == CREATE_RUN else self.create_experiment(store, **body)

    def translated(self, store: Any, text: str) -> str:
        """``text`` with every id of ours replaced by the store's."""
        for own in dict.fromkeys(OWN_ID.findall(text)):
            try:
                text = text.replace(own, self.real(store, own))
            except UncreatedError:
                continue
        return text

    def create_run(
        self,
        store: Any,
        own_id: str,
        experiment_id: str,
        user_id: str,
        start_time: int,
        tags: dict[str, str],
        tracker: str,
    ) -> str:
        """Create a run, unless it is; returns its id."""
        if (done := self._ids.find(own_id)) is not None:
            return done
        experiment_id = self.real(store, experiment_id)
        given = [RunTag(key, self.translated(store, value)) for key, value in tags.items()]

        def create() -> str:
            # The answer to an earlier try may have been lost.
            of_own = f"tags.`{FIRST_ID}` = '{own_id}'"
            found = store.search_runs([experiment_id], of_own, ViewType.ALL, max_results=1)
            run = (
                found[0]
                if found
                else store.create_run(
                    experiment_id, user_id, start_time, [*given, RunTag(FIRST_ID, own_id)], tags[MLFLOW_RUN_NAME]
                )
            )
            self._on_created(tracker, own_id, run, tags)
            return str(run.info.run_id)

        return self._once(own_id, create)

    def create_experiment(
        self, store: Any, own_id: str, name: str, artifact_location: str | None, tags: dict[str, str]
    ) -> str:
        """Create an experiment, unless there is one of that name; returns its id."""
        if (done := self._ids.find(own_id)) is not None:
            return done

        def create() -> str:
            found = store.get_experiment_by_name(name)
            if found is not None:
                return str(found.experiment_id)
            return str(store.create_experiment(name, artifact_location, [ExperimentTag(k, v) for k, v in tags.items()]))

        return self._once(own_id, create)

    def create_model(
        self,
        store: Any,
        own_id: str,
        experiment_id: str,
        name: str,
        source_run_id: str | None,
        tags: dict[str, str],
        params: dict[str, str],
        model_type: str | None,
    ) -> str:
        """Create a logged model, unless it is; returns its id."""
        if (done := self._ids.find(own_id)) is not None:
            return done
        experiment_id = self.real(store, experiment_id)
        source = self.real(store, source_run_id) if source_run_id else None
        values = {key: self.translated(store, value) for key, value in tags.items()}
        tag, param = mlflow.entities.LoggedModelTag, mlflow.entities.LoggedModelParameter
        given = [tag(key, value) for key, value in {**values, FIRST_MODEL_ID: own_id}.items()]

        def create() -> str:
            # The answer to an earlier try may have been lost.
            of_own = f"tags.`{FIRST_MODEL_ID}` = '{own_id}'"
            found = store.search_logged_models([experiment_id], of_own, max_results=1)
            made = [param(key, value) for key, value in params.items()]
            model = (
                found[0] if found else store.create_logged_model(experiment_id, name, source, given, made, model_type)
            )
            return str(model.model_id)

        return self._once(own_id, create)

    def _once(self, own: str, create: Callable[[], str]) -> str:
        with self._ids.alone() as is_alone:
            if not is_alone:
                raise BusyError("another process creates something in it at the moment")
            real = self._ids.find(own)
            if real is None:
                try:
                    real = create()
                except MlflowException as error:
                    if is_away(error) or is_refused_access(error):
                        raise
                    self._refused[own] = f"what has the id {own} was refused by it ({error})"
                    raise UncreatedError(self._refused[own], is_refused=True) from error
                self._ids.keep(own, real)
            return real
