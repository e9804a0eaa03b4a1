"""What MLflow's store would raise: checked at the call, because the store is asked later."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mlflow.exceptions import MlflowException, RestException
from mlflow.protos.databricks_pb2 import ErrorCode
from mlflow.protos.service_pb2 import LogMetric
from mlflow.utils.validation import _validate_metric

from .calls import code_of, is_remote


class Checks:
    """The checks and errors of one store.

    Args:
        inner: MLflow's own store.
    """

    def __init__(self, inner: Any) -> None:
        self._is_remote = is_remote(inner)

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
