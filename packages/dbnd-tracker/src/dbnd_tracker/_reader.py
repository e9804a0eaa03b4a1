"""Reading from the configured tracker: the database directly, or the read API of a server."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Final, TypeVar
from urllib.parse import quote, urlencode, urlsplit

from pydantic import BaseModel, ValidationError

from dbnd import Config, ConfigError
from dbnd.plugins import CoreSettings, mask_url
from dbnd.tracking import (
    AccessError,
    Answer,
    NotATrackerError,
    Session,
    TransportError,
    configured_url,
    page_url,
)
from dbnd_tracker._errors import RemoteError
from dbnd_tracker._queries.details import run_detail, task_run_detail, task_run_log
from dbnd_tracker._queries.language.grammar import condition, joined, parse_expression, parse_query
from dbnd_tracker._queries.points.arrays import SeriesCache
from dbnd_tracker._queries.points.metrics import metric_history
from dbnd_tracker._queries.points.series import sampled_history
from dbnd_tracker._queries.table.comparison import compare_runs
from dbnd_tracker._queries.table.run_table import STARTED, list_runs, parse_column, parse_order
from dbnd_tracker._settings import TrackerSettings
from dbnd_tracker._storage.database import Database
from dbnd_tracker._storage.upkeep.deletion import delete_wholly
from dbnd_tracker._view import MetricPoint
from dbnd_tracker._views import (
    ListMeta,
    MetricHistory,
    RunComparison,
    RunDetail,
    RunList,
    RunSummary,
    TaskRunLog,
    TaskRunView,
)

V = TypeVar("V", bound=BaseModel)

# What is read may be long: seconds from the first byte of an answer to its last, and bytes.
_TRANSFER: Final = 60.0
_SIZE: Final = 64 << 20


class RunReader(ABC):
    """What commands ask of a tracker, by its name in messages; a ``dbnd.tracking.Reader`` for other packages."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._cache = SeriesCache()

    @abstractmethod
    def _ask(self, model: type[V], path: str, query: dict[str, Any], question: Callable[[Any], V | None]) -> V | None:
        """What the read API answers to ``path``, which is what ``question`` finds in a session of the database."""

    @abstractmethod
    def delete(self, uid: str) -> bool:
        """Delete the run with this uid, for good; returns whether there was one."""

    @abstractmethod
    def page_url(self, run: RunSummary) -> str | None:
        """Where a browser shows ``run``, or None when no server does."""

    @abstractmethod
    def close(self) -> None:
        """Release connections."""

    def runs(
        self,
        expression: str,
        limit: int,
        *,
        search: str = "",
        sort: str = f"-{STARTED}",
        columns: Sequence[str] = (),
    ) -> RunList:
        """Rows that meet the condition and have the words of ``search``, with their values of ``columns``.

        They are runs; asked for by what was logged, or by a name or id of MLflow's, they are single task runs.
        """
        asked, (order, descending) = parse_query(search), parse_order(sort)
        where = parse_expression(joined([text for text in (expression, *asked.conditions) if text]))
        question = partial(
            list_runs,
            search=asked.words,
            order=order,
            descending=descending,
            limit=limit,
            columns=[*map(parse_column, columns)],
        )
        query = {"expression": expression, "limit": limit, "q": search, "sort": sort, "columns": columns}
        found = self._ask(RunList, "runs", query, lambda session: question(session, where))
        return found or RunList(data=[], meta=ListMeta(total=0, after=None))

    def run(self, uid: str) -> RunDetail | None:
        return self._ask(RunDetail, f"runs/{quote(uid, safe='')}", {}, partial(run_detail, run_uid=uid))

    def run_summary(self, uid: str) -> dict[str, Any] | None:
        """The run with this uid, without what is in it, as JSON, or None."""
        found = self.runs(condition("uid", "=", uid), 1).data
        return found[0].model_dump(mode="json") if found else None

    def compare(self, uids: Sequence[str]) -> RunComparison:
        found = self._ask(RunComparison, "runs/compare", {"run_uid": uids}, partial(compare_runs, uids=uids))
        return found or RunComparison(runs=[], data=[])

    def task_run(self, uid: str) -> dict[str, Any] | None:
        """The task run with this uid as JSON, or None."""
        question = partial(task_run_detail, task_run_uid=uid)
        found = self._ask(TaskRunView, f"task-runs/{quote(uid, safe='')}", {}, question)
        return None if found is None else found.model_dump(mode="json")

    def log(self, task_run_uid: str) -> str | None:
        """The log of a task run, or None."""
        question = partial(task_run_log, task_run_uid=task_run_uid)
        found = self._ask(TaskRunLog, f"task-runs/{quote(task_run_uid, safe='')}/log", {}, question)
        return found.log_body if found else None

    def sample(self, task_run_uid: str, key: str, samples: int) -> list[MetricPoint]:
        """At most ``samples`` points of one metric, which show the shape of all."""
        path = f"task-runs/{quote(task_run_uid, safe='')}/metrics/history"
        question = partial(sampled_history, task_run_uid=task_run_uid, key=key, samples=samples, cache=self._cache)
        found = self._ask(MetricHistory, path, {"key": key, "samples": samples}, question)
        return found.data if found else []

    def points(self, task_run_uid: str, key: str) -> Iterator[dict[str, Any]]:
        """All points of one metric as JSON, in the order in which they came."""
        path = f"task-runs/{quote(task_run_uid, safe='')}/metrics/history"
        after: int | None = 0
        while after is not None:
            question = partial(metric_history, task_run_uid=task_run_uid, key=key, after=after)
            page = self._ask(MetricHistory, path, {"key": key, "after": after}, question)
            yield from page.model_dump(mode="json")["data"] if page else ()
            after = page.after if page else None


class DatabaseReader(RunReader):
    """Reads an open database; one whose file does not exist yet is None, and has no runs."""

    def __init__(self, database: Database | None, name: str) -> None:
        super().__init__(name)
        self._database = database

    def _ask(self, model: type[V], path: str, query: dict[str, Any], question: Callable[[Any], V | None]) -> V | None:
        del model, path, query
        if self._database is None:
            return None
        with self._database.read() as session:
            return question(session)

    def delete(self, uid: str) -> bool:
        if self._database is None:
            return False
        return delete_wholly(self._database, [uid]) > 0

    def page_url(self, run: RunSummary) -> str | None:
        """None: a database has no page."""
        del run
        return None

    def close(self) -> None:
        if self._database is not None:
            self._database.close()


class HttpReader(RunReader):
    """Asks the read API of the server at a base URL."""

    def __init__(self, url: str, settings: CoreSettings) -> None:
        super().__init__(mask_url(url))
        parts = urlsplit(url)
        self._root = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
        self._session = Session(url, settings, transfer=_TRANSFER, size=_SIZE)

    def _ask(self, model: type[V], path: str, query: dict[str, Any], question: Callable[[Any], V | None]) -> V | None:
        del question
        answer = self._request("GET", f"{path}?{urlencode(query, doseq=True)}")
        if answer is None and "/" not in path:
            text = f"The tracker {self.name} has no list of {path}: it is not the databand tracker of this version."
            raise RemoteError(text)
        if answer is None:
            return None
        try:
            return model.model_validate_json(answer.body)
        except ValidationError:
            with self._naming_itself():
                answer.document()
            text = f"The tracker {self.name} did not answer as the databand tracker of this version does."
            raise RemoteError(text) from None

    def delete(self, uid: str) -> bool:
        answer = self._request("DELETE", f"runs/{quote(uid, safe='')}")
        if answer is not None and answer.status != 204:
            with self._naming_itself():
                raise answer.not_a_tracker()
        return answer is not None

    def page_url(self, run: RunSummary) -> str | None:
        return page_url(self._root, run.job_name, *run.place)

    def close(self) -> None:
        self._session.close()

    def _request(self, method: str, path: str) -> Answer | None:
        """The answer, or None where there is nothing by this name."""
        with self._naming_itself():
            answer = self._session.request(method, path)
            if answer.status == 404:
                answer.document()  # a page says nothing of runs
                return None
        if answer.status == 401:
            msg = f"The tracker {self.name} refuses the token: set core.databand_access_token to the tracker's own."
            raise ConfigError(msg)
        if answer.status == 403:
            raise ConfigError(f"The tracker {self.name} does not allow that: {_detail(answer)}")
        if not answer.is_success:
            raise RemoteError(f"The tracker {self.name} answered {answer.status}: {_detail(answer)}")
        return answer

    @contextmanager
    def _naming_itself(self) -> Iterator[None]:
        """Turn what goes wrong with the session into a sentence that names the tracker."""
        try:
            yield
        except AccessError as error:
            raise ConfigError(f"The tracker {self.name} refuses the credentials: {error}.") from None
        except NotATrackerError as error:
            raise RemoteError(f"The tracker {self.name} (core.databand_url) cannot be read: {error}.") from None
        except TransportError as error:
            raise RemoteError(f"The tracker {self.name} (core.databand_url) does not answer: {error}.") from None


def _detail(answer: Answer) -> str:
    try:
        detail = json.loads(answer.body)["detail"]
    except (ValueError, KeyError, TypeError, RecursionError):
        detail = answer.text
    return str(detail)[:300].strip()


def open_run_reader(config: Config) -> RunReader:
    """The tracker that ``core.databand_url`` names, or the embedded one; ConfigError where the URL cannot be used."""
    settings = config.settings(CoreSettings)
    url = configured_url(config)
    assert url is not None, "this package serves SQLite files"
    if urlsplit(url).scheme in {"http", "https"}:
        return HttpReader(url, settings)
    database = Database(url, config.settings(TrackerSettings))
    if database.path and not database.path.exists():
        return DatabaseReader(None, f"{database.name}, which does not exist yet")
    database.open()
    return DatabaseReader(database, database.name)
