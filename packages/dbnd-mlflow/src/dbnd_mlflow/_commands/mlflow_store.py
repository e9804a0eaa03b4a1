"""The user's own MLflow store, as the commands read it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import mlflow
from mlflow import MlflowClient
from mlflow.entities import ViewType
from mlflow.exceptions import MlflowException
from mlflow.tracking._tracking_service import utils as mlflow_tracking
from mlflow.utils.search_utils import SearchUtils

from dbnd import Config, DatabandError, UsageError
from dbnd.plugins import mask_text, mask_url

from .._durable.ids import FIRST_ID
from .._mlflow import file_of, pages
from .._reporting.artifacts import MAX_ARTIFACTS, artifacts_of, is_local
from .._reporting.derived import integer_of
from .._reporting.runs import NO_SUCH_RUN
from .._reporting.store_reader import PAGE
from .._settings import MlflowTrackingSettings
from .._store.builders import inner_uri
from .comparison import points_of_mlflow

# MLflow asks a server that does not answer seven times, which takes minutes: too long for a command.
_RETRIES: Final = ("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")


def own_tracking_uri(config: Config) -> str:
    """The user's own MLflow store: ``duplicate_tracking_to``, else what MLflow is set to."""
    return inner_uri(config.settings(MlflowTrackingSettings).duplicate_tracking_to or str(mlflow.get_tracking_uri()))


class OwnStore:
    """The MLflow store of a tracking URI, to read from. Trouble with it is a ``DatabandError``, whichever the method.

    Raises:
        UsageError: There is no such file or folder, which MLflow would make.
        DatabandError: MLflow cannot use the URI.
    """

    def __init__(self, uri: str) -> None:
        self.uri: Final = uri
        self.name: Final = mask_url(uri)
        place = file_of(uri)
        if place is not None and not place.exists():
            raise UsageError(f"There is no MLflow store {self.name}: {place} does not exist.")
        os.environ.setdefault(*_RETRIES)
        with self._reading():
            self._client: Final = MlflowClient(tracking_uri=uri)
        self._names: dict[str, str] = {}

    def run(self, run_id: str) -> Any:
        """The run with this id; a ``UsageError`` if there is none."""
        found = self.run_or_none(run_id)
        if found is None:
            raise UsageError(f"There is no run {run_id!r} in {self.name}.")
        return found

    def run_or_none(self, run_id: str) -> Any:
        """The run with this id, or None if there is none any more."""
        with self._reading():
            try:
                return self._client.get_run(run_id)
            except MlflowException as error:
                if error.error_code in NO_SUCH_RUN:
                    return None
                raise

    def runs(self, experiment: str | None = None, since: int | None = None) -> list[Any]:
        """The active runs that started at ``since`` (ms since the epoch) or later, oldest first.

        Raises:
            UsageError: There is no such experiment.
        """
        client = self._client
        with self._reading():
            if experiment is None:
                found = list(pages(lambda token: client.search_experiments(page_token=token)))
            else:
                found = [each for each in [client.get_experiment_by_name(experiment)] if each is not None]
            if experiment is not None and not found:
                raise UsageError(f"There is no experiment {experiment!r} in {self.name}.")
            self._names |= {each.experiment_id: str(each.name) for each in found}
            ids = [each.experiment_id for each in found]
            runs = pages(
                lambda token: client.search_runs(
                    ids,
                    filter_string="" if since is None else f"attributes.start_time >= {since}",
                    max_results=PAGE,
                    order_by=["attributes.start_time ASC"],
                    page_token=token,
                )
            )
            return list(runs) if ids else []

    def id_of(self, first_id: str) -> str | None:
        """The id of the run that had ``first_id`` while the store was away; None if there is none."""
        with self._reading():
            ids = [
                each.experiment_id for each in pages(lambda token: self._client.search_experiments(page_token=token))
            ]
            found = self._client.search_runs(ids, f"tags.`{FIRST_ID}` = '{first_id}'", ViewType.ALL, max_results=1)
        return found[0].info.run_id if found else None

    def experiment(self, run: Any) -> str:
        experiment_id = run.info.experiment_id
        if experiment_id not in self._names:
            with self._reading():
                self._names[experiment_id] = str(self._client.get_experiment(experiment_id).name)
        return self._names[experiment_id]

    def history(self, run_id: str, key: str) -> list[Any]:
        """All points of a metric, in an order that does not change from one call to the next."""
        with self._reading():
            points = self._client.get_metric_history(run_id, key)
        return sorted(points, key=lambda m: (integer_of(m.timestamp), integer_of(m.step), m.value != m.value, m.value))

    def has_more_points(self, run_id: str, key: str, count: int) -> bool:
        """Whether a metric has more points than ``count``, found by asking for that one alone and what comes next.

        MLflow before 3, and servers of that age, know no pages: there all are read.
        """
        token = SearchUtils.create_page_token(count - 1).decode()
        store = self._client._tracking_client.store  # the client has no way to ask for a part of them
        try:
            found = store.get_metric_history(run_id, key, max_results=1, page_token=token)
        except (MlflowException, TypeError):
            found = self.history(run_id, key)
        # A file store answers with all of them.
        return bool(getattr(found, "token", None)) or len(points_of_mlflow(found)) > count

    def artifacts(self, run: Any) -> list[tuple[str, str]]:
        """Names and places of a run's files; of very many, and where they cannot be listed, only their root."""
        root = run.info.artifact_uri
        if is_local(root):
            return artifacts_of(root)
        found: list[str] = []
        folders = [""]
        while folders:
            try:
                # MLflow 2.x asks the server of the process' own tracking URI for them, whatever the client's is.
                with mlflow_tracking._use_tracking_uri(self.uri):
                    entries = self._client.list_artifacts(run.info.run_id, folders.pop() or None)
            except (MlflowException, OSError):  # an artifact store that is gone, or lies in another place
                return artifacts_of(root)
            folders += [entry.path for entry in entries if entry.is_dir]
            found += [entry.path for entry in entries if not entry.is_dir]
            if len(found) + len(folders) > MAX_ARTIFACTS:
                return artifacts_of(root)
        return [(name, f"{root}/{name}") for name in sorted(found)]

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except DatabandError:
            raise
        except Exception as error:  # noqa: BLE001  whatever a store raises: MLflow's, its database's, a missing driver's
            raise DatabandError(f"The MLflow store {self.name} cannot be read: {self._sentence(error)}") from None

    def _sentence(self, error: Exception) -> str:
        text = mask_text(str(error)).replace(self.uri, self.name).strip()
        return (text.splitlines() or [type(error).__name__])[0]
