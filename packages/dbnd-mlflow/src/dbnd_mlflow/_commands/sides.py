"""The two sides of a tracked MLflow run: the user's own store, and the task run in the tracker."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote, urlsplit

import mlflow
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.tracking._tracking_service import utils as mlflow_tracking
from mlflow.utils.search_utils import SearchUtils

from dbnd import DatabandError, UsageError
from dbnd.plugins import mask_text, mask_url

from .._reporting.derived import uid_of
from .._reporting.tags import MADE_FOR, Link
from .._settings import MlflowTrackingSettings
from .._uri import is_composite_uri, parse_composite_uri
from .comparison import MODELS_TAG, points_of_mlflow

if TYPE_CHECKING:
    from dbnd import Config
    from dbnd.tracking import Reader

_PAGE: Final = 1_000
# How MLflow answers for an id that no run has, or can have.
_NO_SUCH_RUN: Final = {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"}
# MLflow asks a server that does not answer seven times, which takes minutes: too long for a command.
_RETRIES: Final = ("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")


def own_tracking_uri(config: Config) -> str:
    """The user's own MLflow store: ``duplicate_tracking_to``, else what MLflow is set to."""
    configured = config.settings(MlflowTrackingSettings).duplicate_tracking_to or str(mlflow.get_tracking_uri())
    if not is_composite_uri(configured):
        return configured
    from .._store.builders import default_tracking_uri

    return parse_composite_uri(configured).duplicate_tracking_to or default_tracking_uri()


class OwnStore:
    """An MLflow store to read from. Trouble with it is one sentence.

    Args:
        uri: Its tracking URI.

    Raises:
        UsageError: There is no such file or folder, which MLflow would make.
        DatabandError: MLflow cannot use the URI.
    """

    def __init__(self, uri: str) -> None:
        self.uri: Final = uri
        self.name: Final = mask_url(uri)
        place = _file_of(uri)
        if place is not None and not place.exists():
            msg = f"There is no MLflow store {self.name}: {place} does not exist."
            raise UsageError(msg)
        os.environ.setdefault(*_RETRIES)
        with self._reading():
            self._client: Final = MlflowClient(tracking_uri=uri)
        self._names: dict[str, str] = {}

    def run(self, run_id: str) -> Any:
        """The run with this id.

        Raises:
            UsageError: There is none, or the store cannot be read.
        """
        try:
            return self._client.get_run(run_id)
        except MlflowException as error:
            raise UsageError(self._sentence(error)) from None

    def run_or_none(self, run_id: str) -> Any:
        """The run with this id, or None if there is none any more.

        Raises:
            DatabandError: The store cannot be read.
        """
        with self._reading():
            try:
                return self._client.get_run(run_id)
            except MlflowException as error:
                if error.error_code in _NO_SUCH_RUN:
                    return None
                raise

    def runs(self, experiment: str | None = None, since: int | None = None) -> Iterator[Any]:
        """The active runs, oldest first, with the name of the experiment of each.

        Args:
            experiment: Name of the only experiment wanted, or None for all.
            since: Earliest start, in ms since the epoch, or None.

        Raises:
            UsageError: There is no such experiment.
            DatabandError: The store cannot be read.
        """
        with self._reading():
            found = self._experiments() if experiment is None else [self._client.get_experiment_by_name(experiment)]
        names = {each.experiment_id: str(each.name) for each in found if each is not None}
        self._names.update(names)
        if experiment is not None and not names:
            msg = f"There is no experiment {experiment!r} in {self.name}."
            raise UsageError(msg)
        token = None
        while names:
            with self._reading():
                page = self._client.search_runs(
                    list(names),
                    filter_string="" if since is None else f"attributes.start_time >= {since}",
                    max_results=_PAGE,
                    order_by=["attributes.start_time ASC"],
                    page_token=token,
                )
            for run in page:
                yield run, names[run.info.experiment_id]
            token = page.token
            if not token:
                return

    def experiment(self, run: Any) -> str:
        """Name of the experiment of a run."""
        experiment_id = run.info.experiment_id
        if experiment_id not in self._names:
            with self._reading():
                self._names[experiment_id] = str(self._client.get_experiment(experiment_id).name)
        return self._names[experiment_id]

    def _experiments(self) -> list[Any]:
        found: list[Any] = []
        token = None
        while True:
            page = self._client.search_experiments(page_token=token)
            found += page
            token = page.token
            if not token:
                return found

    def history(self, run_id: str, key: str) -> list[Any]:
        """All points of a metric, in an order that does not change from one call to the next."""
        with self._reading():
            points = self._client.get_metric_history(run_id, key)
        return sorted(points, key=lambda m: (m.timestamp, m.step, m.value != m.value, m.value))

    def has_more_points(self, run_id: str, key: str, count: int) -> bool:
        """Whether a metric has more points than ``count``, found by asking for that one alone and what comes next.

        MLflow before 3, and servers of that age, know no pages: there all are read.
        """
        token = SearchUtils.create_page_token(count - 1).decode()
        store = self._client._tracking_client.store  # noqa: SLF001  the client has no way to ask for a part of them
        try:
            found = store.get_metric_history(run_id, key, max_results=1, page_token=token)
        except (MlflowException, TypeError):
            found = self.history(run_id, key)
        # A file store answers with all of them.
        return bool(getattr(found, "token", None)) or len(points_of_mlflow(found)) > count

    def artifacts(self, run_id: str, limit: int) -> list[str] | None:
        """Paths of the files of a run, or None if there are more than ``limit`` or they cannot be listed."""
        found: list[str] = []
        folders = [""]
        while folders:
            try:
                # MLflow 2.x asks the server of the process' own tracking URI for them, whatever the client's is.
                with mlflow_tracking._use_tracking_uri(self.uri):  # noqa: SLF001
                    entries = self._client.list_artifacts(run_id, folders.pop() or None)
            except (MlflowException, OSError):  # an artifact store that is gone, or lies in another place
                return None
            folders += [entry.path for entry in entries if entry.is_dir]
            found += [entry.path for entry in entries if not entry.is_dir]
            if len(found) + len(folders) > limit:
                return None
        return sorted(found)

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # noqa: BLE001  whatever a store raises: MLflow's, its database's, a missing driver's
            msg = f"The MLflow store {self.name} cannot be read: {self._sentence(error)}"
            raise DatabandError(msg) from None

    def _sentence(self, error: Exception) -> str:
        text = mask_text(str(error)).replace(self.uri, self.name).strip()
        return (text.splitlines() or [type(error).__name__])[0]


def _file_of(uri: str) -> Path | None:
    """The file or folder of a store that is one: of a SQLite database or of a file store."""
    parts = urlsplit(uri)
    if parts.scheme == "sqlite":
        from mlflow.store.db import utils  # it has SQLAlchemy, whose versions differ in what they make of a "%"

        file = utils.sqlalchemy.make_url(uri).database  # type: ignore[attr-defined]
        return Path(file) if file and file != ":memory:" else None
    if parts.scheme == "file":
        return Path(unquote(parts.path))
    return Path(uri) if parts.scheme == "" and uri != "databricks" else None


def task_run_of(run: Any, reader: Reader) -> dict[str, Any] | None:
    """The task run that an MLflow run is reported as, with everything it logged; None if the tracker has none.

    Args:
        run: The MLflow run.
        reader: Reader of the tracker.

    Raises:
        DatabandError: The tracker cannot be read.
    """
    run_id, tags = run.info.run_id, run.data.tags
    link = Link.of(run)
    found = None if link is None else reader.task_run(link.task_run_uid)
    if MADE_FOR not in tags and (unnamed := Link.in_tags(tags)) is not None:
        # Databand 2.0 did not say for which run the tags were made; the tracker does.
        task_run = reader.task_run(unnamed.task_run_uid)
        if task_run is not None and str(task_run["links"].get("mlflow")).endswith(f"/runs/{run_id}"):
            found = task_run
    return found or reader.task_run(uid_of(run_id))


def models_of(run: Any) -> list[str]:
    """The artifact paths of a run's models, as stores before MLflow 3 list them; none of what is no such list."""
    try:
        listed = json.loads(run.data.tags.get(MODELS_TAG, "[]"))
    except ValueError:  # a tag that anyone may set
        return []
    entries = listed if isinstance(listed, list) else []
    return sorted(
        {str(entry["artifact_path"]) for entry in entries if isinstance(entry, dict) and "artifact_path" in entry}
    )
