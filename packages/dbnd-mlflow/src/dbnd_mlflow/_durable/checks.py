"""What MLflow's store would raise: checked at the call, because the store is asked later."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from mlflow.exceptions import MlflowException, RestException
from mlflow.protos.databricks_pb2 import ErrorCode
from mlflow.protos.service_pb2 import LogMetric
from mlflow.utils.validation import _validate_metric, _validate_tag, _validate_tag_name

from .._mlflow import is_any_of
from .calls import code_of, is_remote


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

    def checked(self, check: Callable[..., Any], *args: Any, needs: str = "") -> Any:
        """What MLflow's own check returns; what it raises is raised as the store would raise it.

        Args:
            check: The check.
            args: Its arguments.
            needs: What a server calls the first of them, if it must not be empty.
        """
        if needs and self._is_remote and args[0] == "":
            see = "See the API docs for more information about request parameters."
            raise self.error("INVALID_PARAMETER_VALUE", f"Missing value for required parameter '{needs}'. {see}")
        try:
            return check(*args)
        except MlflowException as error:
            raise self.error(code_of(error), error.message) from None

    def metric(self, metric: Any) -> None:
        """Check a metric; what cannot be put into a request is no error of MLflow."""
        if self._is_remote and not isinstance(metric.value, float):
            LogMetric(value=metric.value)
        self.checked(_validate_metric, metric.key, metric.value, metric.timestamp, metric.step, needs="key")

    def tag(self, tag: Any) -> Any:
        """The tag as the store keeps it; only a file store keeps any length."""
        if self.is_file:
            self.checked(_validate_tag_name, tag.key)
            return tag
        return self.checked(_validate_tag, tag.key, tag.value, needs="key") or tag

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
