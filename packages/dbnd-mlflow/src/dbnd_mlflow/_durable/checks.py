"""What MLflow's store would refuse: checked at the call, because it is kept.

A store that can be asked is asked about all that a check doubts (see ``Keeper.ask``): it refuses in its own words, or
takes what it likes better than the check. So what is raised here is only heard while the store is away.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from numbers import Integral
from typing import Any, Final

from mlflow.exceptions import MlflowException, RestException
from mlflow.protos.databricks_pb2 import ErrorCode
from mlflow.utils.validation import MAX_ENTITY_KEY_LENGTH, _validate_tag, _validate_tag_name

from .._mlflow import is_any_of
from .calls import code_of, is_remote
from .events import EXTRAS

_LONG: Final = 1 << 63


def is_text(*values: object) -> bool:
    """Whether all of these are text that a journal keeps as it is."""
    for value in values:
        if not isinstance(value, str) or "\0" in value:
            return False
        try:
            value.isascii() or value.encode()
        except UnicodeEncodeError:
            return False
    return True


def is_text_or_none(*values: object) -> bool:
    """Whether all of these are text that a journal keeps as it is, or None."""
    return is_text(*(value for value in values if value is not None))


def is_long(value: object) -> bool:
    """Whether a value is a whole number of 64 bits, as times and steps are."""
    is_whole = type(value) is int or (isinstance(value, Integral) and not isinstance(value, bool))
    return is_whole and -_LONG <= value < _LONG  # type: ignore[operator]


def are_usual(metrics: Iterable[Any], texts: Iterable[Any]) -> bool:
    """Whether every store takes these metrics, and these params or tags, and a journal keeps them as they are."""
    return all(_is_usual(m) for m in metrics) and all(_is_key(each.key) and is_text(each.value) for each in texts)


def are_usual_inputs(datasets: Any) -> bool:
    """The same of datasets."""
    if datasets is None:
        return True
    found = [value for each in datasets for value in vars(each.dataset).values()]
    tags = [text for each in datasets for tag in each.tags for text in (tag.key, tag.value)]
    return isinstance(datasets, list) and "" not in found and is_text_or_none(*found) and is_text(*tags)


def _is_key(key: object) -> bool:
    # A file store gives a file the name, and files have short ones.
    return is_text(key) and len(str(key)) <= MAX_ENTITY_KEY_LENGTH


def _is_usual(metric: Any) -> bool:
    value = metric.value
    if type(value) is not float:
        try:
            float(value)
        except (TypeError, ValueError, OverflowError):
            return False
        if isinstance(value, (str, bytes, bool)):
            return False
    more = (getattr(metric, name, None) for name in EXTRAS)
    return _is_key(metric.key) and is_long(metric.timestamp) and is_long(metric.step) and is_text_or_none(*more)


class Checks:
    """The checks and errors of one store.

    Args:
        inner: MLflow's own store.

    Attributes:
        is_file: Whether it keeps runs in files, which has rules of its own.
    """

    def __init__(self, inner: Any) -> None:
        self._is_remote = is_remote(inner)
        self.is_file: Final = is_any_of(inner, {"FileStore"})

    def error(self, code: str, text: str) -> MlflowException:
        """An error as the store would raise it."""
        if self._is_remote:
            return RestException({"error_code": code, "message": text})
        return MlflowException(text, ErrorCode.Value(code))

    def checked(self, check: Callable[..., Any], *args: Any) -> Any:
        """What MLflow's own check returns; what it raises is raised as the store would raise it."""
        try:
            return check(*args)
        except MlflowException as error:
            raise self.error(code_of(error), error.message) from None

    def tag(self, tag: Any) -> Any:
        """The tag as the store keeps it; only a file store keeps any length."""
        if self.is_file:
            self.checked(_validate_tag_name, tag.key)
            return tag
        return self.checked(_validate_tag, tag.key, tag.value) or tag

    def active(self, run_id: str, *, is_deleted: bool) -> None:
        """Raise what MLflow raises for a write to a deleted run."""
        if is_deleted:
            stage = "'active' lifecycle_stage." if self.is_file else "the 'active' state. Current state is deleted."
            raise self.error("INVALID_PARAMETER_VALUE", f"The run {run_id} must be in {stage}")

    def param(self, run_id: str, known: str | None, param: Any, *, is_batch: bool) -> None:
        """Raise what MLflow raises for a param that is ``known`` with another value."""
        value = str(param.value)
        if known in {None, value}:
            return
        if is_batch:
            wrong = [{"key": param.key, "old_value": known, "new_value": value}]
            text = f"Changing param values is not allowed. Params were already logged='{wrong}' for run ID='{run_id}'."
        else:
            text = (
                f"Changing param values is not allowed. Param with key='{param.key}' was already logged with "
                f"value='{known}' for run ID='{run_id}'. Attempted logging new value '{value}'."
            )
        raise self.error("INVALID_PARAMETER_VALUE", text)
