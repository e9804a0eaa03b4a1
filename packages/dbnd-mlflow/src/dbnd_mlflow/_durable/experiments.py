"""Experiments while MLflow's store is away: those seen before are known, and new ones are made when it is back."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from mlflow.entities import Experiment, ExperimentTag
from mlflow.utils import validation

from .creation import CREATE_EXPERIMENT
from .errors import PassOverAway, is_away
from .events import is_text
from .ids import is_own, new_id
from .target import Target

# Where an experiment of ours keeps its artifacts is not known.
_NO_PLACE: Final = ""
# Names and ids that are remembered on disk.
_MAX_KNOWN: Final = 1_000


class Experiments:
    """The experiments of one store; ``write`` makes a call now, or keeps it, as ``Keeper`` does.

    Its methods that are named as the store's take the same arguments, return and raise the same.
    """

    def __init__(self, target: Target, write: Callable[..., Any]) -> None:
        self._target = target
        self._inner = target.inner
        self._ids = target.ids
        self._write = write
        self._file = f"experiments-{hashlib.sha256(target.outbox.name.encode()).hexdigest()[:16]}.json"
        self._has_waiting = False
        self._known: dict[str, str] | None = None  # names by id
        self._made: dict[str, Any] = {}

    def get_experiment(self, experiment_id: str) -> Any:
        real, known = self._ids.translated(experiment_id), self._remembered(str(experiment_id))
        is_asked = not (self._target.is_away or is_own(real))
        if known is not None and not is_asked:
            return known
        if is_asked:
            self.deliver()
        try:
            with self._target.asking(is_only=known is None):
                return self._seen(self._inner.get_experiment(real))
        except Exception as error:
            if known is None or not is_away(error):
                raise
            return known

    def get_experiment_by_name(self, experiment_name: str) -> Any:
        if not self._target.is_away:
            self.deliver()
            with PassOverAway(), self._target.asking():
                return self._seen(self._inner.get_experiment_by_name(experiment_name))
        return self._named(experiment_name)

    def create_experiment(self, name: str, artifact_location: Any = None, tags: Any = None) -> str:
        self._target.checks.checked(validation._validate_experiment_name, name)
        if not self._target.is_away:
            with PassOverAway(), self._target.asking(is_final=True):
                made = str(self._inner.create_experiment(name, artifact_location, tags))
                self._see(made, name)
                return made
        if self._named(name) is not None:
            raise self._target.checks.error("RESOURCE_ALREADY_EXISTS", f"Experiment '{name}' already exists.")
        own = new_id()
        given = {tag.key: tag.value for tag in tags or ()}
        body = {"own_id": own, "name": name, "artifact_location": artifact_location, "tags": given}
        if not self._target.announce(CREATE_EXPERIMENT, body):
            return str(self._inner.create_experiment(name, artifact_location, tags))
        self._made[own] = _experiment(**body)
        self._has_waiting = True
        return own

    def set_experiment_tag(self, experiment_id: str, tag: Any) -> None:
        self._target.checks.checked(validation._validate_experiment_tag, tag.key, tag.value)
        if not self._target.is_direct and self._is_deleted(experiment_id):
            text = f"The experiment {experiment_id} must be in the 'active' state. Current state is deleted."
            raise self._target.checks.error("INVALID_PARAMETER_VALUE", text)
        body = {"experiment_id": experiment_id, "key": tag.key, "value": tag.value}
        args = (ExperimentTag(tag.key, tag.value),)
        self._has_waiting = True
        # Of what a file store has of names that it could keep as files only, or only as folders, nothing is known here.
        is_usual = (
            experiment_id != "" and is_text(experiment_id, tag.key, tag.value) and not self._target.checks.is_file
        )
        self._write(None, experiment_id, "set_experiment_tag", args, lambda: body, is_usual=is_usual)

    def deliver(self) -> None:
        """Deliver what waits, before experiments are read, if one or a tag of one is among it; within bounds."""
        if self._has_waiting and self._target.has_delivered():
            self._has_waiting = False

    def _is_deleted(self, experiment_id: str) -> bool:
        """Whether an experiment is in MLflow's trash, as far as the store can be asked; raises if there is none."""
        real = self._ids.translated(experiment_id)
        if not (is_own(real) or self._target.is_away):
            with PassOverAway(), self._target.asking():
                return bool(self._inner.get_experiment(real).lifecycle_stage == "deleted")
        return False

    def _named(self, name: str) -> Any:
        made = next((each for each in list(self._made.values()) if each.name == name), None)
        found = next((key for key, known in list(self._names().items()) if known == name), None)
        return made or (None if found is None else _experiment(found, name))

    def _remembered(self, experiment_id: str) -> Any:
        if experiment_id not in self._made:
            announced = self._ids.creation(experiment_id)  # perhaps by another process
            if announced is not None and announced[0] == CREATE_EXPERIMENT:
                self._made[experiment_id] = _experiment(**announced[1])
        # The one with the id 0 is MLflow's own, which every store has.
        name = self._names().get(experiment_id, "Default" if experiment_id == "0" else None)
        return self._made.get(experiment_id) or (None if name is None else _experiment(experiment_id, name))

    def _names(self) -> dict[str, str]:
        """Names by id: those that this process has seen, and those that others have."""
        if self._known is None:
            self._known = {}
            with suppress(OSError, ValueError):
                self._known = dict(json.loads((self._ids.folder / self._file).read_text(encoding="utf-8")))
        return self._known

    def _seen(self, found: Any) -> Any:
        """What the store has answered, which is remembered if there is anything."""
        if found is not None:
            self._see(str(found.experiment_id), found.name)
        return found

    def _see(self, experiment_id: str, name: str) -> None:
        names = self._names()
        if names.get(experiment_id) == name:
            return
        names[experiment_id] = name
        while len(names) > _MAX_KNOWN:
            del names[next(iter(names))]
        with suppress(OSError):  # a full disk: then it is not known in an outage
            self._ids.write(self._file, json.dumps(names))


def _experiment(own_id: str, name: str, artifact_location: str | None = None, tags: Any = None) -> Any:
    now = time.time_ns() // 1_000_000
    tags = [ExperimentTag(key, value) for key, value in (tags or {}).items()]
    return Experiment(own_id, name, artifact_location or _NO_PLACE, "active", tags, now, now)
