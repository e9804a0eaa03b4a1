"""How long a call of an MLflow store may take, and what tells that the store is away."""

from __future__ import annotations

import errno
import functools
import json
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final

from mlflow.exceptions import MlflowException, RestException
from mlflow.protos import databricks_pb2
from mlflow.utils import rest_utils

from dbnd.plugins import mask_text
from dbnd.tracking import Outbox, monotonic

from .ids import FIRST_ID, FIRST_MODEL_ID

# What MLflow itself tries again, and what a server answers whose database is away.
_AWAY: Final = frozenset(
    {"INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE", "DEADLINE_EXCEEDED", "REQUEST_LIMIT_EXCEEDED", "RESOURCE_EXHAUSTED"}
)
_NO_ACCESS: Final = frozenset({"UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED"})
# Answers of HTTP that mean the same, whatever MLflow makes of them.
_AWAY_STATUSES: Final = frozenset({408, 425, 429, 499})
_NO_ACCESS_STATUS: Final = 401
_TOO_LARGE: Final = 413
# A database's own words for "the connection is gone", which MLflow passes on as BAD_REQUEST.
_GONE: Final = ("OperationalError", "InterfaceError", "connection", "Connection")
# Names of errors of connections that were never made.
_NOT_REACHED: Final = frozenset(
    {"ConnectionRefusedError", "NewConnectionError", "NameResolutionError", "ConnectTimeoutError", "ConnectTimeout"}
)
STAGES: Final = frozenset({"delete_run", "restore_run", "_hard_delete_run"})
"""Methods that delete or restore a run."""
STAGES_OF_ALL: Final = frozenset({"delete_experiment", "restore_experiment", "_hard_delete_experiment"})
"""Methods that delete or restore all runs of an experiment."""
# Words in the names of methods that read or change what runs have logged, and of others.
_OF_RUNS: Final = ("run", "metric", "param", "tag", "model", "input", "output", "history", "dataset")
_APART: Final = ("experiment", "trace", "registered", "version", "webhook", "scorer", "async")
# What a file store cannot do with a name, however often it is tried.
_OF_CALL: Final = frozenset({errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.EINVAL})
# Attribute of errors that a store has raised.
_ANSWER: Final = "databand_is_answer"
# Seconds that a read waits at most for a store that takes what was logged before.
_LONGEST: Final = 300.0
# Seconds that a request may take, for the calls of this thread; None for MLflow's own time-outs and retries.
_seconds: Final[ContextVar[float | None]] = ContextVar("_seconds", default=None)


def is_remote(store: Any) -> bool:
    """Whether a store speaks to an MLflow server."""
    return hasattr(store, "get_host_creds")


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Let requests of this thread to an MLflow server take so long, and be tried once.

    MLflow reads its time-outs and its number of retries from the environment, which all threads share. Calls to a
    database have the time-outs of its driver.
    """
    token = _seconds.set(seconds)
    try:
        yield
    finally:
        _seconds.reset(token)


def made_patient(store: Any) -> Any:
    """``store``, whose requests keep to what ``within`` says."""
    if is_remote(store):
        store._call_endpoint = _within_time(store, store._call_endpoint)
    return store


def _within_time(store: Any, call: Any) -> Any:
    from mlflow.store.tracking import rest_store
    from mlflow.utils.proto_json_utils import parse_dict

    # Of the class in MLflow 3, of the module before.
    table = getattr(type(store), "_METHOD_TO_INFO", None) or vars(rest_store)["_METHOD_TO_INFO"]

    @functools.wraps(call)
    def call_endpoint(api: Any, json_body: str | None = None, *args: Any, **kwargs: Any) -> Any:
        seconds = _seconds.get()
        if seconds is None or args or kwargs.keys() - {"endpoint"} or api not in table:
            return call(api, json_body, *args, **kwargs)
        endpoint, method = table[api]
        endpoint = kwargs.get("endpoint") or endpoint
        body = {"params" if method == "GET" else "json": json.loads(json_body or "{}")}
        response = rest_utils.http_request(
            store.get_host_creds(), endpoint, method, max_retries=0, timeout=seconds, raise_on_status=False, **body
        )
        message = api.Response()
        try:
            parse_dict(json.loads(rest_utils.verify_rest_response(response, endpoint).text), message)
        except MlflowException as error:
            error.databand_status = response.status_code  # type: ignore[attr-defined]
            raise
        return message

    return call_endpoint


class Reach:
    """Whether a store is worth asking: for a while after a call that has waited for it in vain, it is not.

    Args:
        outbox: Where its writes are kept, whose sender may know better.
        timeout: Seconds in which it has to answer.
    """

    def __init__(self, outbox: Outbox, timeout: float) -> None:
        self.timeout: Final = timeout
        self._outbox = outbox
        self._away_until = 0.0
        self._taken = 0

    @property
    def is_away(self) -> bool:
        """Whether it is not to be asked at the moment."""
        is_silent = monotonic() < self._away_until and self._outbox.taken == self._taken
        return is_silent or self._outbox.is_away

    def has_answered(self, error: Exception) -> bool:
        """Whether an error is the store's answer to a write, and not a check of ours."""
        return hasattr(error, _ANSWER)

    @contextmanager
    def asking(self, *, is_final: bool = False) -> Iterator[None]:
        """Make a call, within the time-out.

        Args:
            is_final: Whether it is the write itself, whose refusal stands. What refuses a look before it may be
                something else.
        """
        started = monotonic()
        try:
            with within(self.timeout):
                yield
        except Exception as error:
            if is_away(error) and monotonic() - started > self.timeout / 2:
                self._away_until, self._taken = monotonic() + 12 * self.timeout, self._outbox.taken
            if is_final:
                setattr(error, _ANSWER, True)
            raise
        self._away_until = 0.0

    def has_delivered(self, *, once: bool = False) -> bool:
        """Deliver what waits, each time at most the time-out for the next of it; whether nothing does any more.

        With ``once`` nothing is waited for after an attempt that fails: there is another answer.
        """
        return not self._outbox.unsent or self._outbox.flush(self.timeout, longest=_LONGEST, once=once)


def code_of(error: BaseException) -> str:
    """MLflow's name of what is wrong, such as RESOURCE_DOES_NOT_EXIST; nothing for what is no error of MLflow."""
    code = getattr(error, "error_code", "")
    return code if isinstance(code, str) else databricks_pb2.ErrorCode.Name(code)


def _status_of(error: BaseException) -> int:
    """The status of the HTTP answer that an error stands for; 0 where none is known."""
    status = getattr(error, "databand_status", None) or getattr(getattr(error, "response", None), "status_code", None)
    return int(status or 0)


def is_away(error: BaseException) -> bool:
    """Whether an error says that the store cannot answer now, and not that the call is wrong."""
    status = _status_of(error)
    if 400 <= status < 500:
        is_gone = code_of(error) == "BAD_REQUEST" and any(word in str(error) for word in _GONE)
        return status in _AWAY_STATUSES or is_gone
    if not isinstance(error, MlflowException):
        is_of_call = isinstance(error, OSError) and error.errno in _OF_CALL
        return (isinstance(error, OSError) and not is_of_call) or type(error).__name__ in _GONE
    if isinstance(error, RestException) or str(error).startswith("API request to"):
        code = code_of(error)
        return code in _AWAY or (code == "BAD_REQUEST" and any(word in str(error) for word in _GONE))
    cause = error.__cause__ or error.__context__
    is_gone = type(cause).__name__ in _GONE or getattr(cause, "connection_invalidated", False)
    return is_gone or code_of(error) == "TEMPORARILY_UNAVAILABLE"


def is_refused_access(error: BaseException) -> bool:
    """Whether the store does not accept the credentials."""
    return _status_of(error) == _NO_ACCESS_STATUS or code_of(error) in _NO_ACCESS


def is_too_large(error: BaseException) -> bool:
    """Whether a call is larger than what stands before the store lets through."""
    return _status_of(error) == _TOO_LARGE


def is_of_others(error: BaseException) -> bool:
    """Whether the answer is a proxy's, whose server is being replaced, or is about the credentials.

    A run that goes on does not end by that.
    """
    is_answer = isinstance(error, MlflowException) and not isinstance(error, RestException) and _status_of(error)
    return bool(is_answer) or is_refused_access(error)


def reason_of(error: BaseException) -> str:
    """Why a call has failed, in a few words, without credentials: the network's own, if it was that."""
    own = next((each.strerror for each in _causes(error) if isinstance(each, OSError) and each.strerror), None)
    return own or mask_text(str(getattr(error, "message", None) or f"{type(error).__name__}: {error}"))


def was_reached(error: BaseException) -> bool:
    """Whether somebody is there who has not answered, or not as a store does."""
    return not any(type(each).__name__ in _NOT_REACHED for each in _causes(error))


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__ or next((a for a in cause.args if isinstance(a, Exception)), None)


def sees_runs(name: str) -> bool:
    """Whether a method of a store, also one that MLflow has got since, may read or change what runs have logged."""
    return any(word in name for word in _OF_RUNS) and not any(word in name for word in _APART)


def hide(found: Any) -> Any:
    """What a store has answered, without the tag that only makes creating a run or model repeatable."""
    for each in found if isinstance(found, list) else (found,):
        tags = getattr(getattr(each, "data", each), "_tags", None)
        if isinstance(tags, dict):
            tags.pop(FIRST_ID, None)
            tags.pop(FIRST_MODEL_ID, None)
    return found
