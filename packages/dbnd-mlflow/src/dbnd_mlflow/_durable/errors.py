"""Errors of an MLflow store: what they mean, and those that it would raise for a write that is kept.

A store that can be asked is asked about all that a check doubts (see ``Keeper.ask``): it refuses in its own words, or
takes what it likes better than the check. So what is raised here is only heard while the store is away.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Callable, Iterator
from typing import Any, Final

from mlflow.exceptions import MlflowException, RestException
from mlflow.protos.databricks_pb2 import ErrorCode
from mlflow.utils.validation import _validate_tag, _validate_tag_name

from dbnd.plugins import mask_text

from .._mlflow import is_any_of

# What MLflow itself tries again, and what a server answers whose database is away.
_AWAY: Final = frozenset(
    {"INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE", "DEADLINE_EXCEEDED", "REQUEST_LIMIT_EXCEEDED", "RESOURCE_EXHAUSTED"}
)
_NO_ACCESS: Final = frozenset({"UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED"})
# Answers of HTTP that mean the same, whatever MLflow makes of them.
_AWAY_STATUSES: Final = frozenset({408, 425, 429, 499})
_NO_ACCESS_STATUS: Final = 401
_TOO_LARGE: Final = 413
# A database's own words for "the connection is gone", or for a standby that is about to take over, which MLflow passes
# on as BAD_REQUEST.
_GONE: Final = ("OperationalError", "InterfaceError", "ReadOnlySqlTransaction", "connection", "Connection")
# What Python 3.10 calls a value for which SQLite has no type; there is no connection that could be gone.
_UNSUPPORTED: Final = "sqlite3.InterfaceError"
# Around what a database has said: advice, the statement, its values and a link.
_ADDED_BY_SQLALCHEMY: Final = re.compile(r"\(raised as a result of [^\n]*\n|\n\[SQL:.*", re.DOTALL)
# Names of errors of connections that were never made.
_NOT_REACHED: Final = frozenset(
    {"ConnectionRefusedError", "NewConnectionError", "NameResolutionError", "ConnectTimeoutError", "ConnectTimeout"}
)
# What a file store cannot do with a name, however often it is tried.
_OF_CALL: Final = frozenset({errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.EINVAL})

# How a file store ends what it says of its own folder, in errors that are of no kind.
_FOLDER_GONE: Final = ("' does not exist.", "' is not a directory.")


def is_remote(store: Any) -> bool:
    """Whether a store speaks to an MLflow server."""
    return hasattr(store, "get_host_creds")


def code_of(error: BaseException) -> str:
    """MLflow's name of what is wrong, such as RESOURCE_DOES_NOT_EXIST; nothing for what is no error of MLflow."""
    code = getattr(error, "error_code", "") if isinstance(error, MlflowException) else ""
    return code if isinstance(code, str) else ErrorCode.Name(code)


def status_of(error: BaseException) -> int:
    """The status of the HTTP answer that an error stands for; 0 where none is known."""
    status = getattr(error, "databand_status", None) or getattr(getattr(error, "response", None), "status_code", None)
    return int(status or 0)


def is_away(error: BaseException) -> bool:
    """Whether an error says that the store cannot answer now, and not that the call is wrong."""
    status, code = status_of(error), code_of(error)
    said = _ADDED_BY_SQLALCHEMY.sub("", str(error)).partition("\nDETAIL:")[0]  # without the user's own words
    if _UNSUPPORTED in said:
        return False
    is_lost = code == "BAD_REQUEST" and any(word in said for word in _GONE)
    if 400 <= status < 500:
        return status in _AWAY_STATUSES or is_lost
    if not isinstance(error, MlflowException):
        if isinstance(error, OSError):
            return error.errno not in _OF_CALL
        return type(error).__name__ in _GONE or (type(error) is Exception and said.endswith(_FOLDER_GONE))
    if isinstance(error, RestException) or str(error).startswith("API request to"):
        return code in _AWAY or is_lost
    cause = error.__cause__ or error.__context__
    is_gone = type(cause).__name__ in _GONE or getattr(cause, "connection_invalidated", False)
    return is_gone or is_lost or code == "TEMPORARILY_UNAVAILABLE"


class PassOverAway:
    """Ends a block, as ``contextlib.suppress`` does, at an error that says that the store is away."""

    def __enter__(self) -> None:
        """Nothing is needed."""

    def __exit__(self, _: object, error: BaseException | None, __: object) -> bool:
        return isinstance(error, Exception) and is_away(error)


def is_refused_access(error: BaseException) -> bool:
    """Whether the store does not accept the credentials."""
    return status_of(error) == _NO_ACCESS_STATUS or code_of(error) in _NO_ACCESS


def is_too_large(error: BaseException) -> bool:
    """Whether a call is larger than what stands before the store lets through."""
    return status_of(error) == _TOO_LARGE


def is_of_others(error: BaseException) -> bool:
    """Whether the answer is a proxy's, whose server is being replaced, or is about the credentials.

    A run that goes on does not end by that.
    """
    is_answer = isinstance(error, MlflowException) and not isinstance(error, RestException) and status_of(error)
    return bool(is_answer) or is_refused_access(error)


def reason_of(error: BaseException) -> str:
    """Why a call has failed, in a few words, without credentials: the network's own, if it was that."""
    own = next((each.strerror for each in _causes(error) if isinstance(each, OSError) and each.strerror), None)
    text = str(getattr(error, "message", None) or f"{type(error).__name__}: {error}")
    return own or mask_text(_ADDED_BY_SQLALCHEMY.sub("", text))


def was_reached(error: BaseException) -> bool:
    """Whether somebody is there who has not answered, or not as a store does."""
    return not any(type(each).__name__ in _NOT_REACHED for each in _causes(error))


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__ or next((a for a in cause.args if isinstance(a, Exception)), None)


class Checks:
    """The checks and errors of one store; one that ``is_file`` keeps runs in files, which has rules of its own."""

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
