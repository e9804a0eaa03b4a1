"""The reporter: MLflow's entities become events of the tracking client."""

from __future__ import annotations

import re
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from mlflow.entities import ViewType
from mlflow.exceptions import MlflowException

from dbnd import TrackingAPIClient
from dbnd.plugins import console, mask_text, mask_url, mask_value
from dbnd.tracking import (
    LARGEST_STEP,
    MAX_TEXT,
    ErrorInfo,
    Group,
    Run,
    RunState,
    TaskRunState,
    deleted_point,
    group,
    micros,
    monotonic,
    point,
    text_point,
    utc_now,
)

from .artifacts import MAX_ARTIFACTS, artifacts_of, may_have_unlisted
from .datasets import dataset_operation
from .derived import FACTS, RUN_NAME, moment
from .runs import RunMap
from .tags import LINK_TAGS, MADE_FOR
from .tracked import TrackedRun

METRIC: Final = "mlflow"
PARAM: Final = "mlflow.param"
TAG: Final = "mlflow.tag"
MODEL: Final = "model:"
"""What the names of artifacts that are models begin with."""
LIFECYCLE: Final = "dbnd.lifecycle_stage"
"""Tag of a task run: whether MLflow's run is active or deleted."""
IMPORTED: Final = "dbnd.imported"
"""Tag of a task run: what its MLflow run was like when ``dbnd mlflow import`` last brought it over."""
VERIFIED: Final = "dbnd.mlflow.verified"
"""Tag of a task run: when its MLflow run was compared with it, and how many differences there were: ``TIME N``."""
OWN_TAGS: Final = LINK_TAGS | {LIFECYCLE, IMPORTED, VERIFIED}
"""Names that are ours: no other tag of an MLflow run is left out, whatever it begins with."""
STATES: Final = {
    "FINISHED": (TaskRunState.SUCCESS, RunState.SUCCESS),
    "FAILED": (TaskRunState.FAILED, RunState.FAILED),
    "KILLED": (TaskRunState.CANCELLED, RunState.CANCELLED),
}
# Runs that are read at once.
_PAGE: Final = 1_000
# The artifact root of a run, which its server makes of the ids of experiment and run, and a folder below it.
_RUN_FOLDER: Final = re.compile(r"(?P<root>.*/(?P<run_id>[0-9a-f]{32})/artifacts)(?:/(?P<folder>.*))?$", re.DOTALL)

_maps: Final[dict[TrackingAPIClient, RunMap]] = {}
_making = threading.RLock()


@dataclass(frozen=True, slots=True)
class StoreReader:
    """Reads runs from the user's own store (see ``_runs.Read``).

    Args:
        is_near: Whether that takes no request to a server.
        run: Reads a run by its id.
        tag: Writes a tag of a run: its id, name and value. Only our own tags are written.
        store: The store itself.
    """

    is_near: bool
    run: Callable[[str], Any]
    tag: Callable[[str, str, str], None] | None = None
    store: Any = None

    def experiment_name(self, experiment_id: str) -> str | None:
        """Name of an experiment, or None where that would take a request, or there is none."""
        try:
            return str(self.store.get_experiment(experiment_id).name) if self.is_near else None
        except MlflowException:
            return None

    def history(self, run_id: str, key: str) -> list[Any]:
        """All points of a metric; none of one that the store does not know."""
        try:
            return list(self.store.get_metric_history(run_id, key))
        except (MlflowException, OSError):
            return []

    def runs_of(self, experiment_id: str, view: int) -> Iterator[Any]:
        """The runs of an experiment, by MLflow's ``ViewType``; for a store that is near."""
        token = None
        while True:
            page = self.store.search_runs([experiment_id], "", view, max_results=_PAGE, page_token=token)
            yield from page
            token = page.token
            if not token:
                return


class Reporter:
    """Reports what one MLflow store is told, to one tracker. Any number of threads may call.

    Args:
        client: The tracker's client.
        inner_uri: Tracking URI of the user's own store, for links to its runs.
        read: Reads a run from that store by its id.
    """

    def __init__(self, client: TrackingAPIClient, inner_uri: str, read: StoreReader) -> None:
        self._client = client
        self._read = read
        self._inner_uri = inner_uri
        with _making:
            self._map = _maps.setdefault(client, RunMap(client))
        self._warn = console.once_a_minute()

    def link_tags(self, tags: dict[str, str]) -> dict[str, str]:
        """Tags that name the task run of a run about to be created with ``tags``; none outside of a task."""
        return self._map.plan(tags)

    def not_created(self, links: dict[str, str]) -> None:
        """A run could not be created: the task run that it was to be is free again.

        Args:
            links: What ``link_tags`` has returned.
        """
        if links:
            self._map.give_back(links)

    def run_created(self, run: Any, links: Mapping[str, str]) -> None:
        """A run was created: announce its task run, with the tags that it was created with.

        Args:
            run: The run.
            links: What ``link_tags`` has returned for it.
        """
        tracked = self._map.created(run, links, self._read)
        task_run = tracked.task_run
        if tracked.is_own:
            self._set_project(task_run.run, run.info.experiment_id)
        else:
            self._map.hearts.expect(tracked)
            self._announce(tracked)
            self._client.update_task_run_attempts(task_run, TaskRunState.RUNNING, timestamp=task_run.start_time)
            self._map.hearts.begin(tracked)
        self._client.save_external_links(task_run, {"mlflow": page_of(self._inner_uri, run.info)})
        started = micros(task_run.start_time)
        tags = (
            text_point(key, mask_value(key, value), started)
            for key, value in run.data.tags.items()
            if key not in OWN_TAGS
        )
        self._client.log_metrics([group(task_run.attempt_uid, TAG, tags)])
        if links and self._read.tag is not None:
            # Its id is known only now. Outside of tasks no request is made: what is counted stays as it is.
            self._read.tag(run.info.run_id, MADE_FOR, run.info.run_id)

    def find(self, run_id: str) -> TrackedRun:
        """The task run of an MLflow run by its id (see ``RunMap.find``)."""
        tracked = self._map.find(run_id, self._read)
        tracked.heard_at = monotonic()
        return tracked

    def run_seen(self, run: Any) -> None:
        """A run was read: remember which task run it belongs to."""
        self._map.seen(run, self._read)

    def run_updated(self, info: Any, end_time: int | None, name: str | None, *, changed: bool) -> None:
        """A run was given a name, a status, or both: a final status ends its task run, another one reopens it.

        Args:
            info: MLflow's RunInfo, as the store has returned it.
            end_time: When it ended, in ms since the epoch, or None.
            name: Its new name, or None.
            changed: Whether a status was given.
        """
        tracked = self.find(info.run_id)
        tracked.artifact_uri = info.artifact_uri or tracked.artifact_uri
        if tracked.info is not None:
            tracked.info = info
        if name:
            self._rename(tracked, name)
        if not changed:
            return
        if info.status in STATES:
            self._end(info.run_id, tracked, info.status, end_time)
            tracked.has_ended = True
            self._map.ended(info.run_id)
            return
        self._reopen(tracked)
        tracked.has_ended = False
        self._map.reopened(info.run_id)

    def _reopen(self, tracked: TrackedRun) -> None:
        if tracked.is_own:  # the task's own state is what dbnd says of it
            return
        self._client.update_task_run_attempts(tracked.task_run, TaskRunState.RUNNING)
        if tracked.is_dbnd_run and (tracked.has_ended or tracked.is_guess):
            self._client.set_run_state(tracked.task_run.run, RunState.RUNNING)
        self._map.hearts.begin(tracked)

    def _rename(self, tracked: TrackedRun, name: str) -> None:
        """Report a new name: MLflow keeps it as a tag as well."""
        now = time.time_ns() // 1000
        self._client.log_metrics([group(tracked.task_run.attempt_uid, TAG, [text_point(RUN_NAME, name, now)])])
        self._changed(tracked, {RUN_NAME: name})

    def _changed(self, tracked: TrackedRun, tags: Mapping[str, str | None]) -> None:
        """Report what tags that are facts say of a run, or no longer say: it is announced again."""
        changes = {key: tags[key] for key in FACTS & tags.keys()}
        was_run = tracked.is_dbnd_run
        if not changes or not self._map.change(tracked, changes, self._read):
            return
        if not tracked.is_dbnd_run or was_run:
            self._announce(tracked)
            return
        # What it was nested in has told its state so far, and that it goes on.
        if tracked.has_ended:
            self._announce(tracked)
            info = tracked.info
            self._client.set_run_state(tracked.task_run.run, STATES[info.status][1], timestamp=moment(info.end_time))
        else:
            self._map.hearts.expect(tracked)
            self._announce(tracked)
            self._map.hearts.begin(tracked)

    def _announce(self, tracked: TrackedRun) -> None:
        if tracked.is_dbnd_run:
            self._client.init_run(tracked.task_run.run, tracked.task_run, detached=tracked.is_detached)
        else:
            self._client.add_task_runs(tracked.task_run.run, [tracked.task_run])

    def logged(
        self, run_id: str, *, metrics: Sequence[Any] = (), params: Sequence[Any] = (), tags: Sequence[Any] = ()
    ) -> None:
        """Metrics, params and tags were logged, in one call: they are one event, too."""
        tracked = self.find(run_id)
        attempt = tracked.task_run.attempt_uid
        if tags:
            self._keep_links(run_id, tracked, tags)
            tags = [tag for tag in tags if tag.key not in OWN_TAGS]
        groups: list[Group] = []
        if metrics:
            # MLflow takes any numbers as times and steps, NumPy's and fractions: the tracker keeps their whole part.
            points = (
                (m.key, value, int(m.timestamp * 1000), step, None)
                if type(value := m.value) is float
                and type(step := m.step) is int
                and -LARGEST_STEP <= step <= LARGEST_STEP
                else point(m.key, value, int(m.timestamp * 1000), m.step)
                for m in metrics
            )
            groups.append(group(attempt, METRIC, points))
        if params or tags:
            now = time.time_ns() // 1000
            for source, texts in ((PARAM, params), (TAG, tags)):
                if texts:
                    texts_now = (text_point(t.key, mask_value(t.key, str(t.value)), now) for t in texts)
                    groups.append(group(attempt, source, texts_now))
        self._client.log_metrics(groups)
        if not (tracked.beats or tracked.has_ended) and (metrics or params):
            self._map.hearts.begin(tracked, is_started=False)
        if tags:
            self._changed(tracked, {tag.key: str(tag.value) for tag in tags})

    def _keep_links(self, run_id: str, tracked: TrackedRun, tags: Sequence[Any]) -> None:
        """Write the links of a run again that ``tags`` have replaced: copies of tags carry those of another run."""
        for name in sorted({tag.key for tag in tags if str(tag.value) != tracked.links.get(tag.key, str(tag.value))}):
            if self._read.tag is not None:
                self._read.tag(run_id, name, tracked.links[name])

    def half_logged(self, run_id: str, *, metrics: Sequence[Any], params: Sequence[Any], tags: Sequence[Any]) -> None:
        """A batch has failed: report what the store has kept of it all the same."""
        if not self._read.is_near or not (metrics or params or tags):
            return
        try:
            data = self._read.run(run_id).data
        except (MlflowException, OSError):  # there is no such run: the store has kept nothing, and says so itself
            return
        kept = {(m.key, *_point(m)) for key in {m.key for m in metrics} for m in self._read.history(run_id, key)}
        metrics = [m for m in metrics if (m.key, *_point(m)) in kept]
        params = [param for param in params if data.params.get(param.key) == str(param.value)]
        tags = [tag for tag in tags if data.tags.get(tag.key) == str(tag.value)]
        if metrics or params or tags:
            self.logged(run_id, metrics=metrics, params=params, tags=tags)

    def tag_deleted(self, run_id: str, key: str) -> None:
        """A tag was taken back."""
        if key in OWN_TAGS:
            return
        tracked = self.find(run_id)
        deleted = deleted_point(key, time.time_ns() // 1000)
        self._client.log_metrics([group(tracked.task_run.attempt_uid, TAG, [deleted])])
        self._changed(tracked, {key: None})

    def lifecycle_changed(self, run_id: str, stage: str) -> None:
        """A run was deleted or restored: nothing is lost in the tracker, a tag tells."""
        attempt = self.find(run_id).task_run.attempt_uid
        self._client.log_metrics([group(attempt, TAG, [text_point(LIFECYCLE, stage, time.time_ns() // 1000)])])

    def to_change(self, experiment_id: str, stage: str) -> list[str]:
        """Ids of the runs that change with the stage of their experiment, which is about to be ``stage``."""
        view = ViewType.ACTIVE_ONLY if stage == "deleted" else ViewType.DELETED_ONLY
        return [tracked.info.run_id for tracked in self._runs_of(experiment_id, view)]

    def experiment_renamed(self, experiment_id: str, name: str) -> None:
        """An experiment was given another name: it is the project of its runs."""
        before = self._map.experiments.get(experiment_id)
        self._map.experiments[experiment_id] = name
        for tracked in self._runs_of(experiment_id, ViewType.ALL):
            run = tracked.task_run.run
            is_project = tracked.is_own and tracked.is_announced and before is not None and run.project_name == before
            if tracked.is_dbnd_run or is_project:
                run.project_name = name
                self._client.init_run(run, run.root or tracked.task_run)

    def _runs_of(self, experiment_id: str, view: int) -> Iterator[TrackedRun]:
        """The runs of an experiment; of one on a server those that this process knows, for nobody is asked."""
        if not self._read.is_near:
            yield from self._map.known_in(experiment_id)
            return
        for run in self._read.runs_of(experiment_id, view):
            yield self._map.seen(run, self._read)

    def datasets_read(self, run_id: str, inputs: Sequence[Any]) -> None:
        """Datasets were logged as inputs: each is read once by a run, however often MLflow says so."""
        tracked = self.find(run_id)
        for item in inputs:
            dataset = item.dataset
            if (dataset.name, dataset.digest) in tracked.datasets:
                continue
            tracked.datasets.add((dataset.name, dataset.digest))
            self._client.log_datasets(tracked.task_run, dataset_operation(dataset, utc_now()))

    def artifact_logged(self, root: str, name: str) -> None:
        """A file was sent to the artifact store of an MLflow server.

        Args:
            root: Where it was sent to: the artifact root of a run, or a folder below it.
            name: Its path below ``root``.
        """
        found = _RUN_FOLDER.match(root)
        if found is None:
            return
        tracked = self.find(found["run_id"])
        path = f"{found['folder'] or ''}/{name}".lstrip("/")
        if path in tracked.artifacts or len(tracked.artifacts) >= MAX_ARTIFACTS:
            return
        tracked.artifacts.add(path)
        self._client.log_artifact(tracked.task_run.attempt_uid, path, f"{found['root']}/{path}")

    def model_logged(self, run_id: str, name: str, location: str | None) -> None:
        """A model was logged: its name and where it stands."""
        tracked = self.find(run_id)
        place = location or f"{tracked.artifact_uri or f'runs:/{run_id}'}/{name}"
        self._client.log_artifact(tracked.task_run.attempt_uid, f"{MODEL}{name}", place)

    def experiment_seen(self, experiment_id: str, name: str) -> None:
        """An experiment's name is known: it is the project of runs outside of tasks."""
        self._map.experiments[experiment_id] = name

    def failed(self, method: str, error: Exception) -> None:
        """Say that something could not be reported; at most once a minute."""
        reason = mask_text(f"{type(error).__name__}: {error}", MAX_TEXT)
        self._warn(f"A call of MLflow ({method}) could not be reported to {self._client.name} ({reason}).")

    def _set_project(self, run: Run, experiment_id: str) -> None:
        """Make the experiment the project of a run that has none: reported by announcing the run again."""
        name = self._map.experiments.get(experiment_id)
        if run.project_name is None and run.root is not None and name not in {None, "Default"}:
            run.project_name = name
            self._client.init_run(run, run.root)

    def _end(self, run_id: str, tracked: TrackedRun, status: str, end_time: int | None) -> None:
        attempt = tracked.task_run.attempt_uid
        root = tracked.artifact_uri or ""
        is_many = len(tracked.artifacts) >= MAX_ARTIFACTS
        if is_many or (not tracked.artifacts and may_have_unlisted(run_id, root)):
            for name, place in artifacts_of(root):
                self._client.log_artifact(attempt, name, place)
        if tracked.is_own:  # the task's own state is what dbnd says of it
            return
        self._map.hearts.end(tracked)
        task_state, run_state = STATES[status]
        if tracked.has_ended and task_state is TaskRunState.CANCELLED:
            self._reopen(tracked)  # a tracker lets nothing but what runs be cancelled, and MLflow does
        raised = sys.exc_info()[1] if status == "FAILED" else None
        error = None if raised is None else ErrorInfo.of(raised)
        ended = moment(end_time)
        self._client.update_task_run_attempts(tracked.task_run, task_state, timestamp=ended, error=error)
        if tracked.is_dbnd_run:
            self._client.set_run_state(tracked.task_run.run, run_state, timestamp=ended)


def _point(metric: Any) -> tuple[int, int, str]:
    return int(metric.timestamp), int(metric.step), repr(float(metric.value))


def is_reported(run_id: str) -> bool:
    """Whether an MLflow run was created or read through a composite URI in this process."""
    with _making:
        return any(run_id in runs for runs in _maps.values())


def renew_locks() -> None:
    """Make the locks of a forked child free: its parent's threads may have held them."""
    global _making  # noqa: PLW0603  the one lock of the module
    _making = threading.RLock()
    for runs in _maps.values():
        runs.renew_lock()


def page_of(tracking_uri: str, info: Any) -> str:
    """Where an MLflow run can be found: its page on a server, or its store and id in the same form."""
    return f"{_absolute(tracking_uri)}#/experiments/{info.experiment_id}/runs/{info.run_id}"


def _absolute(uri: str) -> str:
    """``uri`` such that it means the same in any working directory, without credentials."""
    masked = mask_url(uri)
    for prefix in ("sqlite:///", "file:"):
        if masked.startswith(prefix) and not masked.removeprefix(prefix).startswith("/"):
            return f"{prefix}{Path(masked.removeprefix(prefix)).absolute()}"
    return str(Path(masked).absolute()) if "://" not in masked and ":" not in masked else masked
