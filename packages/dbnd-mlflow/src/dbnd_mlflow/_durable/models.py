"""Logged models (MLflow 3) while MLflow's store is away: created, filled and finished as runs are."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Any

from mlflow.exceptions import MlflowException
from mlflow.utils import validation
from mlflow.utils.name_utils import _generate_random_name

from .creation import CREATE_MODEL
from .errors import PassOverAway, is_away
from .events import are_usual, have_no_place
from .ids import FIRST_MODEL_ID, MODEL, SPOOLED, is_own, new_id
from .target import Target, hide, within


class Models:
    """The logged models of one store; ``write`` makes a call now, or keeps it, as ``Keeper`` does.

    Its methods that are named as the store's take the same arguments, return and raise the same.
    """

    def __init__(self, target: Target, write: Callable[..., Any]) -> None:
        self._target = target
        self._inner = target.inner
        self._write = write
        self._known: dict[str, Any] = {}

    def create_logged_model(
        self,
        experiment_id: str,
        name: str | None = None,
        source_run_id: str | None = None,
        tags: Sequence[Any] | None = None,
        params: Sequence[Any] | None = None,
        model_type: str | None = None,
    ) -> Any:
        from mlflow.entities import LoggedModelTag

        own = new_id(MODEL)
        ids = self._target.ids
        experiment_id, source = ids.translated(experiment_id), ids.translated(source_run_id)
        if not (self._target.is_away or is_own(experiment_id) or is_own(source)):
            copied = [tag for tag in tags or () if tag.key != FIRST_MODEL_ID]
            given = [*copied, LoggedModelTag(FIRST_MODEL_ID, own)]
            with PassOverAway(), self._target.asking():
                model = self._inner.create_logged_model(experiment_id, name, source, given, params, model_type)
                return self._remembered(model.model_id, hide(model))
        self._target.checks.checked(validation._validate_logged_model_name, name)
        body: dict[str, Any] = {
            "own_id": own,
            "experiment_id": str(experiment_id),
            "name": name or _generate_random_name(),
            "source_run_id": source_run_id,
            "tags": {tag.key: str(tag.value) for tag in tags or ()},
            "params": {param.key: str(param.value) for param in params or ()},
            "model_type": model_type,
        }
        if not self._target.announce(CREATE_MODEL, body):
            return self._inner.create_logged_model(experiment_id, name, source, tags, params, model_type)
        return self._remembered(own, _model_of(**body))

    def get_logged_model(self, model_id: str, *args: Any, **kwargs: Any) -> Any:
        known = self._find(model_id)

        def get(real: str) -> Any:
            return self._inner.get_logged_model(real, *args, **kwargs)

        def see(model: Any) -> None:
            self._remembered(model_id, model)

        found = self._target.read(model_id, get, see, is_known=known is not None)
        return deepcopy(known) if found is None else found

    def finalize_logged_model(self, model_id: str, status: Any) -> Any:
        known = self._known_or_asked(model_id)
        body = {"model_id": model_id, "status": status.to_int()}
        answer = self._write(None, model_id, "finalize_logged_model", (status,), lambda: body)
        if answer is not None:
            return self._remembered(model_id, hide(answer))
        known.status, known.last_updated_timestamp = status, _now()
        return deepcopy(known)

    def set_logged_model_tags(self, model_id: str, tags: Sequence[Any]) -> None:
        known, given = self._known_or_asked(model_id), {tag.key: str(tag.value) for tag in tags}
        body = {"model_id": model_id, "tags": given}
        is_usual = self._are_usual(known.tags, tags)
        self._write(None, model_id, "set_logged_model_tags", (tags,), lambda: body, is_usual=is_usual)
        known.tags.update(given)
        if not is_usual:
            self.forget(model_id)

    def delete_logged_model_tag(self, model_id: str, key: str) -> None:
        known, body = self._known_or_asked(model_id), {"model_id": model_id, "key": key}
        if key not in known.tags:
            text = f"No tag with key {key!r} found for model with ID {model_id!r}."
            raise self._target.checks.error("RESOURCE_DOES_NOT_EXIST", text)
        is_usual = _is_name(key)
        self._write(None, model_id, "delete_logged_model_tag", (key,), lambda: body, is_usual=is_usual)
        known.tags.pop(key, None)

    def log_logged_model_params(self, model_id: str, params: Sequence[Any]) -> None:
        known, given = self._known_or_asked(model_id), {param.key: str(param.value) for param in params}
        body = {"model_id": model_id, "params": given}
        # An SQL store refuses a key that it has, or that is given twice.
        are_new = len(given) == len(params) and known.params.keys().isdisjoint(given)
        is_usual = self._are_usual(known.params, params) and are_new
        self._write(None, model_id, "log_logged_model_params", (params,), lambda: body, is_usual=is_usual)
        known.params.update(given)
        if not is_usual:
            self.forget(model_id)

    def forget(self, *model_ids: object) -> None:
        """Forget the models among these, as far as the store can be asked for them."""
        for model_id in model_ids:
            if isinstance(model_id, str) and not self._target.ids.is_uncreated(model_id):
                self._known.pop(model_id, None)

    def forget_all(self) -> None:
        """Forget all models that the store can be asked for."""
        self.forget(*tuple(self._known))

    def are_known(self, metrics: Sequence[Any]) -> bool:
        """Whether the models are there to which metrics belong, as far as the store can be asked."""
        ids = {str(metric.model_id) for metric in metrics if getattr(metric, "model_id", None)}
        try:
            with within(self._target.timeout):
                return all(self._known_or_asked(model_id) for model_id in ids)
        except MlflowException as error:
            return is_away(error)

    def _are_usual(self, known: dict[str, str], texts: Sequence[Any]) -> bool:
        """Whether every store takes these tags or params beside those known, and a journal keeps them as they are."""
        if not (are_usual((), texts) and all(_is_name(each.key) for each in texts)):
            return False
        return not (self._target.checks.is_file and have_no_place(known, texts))

    def _known_or_asked(self, model_id: str) -> Any:
        """What is known of a model, which raises what MLflow raises if there is none."""
        known = self._find(model_id)
        if known is None:
            known = self._known[model_id] = self.get_logged_model(model_id)
        return known

    def _find(self, model_id: str) -> Any:
        """A model that this process knows, or that any has announced."""
        if model_id not in self._known and is_own(model_id):
            announced = self._target.ids.creation(model_id)
            if announced is not None and announced[0] == CREATE_MODEL:
                self._remembered(model_id, _model_of(**announced[1]))
        return self._known.get(model_id)

    def _remembered(self, model_id: str, model: Any) -> Any:
        self._known[model_id] = deepcopy(model)
        return model


def _model_of(own_id: str, tags: dict[str, str], params: dict[str, str], **fields: Any) -> Any:
    """A model that the store has not created yet, as that will answer it."""
    from mlflow.entities import LoggedModel, LoggedModelStatus

    return LoggedModel(
        model_id=own_id,
        artifact_location=f"{SPOOLED}{own_id}/artifacts",
        creation_timestamp=_now(),
        last_updated_timestamp=_now(),
        status=LoggedModelStatus.PENDING,
        tags=dict(tags),
        params=dict(params),
        metrics=[],
        **fields,
    )


def _is_name(key: Any) -> bool:
    """Whether a key can be the name of a file, as in a file store, and a part of a path, as on a server."""
    try:
        validation._validate_tag_name(key)
    except MlflowException:
        return False
    return True


def _now() -> int:
    return time.time_ns() // 1_000_000
