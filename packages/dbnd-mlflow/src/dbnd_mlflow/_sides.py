"""The two sides of a tracked MLflow run: the user's own store, and the task run in the tracker."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

import mlflow
from mlflow import MlflowClient

from dbnd import UsageError
from dbnd._masking import mask_url

from ._runs import TASK_RUN_UID, uid_of
from ._settings import MlflowTrackingSettings
from ._uri import is_composite_uri, parse_composite_uri

if TYPE_CHECKING:
    from dbnd import Config

MODELS_TAG: Final = "mlflow.log-model.history"
"""The tag in which stores before MLflow 3 list a run's models, by themselves; the tracker has them as artifacts."""
_PAGE: Final = 1_000


def own_tracking_uri(config: Config) -> str:
    """The user's own MLflow store: ``duplicate_tracking_to``, else what MLflow is set to."""
    configured = config.settings(MlflowTrackingSettings).duplicate_tracking_to or str(mlflow.get_tracking_uri())
    if not is_composite_uri(configured):
        return configured
    from ._builders import default_tracking_uri

    return parse_composite_uri(configured).duplicate_tracking_to or default_tracking_uri()


def runs_of(client: MlflowClient, uri: str, experiment: str | None, since: int | None = None) -> Iterator[Any]:
    """The active runs of a store, oldest first, with the name of the experiment of each.

    Args:
        client: Client of the store.
        uri: The store, as messages name it.
        experiment: Name of the only experiment wanted, or None for all.
        since: Earliest start, in ms since the epoch, or None.

    Raises:
        UsageError: There is no such experiment.
    """
    if experiment is None:
        experiments = _all_experiments(client)
    else:
        found = client.get_experiment_by_name(experiment)
        if found is None:
            msg = f"There is no experiment {experiment!r} in {mask_url(uri)}."
            raise UsageError(msg)
        experiments = [found]
    names = {found.experiment_id: found.name for found in experiments}
    token = None
    while names:
        page = client.search_runs(
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


def _all_experiments(client: MlflowClient) -> list[Any]:
    found: list[Any] = []
    token = None
    while True:
        page = client.search_experiments(page_token=token)
        found += page
        token = page.token
        if not token:
            return found


def history(client: MlflowClient, run_id: str, key: str) -> list[Any]:
    """All points of a metric, in an order that does not change from one call to the next."""
    points = client.get_metric_history(run_id, key)
    return sorted(points, key=lambda m: (m.timestamp, m.step, m.value != m.value, m.value))


def task_run_uid(run: Any) -> str:  # noqa: ANN401  MLflow's Run, of whichever version
    """The uid of the task run that an MLflow run is reported as."""
    return str(run.data.tags.get(TASK_RUN_UID) or uid_of(run.info.run_id))


def models_of(run: Any) -> list[str]:  # noqa: ANN401
    """The artifact paths of a run's models, as stores before MLflow 3 list them; none of what is no such list."""
    try:
        listed = json.loads(run.data.tags.get(MODELS_TAG, "[]"))
    except ValueError:  # a tag that anyone may set
        return []
    entries = listed if isinstance(listed, list) else []
    return sorted(
        {str(entry["artifact_path"]) for entry in entries if isinstance(entry, dict) and "artifact_path" in entry}
    )
