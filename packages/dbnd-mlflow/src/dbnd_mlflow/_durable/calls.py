"""How long a call of an MLflow store may take, and what tells that the store is away."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final

from mlflow.exceptions import MlflowException, RestException
from mlflow.protos import databricks_pb2
from mlflow.utils.rest_utils import http_request, verify_rest_response

# What MLflow itself tries again, and what a server answers whose database is away.
_AWAY: Final = frozenset(
    {"INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE", "DEADLINE_EXCEEDED", "REQUEST_LIMIT_EXCEEDED", "RESOURCE_EXHAUSTED"}
)
_NO_ACCESS: Final = frozenset({"UNAUTHENTICATED", "PERMISSION_DENIED", "CUSTOMER_UNAUTHORIZED"})
# A database's own words for "the connection is gone", which MLflow passes on as BAD_REQUEST.
_GONE: Final = ("OperationalError", "InterfaceError", "connection", "Connection")
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
        if seconds is None or args or kwargs or api not in table:
            return call(api, json_body, *args, **kwargs)
        endpoint, method = table[api]
        body = {"params" if method == "GET" else "json": json.loads(json_body or "{}")}
        response = http_request(
            store.get_host_creds(), endpoint, method, max_retries=0, timeout=seconds, raise_on_status=False, **body
        )
        message = api.Response()
        parse_dict(json.loads(verify_rest_response(response, endpoint).text), message)
        return message

    return call_endpoint


def code_of(error: BaseException) -> str:
    """MLflow's name of what is wrong, such as RESOURCE_DOES_NOT_EXIST; nothing for what is no error of MLflow."""
    code = getattr(error, "error_code", "")
    return code if isinstance(code, str) else databricks_pb2.ErrorCode.Name(code)


def is_away(error: BaseException) -> bool:
    """Whether an error says that the store cannot answer now, and not that the call is wrong."""
    if not isinstance(error, MlflowException):
        return isinstance(error, OSError) or type(error).__name__ in _GONE
    if isinstance(error, RestException) or str(error).startswith("API request to"):
        code = code_of(error)
        return code in _AWAY or (code == "BAD_REQUEST" and any(word in str(error) for word in _GONE))
    cause = error.__cause__ or error.__context__
    is_gone = type(cause).__name__ in _GONE or getattr(cause, "connection_invalidated", False)
    return is_gone or code_of(error) == "TEMPORARILY_UNAVAILABLE"


def is_refused_access(error: BaseException) -> bool:
    """Whether the store does not accept the credentials."""
    return code_of(error) in _NO_ACCESS


def reason_of(error: BaseException) -> str:
    """Why a call has failed, in a few words: the network's own, if it was that."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
        cause = cause.__cause__ or cause.__context__ or next((a for a in cause.args if isinstance(a, Exception)), None)
    return str(getattr(error, "message", None) or f"{type(error).__name__}: {error}")
