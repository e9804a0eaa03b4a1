"""Reading from the user's own store, while it is written to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

from mlflow.entities import RunTag
from mlflow.exceptions import MlflowException

from .._mlflow import metric_history, pages

# Runs that are read at once.
PAGE: Final = 1_000


class StoreReader:
    """Reads runs from the user's own store, and writes our tags of them.

    Args:
        store: Gives the store.
        is_near: Whether reading takes no request to a server: a write must never cause one.
        first_id: Gives the id under which a run was announced, by the store's id of it.
    """

    def __init__(self, store: Callable[[], Any], *, is_near: bool, first_id: Callable[[str], str] = str) -> None:
        self._store = store
        self.is_near = is_near
        self.first_id = first_id

    def run(self, run_id: str) -> Any:
        return self._store().get_run(run_id)

    def tag(self, run_id: str, key: str, value: str) -> None:
        """Write a tag of ours."""
        self._store().set_tag(run_id, RunTag(key, value))

    def experiment_name(self, experiment_id: str) -> str | None:
        """Name of an experiment, or None where that would take a request, or there is none."""
        try:
            return str(self._store().get_experiment(experiment_id).name) if self.is_near else None
        except MlflowException:
            return None

    def history(self, run_id: str, key: str) -> list[Any]:
        """All points of a metric; none of one that the store does not know."""
        try:
            return list(metric_history(self._store(), run_id, key))
        except (MlflowException, OSError):
            return []

    def runs_of(self, experiment_id: str, view: int) -> Iterator[Any]:
        """The runs of an experiment, by MLflow's ``ViewType``; for a store that is near."""
        store = self._store()
        return pages(lambda token: store.search_runs([experiment_id], "", view, max_results=PAGE, page_token=token))
