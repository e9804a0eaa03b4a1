"""Experiments while MLflow's store is away: those seen before are known, and new ones are made when it is back."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from mlflow.entities import Experiment, ExperimentTag
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import ErrorCode

from dbnd.tracking import Outbox

from .calls import Reach, is_away, within
from .creation import CREATE_EXPERIMENT
from .ids import Ids, is_own, new_id

# Where an experiment of ours keeps its artifacts is not known.
_NO_PLACE: Final = ""
# Names and ids that are remembered on disk.
_MAX_KNOWN: Final = 1_000


class Experiments:
    """The experiments of one store.

    Args:
        inner: MLflow's own store.
        outbox: Where those are kept that are to be made.
        ids: The store's ids of those that were made later.
        reach: Tells whether the store is asked at the moment.

    Attributes:
        has_waiting_tags: Whether a tag of an experiment may wait.
    """

    def __init__(self, inner: Any, outbox: Outbox, ids: Ids, reach: Reach) -> None:
        self._inner = inner
        self._outbox = outbox
        self._ids = ids
        self._reach = reach
        self._path = ids.folder / f"experiments-{hashlib.sha256(outbox.name.encode()).hexdigest()[:16]}.json"
        self.has_waiting_tags = False
        self._known: dict[str, str] | None = None  # names by id
        self._made: dict[str, Any] = {}

    def get(self, experiment_id: str) -> Any:
        """The experiment with an id."""
        return self._ask("get_experiment", experiment_id, lambda: self._remembered(experiment_id))

    def by_name(self, name: str) -> Any:
        """The experiment with a name; None where there is none, or it cannot be known."""
        return self._ask("get_experiment_by_name", name, lambda: self._named(name))

    def deliver_tags(self) -> None:
        """Deliver what waits, before experiments are read, if a tag of one is among it; within bounds."""
        if self.has_waiting_tags and self._reach.has_delivered():
            self.has_waiting_tags = False

    def is_deleted(self, experiment_id: str) -> bool:
        """Whether an experiment is in MLflow's trash, as far as the store can be asked; raises if there is none."""
        real = self._ids.translated(experiment_id)
        if is_own(real) or self._reach.is_away:
            return False
        try:
            with self._reach.asking():
                return bool(self._inner.get_experiment(real).lifecycle_stage == "deleted")
        except Exception as error:
            if not is_away(error):
                raise
            return False

    def _ask(self, method: str, key: str, otherwise: Callable[[], Any]) -> Any:
        is_id = method == "get_experiment"
        real = self._ids.translated(key) if is_id else key
        if not (is_id and is_own(real)) and not self._reach.is_away:
            self.deliver_tags()
            try:
                with self._reach.asking():
                    found = getattr(self._inner, method)(real)
            except Exception as error:
                known = otherwise() if is_away(error) else None
                if known is None and not (is_away(error) and method == "get_experiment_by_name"):
                    raise
                return known
            if found is not None:
                self._see(str(found.experiment_id), found.name)
            return found
        known = otherwise()
        if known is None and method == "get_experiment":
            with within(self._reach.timeout):
                return getattr(self._inner, method)(real)
        return known

    def create(self, name: str, artifact_location: Any, tags: Any) -> str:
        """Make an experiment, now or when the store is back."""
        if not self._reach.is_away:
            try:
                with self._reach.asking(is_final=True):
                    made = str(self._inner.create_experiment(name, artifact_location, tags))
            except Exception as error:
                if not is_away(error):
                    raise
            else:
                self._see(made, name)
                return made
        if self._named(name) is not None:
            raise MlflowException(f"Experiment '{name}' already exists.", ErrorCode.Value("RESOURCE_ALREADY_EXISTS"))
        own = new_id()
        given = {tag.key: tag.value for tag in tags or ()}
        body = {"own_id": own, "name": name, "artifact_location": artifact_location, "tags": given}
        try:
            self._ids.announce(own, CREATE_EXPERIMENT, body)
            is_kept = self._outbox.keep(CREATE_EXPERIMENT, body, is_last_way=False) is not None
        except OSError:
            is_kept = False
        if not is_kept:
            return str(self._inner.create_experiment(name, artifact_location, tags))
        self._made[own] = _experiment(own, name, artifact_location or _NO_PLACE, given)
        return own

    def _named(self, name: str) -> Any:
        made = next((each for each in self._made.values() if each.name == name), None)
        found = next((key for key, known in self._seen().items() if known == name), None)
        return made or (None if found is None else _experiment(found, name))

    def _remembered(self, experiment_id: str) -> Any:
        experiment_id = str(experiment_id)
        name = self._seen().get(experiment_id)
        if name is None and experiment_id == "0":  # MLflow's own, which every store has
            name = "Default"
        return self._made.get(experiment_id) or (None if name is None else _experiment(experiment_id, name))

    def _seen(self) -> dict[str, str]:
        if self._known is None:
            self._known = {}
            with suppress(OSError, ValueError):
                self._known = dict(json.loads(self._path.read_text(encoding="utf-8")))
        return self._known

    def _see(self, experiment_id: str, name: str) -> None:
        seen = self._seen()
        if seen.get(experiment_id) == name:
            return
        seen[experiment_id] = name
        while len(seen) > _MAX_KNOWN:
            del seen[next(iter(seen))]
        with suppress(OSError):  # a full disk: then it is not known in an outage
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            unnamed = self._path.with_suffix(f".{os.getpid()}.new")
            unnamed.write_text(json.dumps(seen), encoding="utf-8")
            unnamed.replace(self._path)


def _experiment(experiment_id: str, name: str, artifact_location: str = _NO_PLACE, tags: Any = None) -> Any:
    now = time.time_ns() // 1_000_000
    tags = [ExperimentTag(key, value) for key, value in (tags or {}).items()]
    return Experiment(experiment_id, name, artifact_location, "active", tags, now, now)
