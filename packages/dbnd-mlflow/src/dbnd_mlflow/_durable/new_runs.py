"""Runs that MLflow's store has not created yet."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from mlflow.entities import RunTag
from mlflow.utils import validation
from mlflow.utils.mlflow_tags import MLFLOW_RUN_NAME
from mlflow.utils.name_utils import _generate_random_name

from dbnd.tracking import Outbox

from .checks import Checks
from .creation import CREATE_RUN
from .ids import SPOOLED, Ids, is_own
from .view import new_run


class NewRuns:
    """The runs of one store that are created when it is back.

    Args:
        outbox: Where writes are kept.
        ids: The store's ids of what was created while it was away.
        checks: The store's checks and errors.
        tracker: The tracker that hears of the runs: its URL, without credentials.
    """

    def __init__(self, outbox: Outbox, ids: Ids, checks: Checks, tracker: str) -> None:
        self._outbox = outbox
        self._ids = ids
        self._checks = checks
        self._tracker = tracker

    def announce(
        self, own: str, experiment_id: str, user: str, start: int, tags: Sequence[Any], name: str | None
    ) -> Any:
        """Keep how to create a run; returns it as MLflow's, and None where nothing can be kept."""
        checked = (self._checks.checked(validation._validate_tag, t.key, t.value) or t for t in tags)
        given = {tag.key: tag.value for tag in checked}
        if name and given.get(MLFLOW_RUN_NAME, name) != name:
            text = (
                "Both 'run_name' argument and 'mlflow.runName' tag are specified, but with different values "
                f"(run_name='{name}', mlflow.runName='{given[MLFLOW_RUN_NAME]}')."
            )
            raise self._checks.error("INVALID_PARAMETER_VALUE", text)
        given[MLFLOW_RUN_NAME] = name or given.get(MLFLOW_RUN_NAME) or _generate_random_name()
        body: dict[str, Any] = {
            "own_id": own,
            "experiment_id": experiment_id,
            "user_id": user,
            "start_time": start,
            "tags": given,
            "tracker": self._tracker,
        }
        try:
            self._ids.announce(own, CREATE_RUN, body)
        except OSError:
            return None
        return _run_of(**body) if self._outbox.keep(CREATE_RUN, body, is_last_way=False) else None

    def find(self, run_id: str) -> Any:
        """A run with an id of ours, which any process has announced; None once the store has it."""
        if self._ids.find(run_id) is not None:
            return None
        creation = self._ids.creation(run_id)
        if creation is None or creation[0] != CREATE_RUN:
            raise self._checks.error("RESOURCE_DOES_NOT_EXIST", f"Run with id={run_id} not found")
        return _run_of(**creation[1])

    def has_parent(self, tags: Iterable[Any] | None) -> bool:
        """Whether a run with these tags hangs below one that is not created: it is created after that one."""
        return any(is_own(str(tag.value)) and self._ids.find(str(tag.value)) is None for tag in tags or ())

    def with_real_ids(self, tags: Iterable[Any] | None) -> list[Any]:
        """Tags, with the store's ids of what it has created meanwhile."""
        return [RunTag(t.key, self._ids.translated(t.value)) if is_own(str(t.value)) else t for t in tags or ()]


def _run_of(own_id: str, experiment_id: str, user_id: str, start_time: int, tags: dict[str, str], **_: object) -> Any:
    """A run that the store has not created yet, as that will answer it."""
    return new_run(own_id, experiment_id, user_id, start_time, tags, f"{SPOOLED}{own_id}/artifacts")
