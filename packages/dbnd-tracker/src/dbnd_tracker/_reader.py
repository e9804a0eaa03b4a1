"""Reading from the configured tracker: the database directly, or the read API of a server."""

from __future__ import annotations

import json
from contextlib import contextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar
from urllib.parse import quote, urlsplit

from pydantic import BaseModel, ValidationError

from dbnd import ConfigError
from dbnd.plugins import CoreSettings, mask_url
from dbnd.tracking import (
    AccessError,
    NotATrackerError,
    Session,
    TransportError,
    configured_url,
    document,
    not_a_tracker,
    page_url,
    raise_for_redirect,
)
from dbnd_tracker._errors import RemoteError
from dbnd_tracker._settings import TrackerSettings
from dbnd_tracker._views import MetricHistory, RunDetail, RunPage, TaskRunView

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from dbnd import Config
    from dbnd.tracking import Answer
    from dbnd_tracker._queries import Condition
    from dbnd_tracker._storage.database import Database

    V = TypeVar("V", bound=BaseModel)


# What is read may be long: seconds from the first byte of an answer to its last, and bytes.
_TRANSFER: Final = 60.0
_SIZE: Final = 64 << 20


class Reader(Protocol):
    """What commands ask of a tracker."""

    name: str
    """The tracker as messages name it."""

    def runs(self, conditions: Sequence[Condition], limit: int, expression: str = "") -> RunPage:
        """Runs that meet all conditions, and the expression if there is one, newest first."""

    def run(self, uid: str) -> RunDetail | None:
        """The run with this uid, or None."""

    def run_summary(self, uid: str) -> dict[str, Any] | None:
        """The run with this uid, without what is in it, as JSON, or None."""

    def task_run(self, uid: str) -> dict[str, Any] | None:
        """The task run with this uid as JSON, or None."""

    def points(self, task_run_uid: str, key: str) -> Iterator[dict[str, Any]]:
        """All points of one metric as JSON, in the order in which they came."""

    def delete(self, uid: str) -> bool:
        """Delete the run with this uid, for good; returns whether there was one."""

    def page_url(self, run: RunDetail) -> str | None:
        """Where a browser shows ``run``, or None when no server does."""

    def close(self) -> None:
        """Release connections."""


class DatabaseReader:
    """Reads a database.

    Args:
        database: An open database, or None for one whose file does not exist yet: it has no runs.
        name: The database as messages name it.
    """

    def __init__(self, database: Database | None, name: str) -> None:
        self._database = database
        self.name = name
        self.exists = database is not None

    def runs(self, conditions: Sequence[Condition], limit: int, expression: str = "") -> RunPage:
        """Runs that meet all conditions, and the expression if there is one, newest first."""
        from dbnd_tracker._queries import RunFilter, list_runs
        from dbnd_tracker._queries.grammar import parse_expression
        from dbnd_tracker._views import PageMeta

        if self._database is None:
            return RunPage(data=[], meta=PageMeta(total=0, after=None))
        with self._database.read() as session:
            wanted = RunFilter(where=parse_expression(expression), conditions=tuple(conditions))
            return list_runs(session, wanted, limit=limit)

    def run(self, uid: str) -> RunDetail | None:
        """The run with this uid, or None."""
        from dbnd_tracker._queries import run_detail

        if self._database is None:
            return None
        with self._database.read() as session:
            return run_detail(session, uid)

    def run_summary(self, uid: str) -> dict[str, Any] | None:
        """The run with this uid, without what is in it, as JSON, or None."""
        return _summary(self, uid)

    def task_run(self, uid: str) -> dict[str, Any] | None:
        """The task run with this uid as JSON, or None."""
        from dbnd_tracker._queries import task_run_detail

        if self._database is None:
            return None
        with self._database.read() as session:
            found = task_run_detail(session, uid)
            return None if found is None else found.model_dump(mode="json")

    def points(self, task_run_uid: str, key: str) -> Iterator[dict[str, Any]]:
        """All points of one metric as JSON, in the order in which they came."""
        from dbnd_tracker._queries import metric_history

        if self._database is None:
            return
        after: int | None = 0
        while after is not None:
            with self._database.read() as session:
                page = metric_history(session, task_run_uid, key, after=after)
            yield from page.model_dump(mode="json")["data"]
            after = page.after

    def delete(self, uid: str) -> bool:
        """Delete the run with this uid, for good; returns whether there was one."""
        from dbnd_tracker._storage.deletion import delete_runs

        if self._database is None:
            return False
        return self._database.write(lambda writer: delete_runs(writer.session, [uid])) > 0

    def page_url(self, run: RunDetail) -> str | None:
        """None: a database has no page."""
        del run
        return None

    def close(self) -> None:
        """Close the database."""
        if self._database is not None:
            self._database.close()


class HttpReader:
    """Asks the read API of a server.

    Args:
        url: Base URL of the server.
        settings: Credentials, time-outs and headers.
    """

    def __init__(self, url: str, settings: CoreSettings) -> None:
        parts = urlsplit(url)
        self.name = mask_url(url)
        self._root = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
        self._session = Session(url, settings, transfer=_TRANSFER, size=_SIZE)

    def runs(self, conditions: Sequence[Condition], limit: int, expression: str = "") -> RunPage:
        """Runs that meet all conditions, and the expression if there is one, newest first."""
        asked = [{"name": c.name, "op": c.op, "val": c.val} for c in conditions]
        page = self._get(RunPage, "runs", {"filter": json.dumps(asked), "expression": expression, "limit": limit})
        if page is None:
            msg = f"The tracker {self.name} has no list of runs: it is not the databand tracker of this version."
            raise RemoteError(msg)
        return page

    def run(self, uid: str) -> RunDetail | None:
        """The run with this uid, or None."""
        return self._get(RunDetail, f"runs/{quote(uid, safe='')}", {})

    def run_summary(self, uid: str) -> dict[str, Any] | None:
        """The run with this uid, without what is in it, as JSON, or None."""
        return _summary(self, uid)

    def task_run(self, uid: str) -> dict[str, Any] | None:
        """The task run with this uid as JSON, or None."""
        found = self._get(TaskRunView, f"task-runs/{quote(uid, safe='')}", {})
        return None if found is None else found.model_dump(mode="json")

    def points(self, task_run_uid: str, key: str) -> Iterator[dict[str, Any]]:
        """All points of one metric as JSON, in the order in which they came."""
        after: int | None = 0
        while after is not None:
            path = f"task-runs/{quote(task_run_uid, safe='')}/metrics/history"
            page = self._get(MetricHistory, path, {"key": key, "after": after})
            if page is None:
                return
            yield from page.model_dump(mode="json")["data"]
            after = page.after

    def delete(self, uid: str) -> bool:
        """Delete the run with this uid, for good; returns whether there was one."""
        answer = self._request("DELETE", f"runs/{quote(uid, safe='')}", {})
        if answer is not None and answer.status != HTTPStatus.NO_CONTENT:
            with self._naming_itself():
                raise not_a_tracker(answer)
        return answer is not None

    def page_url(self, run: RunDetail) -> str | None:
        """The address of the run's page."""
        return page_url(self._root, run.job_name, run.run_uid)

    def close(self) -> None:
        """Close the connection."""
        self._session.close()

    def _get(self, model: type[V], path: str, query: dict[str, Any]) -> V | None:
        answer = self._request("GET", path, query)
        if answer is None:
            return None
        try:
            return model.model_validate_json(answer.body)
        except ValidationError:
            with self._naming_itself():
                document(answer)
            msg = f"The tracker {self.name} did not answer as the databand tracker of this version does."
            raise RemoteError(msg) from None

    def _request(self, method: str, path: str, query: dict[str, Any]) -> Answer | None:
        """The answer, or None where there is nothing by this name."""
        with self._naming_itself():
            answer = self._session.request(method, path, query=query)
            raise_for_redirect(answer)
            if answer.status == HTTPStatus.NOT_FOUND:
                document(answer)  # a page says nothing of runs
                return None
        if answer.status == HTTPStatus.UNAUTHORIZED:
            msg = f"The tracker {self.name} refuses the token: set core.databand_access_token to the tracker's own."
            raise ConfigError(msg)
        if answer.status == HTTPStatus.FORBIDDEN:
            msg = f"The tracker {self.name} does not allow that: {_detail(answer)}"
            raise ConfigError(msg)
        if not answer.is_success:
            msg = f"The tracker {self.name} answered {answer.status}: {_detail(answer)}"
            raise RemoteError(msg)
        return answer

    @contextmanager
    def _naming_itself(self) -> Iterator[None]:
        """Turn what goes wrong with the session into a sentence that names the tracker."""
        try:
            yield
        except AccessError as error:
            msg = f"The tracker {self.name} refuses the credentials: {error}."
            raise ConfigError(msg) from None
        except NotATrackerError as error:
            msg = f"The tracker {self.name} (core.databand_url) cannot be read: {error}."
            raise RemoteError(msg) from None
        except TransportError as error:
            msg = f"The tracker {self.name} (core.databand_url) does not answer: {error}."
            raise RemoteError(msg) from None


def _summary(reader: Reader, uid: str) -> dict[str, Any] | None:
    from dbnd_tracker._queries import Condition

    found = reader.runs((Condition("uid", "eq", uid),), 1).data
    return found[0].model_dump(mode="json") if found else None


def _detail(answer: Answer) -> str:
    """What the tracker says is wrong."""
    try:
        detail = json.loads(answer.body)["detail"]
    except (ValueError, KeyError, TypeError, RecursionError):
        detail = answer.text
    return str(detail)[:300].strip()


def open_reader(config: Config) -> Reader:
    """The tracker that ``core.databand_url`` names; unset, the embedded tracker's file.

    Raises:
        ConfigError: The URL cannot be used.
    """
    settings = config.settings(CoreSettings)
    url = configured_url(config)
    assert url is not None, "this package serves SQLite files"
    if urlsplit(url).scheme in {"http", "https"}:
        return HttpReader(url, settings)
    from dbnd_tracker._storage.database import Database

    database = Database(url, heartbeat_timeout_s=config.settings(TrackerSettings).heartbeat_timeout_s)
    if database.path and not database.path.exists():
        return DatabaseReader(None, database.name)
    database.open()
    return DatabaseReader(database, database.name)
