"""MLflow's own store, whose writes are kept where it does not take them: how long it may take, and when it is asked."""

from __future__ import annotations

import functools
import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any, Final

from mlflow.exceptions import MlflowException
from mlflow.utils import rest_utils

from dbnd.tracking import BusyError, Outbox, monotonic

from .creation import Creation
from .errors import Checks, is_away, is_of_others, is_remote
from .ids import FIRST_ID, FIRST_MODEL_ID, Ids, UncreatedError, is_own

# Attribute of errors that a store has raised.
_ANSWER: Final = "databand_is_answer"
# Seconds that a read waits at most for a store that takes what was logged before.
_LONGEST: Final = 300.0
# Seconds from one look at what another thread creates to the next.
_LOOK: Final = 0.02
# Seconds that a request may take, for the calls of this thread; None for MLflow's own time-outs and retries.
_seconds: Final[ContextVar[float | None]] = ContextVar("_seconds", default=None)
# Whether a request is ``request``'s, and this is no Databricks.
_is_ours: Final = ContextVar("_is_ours", default=False)


class Target:
    """A store that writes are kept for. For a while after a call that has waited for it in vain, it is not asked.

    Args:
        inner: MLflow's own store.
        uri: Its tracking URI.
        outbox: Where its writes are kept, whose sender may know better whether it is away.
        ids: The store's ids of what was created while it was away.
        creation: Creates what was announced, by this process or another one.
        timeout: Seconds in which it has to answer.
        is_direct: Whether it is asked first (``keep``), and not only the journal (``deferred``).

    Attributes:
        checks: Its checks and errors.
    """

    def __init__(
        self, inner: Any, uri: str, outbox: Outbox, ids: Ids, creation: Creation, timeout: float, *, is_direct: bool
    ) -> None:
        self.inner: Final = inner
        self.uri: Final = uri
        self.outbox: Final = outbox
        self.ids: Final = ids
        self.timeout: Final = timeout
        self.is_direct: Final = is_direct
        self.checks: Final = Checks(inner)
        self._creation = creation
        self._away_until = 0.0
        self._taken = 0

    @property
    def is_away(self) -> bool:
        """Whether it is not to be asked at the moment."""
        is_silent = monotonic() < self._away_until and self.outbox.taken == self._taken
        return is_silent or self.outbox.is_away

    def has_answered(self, error: Exception) -> bool:
        """Whether an error is the store's answer to a write, and not a check of ours."""
        return hasattr(error, _ANSWER)

    @contextmanager
    def asking(self, *, is_final: bool = False, is_only: bool = False) -> Iterator[None]:
        """Make a call, within the time-out.

        Args:
            is_final: Whether it is the write itself, whose refusal stands. What refuses a look before it may be
                something else.
            is_only: Whether nobody else can answer. Then it has MLflow's own time-outs and retries, as ``bounded``.
        """
        started = monotonic()
        try:
            with self.bounded() if is_only else within(self.timeout):
                yield
        except Exception as error:
            if is_away(error) and monotonic() - started > self.timeout / 2:
                self._away_until, self._taken = monotonic() + 12 * self.timeout, self.outbox.taken
            if is_final:
                setattr(error, _ANSWER, True)
            raise
        self._away_until = 0.0

    def read(self, own_id: str, get: Callable[[str], Any], see: Callable[[Any], Any], *, is_known: bool) -> Any:
        """What the store answers of a run or model; None where it cannot say now, and this process can.

        Args:
            own_id: An id, which may be one of ours.
            get: Asks the store, by the id that it knows.
            see: Called with an answer in which is all that was logged here.
            is_known: Whether there is another answer.
        """
        if not (is_known and self.is_away) and self.has_delivered(once=is_known):
            try:
                with self.asking(is_only=not (is_known or is_own(own_id))):
                    found = hide(get(self._creation.real(self.inner, own_id)))
            except (UncreatedError, BusyError):  # refused, or another process is about to create it
                pass
            except Exception as error:
                if not (is_known and (is_away(error) or is_of_others(error))):
                    raise
            else:
                see(found)
                return found
        if is_known:
            return None
        with within(self.timeout):
            return hide(get(self.ids.translated(own_id)))

    def create(self, own_ids: Iterable[str]) -> None:
        """Create what these ids of ours stand for, except what the store refuses and what nobody here knows."""
        end = monotonic() + self.timeout
        for own_id in own_ids:
            while self._is_busy_with(own_id) and monotonic() < end:
                time.sleep(_LOOK)

    def _is_busy_with(self, own_id: str) -> bool:
        """Create one of them; whether the sender or another process is just creating something, and it is not done."""
        try:
            with self.bounded():
                self._creation.real(self.inner, own_id)
        except BusyError:
            return True
        except UncreatedError:
            pass
        return False

    def bounded(self) -> AbstractContextManager[None]:
        """Within which a call of MLflow's own takes the time-out at most if the store is away."""
        return within(self.timeout) if self.is_away else nullcontext()

    def keep(self, call: str, body: object) -> bool:
        """Keep a write until the store takes it; whether that could be done."""
        return self.outbox.keep(call, body, is_last_way=False) is not None

    def announce(self, call: str, body: dict[str, Any]) -> bool:
        """Keep how to create something: whoever needs it first does so. Whether that could be done."""
        try:
            self.ids.announce(body["own_id"], call, body)
        except OSError:
            return False
        return self.keep(call, body)

    def has_delivered(self, *, once: bool = False) -> bool:
        """Deliver what waits, each time at most the time-out for the next of it; whether nothing does any more.

        With ``once`` nothing is waited for after an attempt that fails: there is another answer.
        """
        return not self.outbox.unsent or self.outbox.flush(self.timeout, longest=_LONGEST, once=once)


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


def request(creds: Any, endpoint: str, method: str, **arguments: Any) -> Any:
    """MLflow's own request to its server, made once; returns the answer, whatever its status.

    MLflow has it look for modules of Databricks and Spark, which elsewhere fails anew each time. An import takes
    Python's lock and then that of MLflow's import hooks; a thread that runs such a hook, as ``autolog`` does, holds the
    second and waits for the first, so that it and the sender would wait for ever.
    """
    _guard_headers()
    token = _is_ours.set("dbruntime" not in sys.modules)
    try:
        return rest_utils.http_request(creds, endpoint, method, max_retries=0, raise_on_status=False, **arguments)
    finally:
        _is_ours.reset(token)


@functools.cache
def _guard_headers() -> None:
    from mlflow.tracking.request_header import databricks_request_header_provider as databricks
    from mlflow.tracking.request_header import registry  # noqa: F401  so that it is not imported within a request

    provider = databricks.DatabricksRequestHeaderProvider
    in_context = provider.in_context

    @functools.wraps(in_context)
    def is_wanted(self: Any) -> bool:
        return not _is_ours.get() and in_context(self)

    provider.in_context = is_wanted  # type: ignore[method-assign]


def made_patient(store: Any) -> Any:
    """``store``, whose requests keep to what ``within`` says."""
    if is_remote(store):
        _guard_headers()  # here, so that the sender imports nothing
        store._call_endpoint = _within_time(store, store._call_endpoint)
    return store


def _within_time(store: Any, call: Any) -> Any:
    from mlflow.utils.proto_json_utils import parse_dict

    # Of the class in tracking stores of MLflow 3, else of the module.
    bases = type(store).__mro__
    tables = (vars(place).get("_METHOD_TO_INFO") for base in bases for place in (base, sys.modules[base.__module__]))
    table: dict[Any, Any] = next(filter(None, tables), {})

    @functools.wraps(call)
    def call_endpoint(api: Any, json_body: str | None = None, *args: Any, **kwargs: Any) -> Any:
        seconds = _seconds.get()
        # A registry may have a second endpoint of a method, which servers have in which the first one was new.
        if seconds is None or args or kwargs.keys() - {"endpoint", "call_all_endpoints"} or api not in table:
            return call(api, json_body, *args, **kwargs)
        endpoint, method = table[api]
        endpoint = kwargs.get("endpoint") or endpoint
        body = {"params" if method == "GET" else "json": json.loads(json_body or "{}")}
        response = request(store.get_host_creds(), endpoint, method, timeout=seconds, **body)
        message = api.Response()
        try:
            parse_dict(json.loads(rest_utils.verify_rest_response(response, endpoint).text), message)
        except MlflowException as error:
            error.databand_status = response.status_code  # type: ignore[attr-defined]
            raise
        return message

    return call_endpoint


def hide(found: Any) -> Any:
    """What a store has answered, without the tag that only makes creating a run or model repeatable."""
    for each in found if isinstance(found, list | tuple) else (found,):
        if isinstance(each, list):  # of runs, beside the token of the next page
            hide(each)
        tags = getattr(getattr(each, "data", each), "_tags", None)
        if isinstance(tags, dict):
            tags.pop(FIRST_ID, None)
            tags.pop(FIRST_MODEL_ID, None)
    return found
