"""The reporter: what an MLflow store was told becomes events of the tracking client."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mlflow.entities import ViewType
from mlflow.exceptions import MlflowException

from dbnd import TrackingAPIClient
from dbnd.plugins import console, mask_text, mask_value
from dbnd.tracking import (
    LARGEST_STEP,
    MAX_TEXT,
    ErrorInfo,
    Group,
    Run,
    RunState,
    Source,
    TaskRunState,
    deleted_point,
    group,
    micros,
    monotonic,
    point,
    text_point,
    utc_now,
)

from .._durable.ids import FIRST_ID, is_own
from .artifacts import MAX_ARTIFACTS, MODEL, artifacts_of, may_have_unlisted, sent_artifact
from .datasets import dataset_operation
from .derived import STATES, integer_of, moment, page_of, shown, text_of
from .runs import map_of
from .store_reader import StoreReader
from .tags import EXPERIMENT, FIELDS, LIFECYCLE, MADE_FOR, OWN_TAGS, PARENT, RUN_NAME, Link
from .tracked import TrackedRun


class Reporter:
    """Reports what the MLflow store of ``inner_uri`` was told, to one tracker. Any number of threads may call."""

    def __init__(self, client: TrackingAPIClient, inner_uri: str, read: StoreReader) -> None:
        self._client = client
        self._read = read
        self._inner_uri = inner_uri
        self._map = map_of(client)
        self._warn = console.once_a_minute()

    def failed(self, method: str, error: Exception) -> None:
        """Say that something could not be reported; at most once a minute."""
        reason = mask_text(f"{type(error).__name__}: {error}", MAX_TEXT)
        self._warn(f"A call of MLflow ({method}) could not be reported to {self._client.name} ({reason}).")

    def link_tags(self, tags: dict[str, str]) -> dict[str, str]:
        """Tags that name the task run of a run about to be created with ``tags``; none outside of a task."""
        return self._map.plan(tags)

    def not_created(self, links: dict[str, str]) -> None:
        """A run could not be created: the task run that ``link_tags`` has named is free again."""
        if links:
            self._map.give_back(links)

    def run_created(self, run: Any, links: Mapping[str, str]) -> None:
        """A run was created, with what ``link_tags`` has returned: announce its task run."""
        tracked = self._map.created(run, links, self._read)
        task_run = tracked.task_run
        if tracked.is_own:
            self._set_project(task_run.run, run.info.experiment_id)
        else:
            self._map.heartbeats.expect(tracked)
            self._announce(tracked)
            self._client.update_task_run_attempts(task_run, TaskRunState.RUNNING, timestamp=task_run.start_time)
            self._map.heartbeats.begin(tracked)
        is_late = is_own(run.info.run_id)
        if not is_late:  # else there is no page yet: ``report_pair`` says which it has become
            if tracked.is_dbnd_run:
                self._map.say_where(task_run.run)
            self._client.save_external_links(task_run, {"mlflow": page_of(self._inner_uri, run.info)})
        # An SQL store answers a new run with the very values that it was given, which may be numbers.
        tags = {key: text_of(value) for key, value in run.data.tags.items() if key not in OWN_TAGS}
        experiment = self._map.experiments.get(run.info.experiment_id)
        if experiment not in {None, "Default", task_run.run.project_name}:
            tags[EXPERIMENT] = shown(experiment)
        if is_late:
            tags[FIRST_ID] = run.info.run_id
        self._log_tags(tracked, tags, micros(task_run.start_time))
        if is_late:  # the store gives it another id, from which other uids would follow
            links = links or Link(task_run.run.uid, task_run.uid, task_run.attempt_uid).tags()
            for name, value in links.items():
                self._read.tag(run.info.run_id, name, value)
        if links:  # outside of tasks no further request is made
            self._read.tag(run.info.run_id, MADE_FOR, run.info.run_id)

    def run_seen(self, run: Any) -> None:
        """A run was read: remember which task run it belongs to."""
        self._map.seen(run, self._read)

    def run_updated(self, info: Any, end_time: int | None, name: str | None, *, changed: bool) -> None:
        """A run was given a name, a status, or both: a final status ends its task run, another one reopens it."""
        tracked = self._find(info.run_id)
        tracked.artifact_uri = info.artifact_uri or tracked.artifact_uri
        if tracked.info is not None:
            tracked.info = info
        if name:  # MLflow keeps it as a tag as well
            renamed = {RUN_NAME: str(name)}
            self._log_tags(tracked, renamed)
            self._fields_changed(tracked, renamed)
        if not changed:
            return
        is_final = info.status in STATES
        if is_final:
            self._end(info.run_id, tracked, info.status, end_time)
        else:
            self._reopen(tracked)
        tracked.has_ended = is_final
        self._map.set_idle(info.run_id, is_idle=is_final)

    def logged(
        self,
        run_id: str,
        *,
        metrics: Sequence[Any] | None = None,
        params: Sequence[Any] | None = None,
        tags: Sequence[Any] | None = None,
    ) -> None:
        """Metrics, params and tags were logged, in one call: they are one event, too."""
        tracked = self._find(run_id)
        attempt = tracked.task_run.attempt_uid
        if tags:
            self._keep_links(run_id, tracked, tags)
            # An empty name changes nothing in MLflow's databases.
            tags = [tag for tag in tags if tag.key not in OWN_TAGS and (tag.value or tag.key != RUN_NAME)]
        groups: list[Group] = []
        if metrics:
            # MLflow takes any numbers as times and steps, NumPy's and fractions: the tracker keeps their whole part.
            points = (
                (m.key, value, ms * 1000, step, None)
                if type(ms := m.timestamp) is int
                and type(value := m.value) is float
                and type(step := m.step) is int
                and -LARGEST_STEP <= step <= LARGEST_STEP
                else point(m.key, m.value, int(integer_of(ms) * 1000), m.step)
                for m in metrics
            )
            groups.append(group(attempt, Source.METRIC, points))
        if params or tags:
            now = time.time_ns() // 1000
            for source, texts in ((Source.PARAM, params), (Source.TAG, tags)):
                if texts:
                    texts_now = (text_point(t.key, mask_value(t.key, text_of(t.value)), now) for t in texts)
                    groups.append(group(attempt, source, texts_now))
        self._client.log_metrics(groups)
        if not (tracked.beats or tracked.has_ended) and (metrics or params):
            self._map.heartbeats.begin(tracked, is_started=False)
        if tags:
            self._fields_changed(tracked, {tag.key: text_of(tag.value) for tag in tags})

    def half_logged(self, given: Mapping[str, Any]) -> None:
        """A ``log_batch`` with these arguments has failed: report what the store has kept of it all the same."""
        run_id = given["run_id"]
        metrics, params, tags = (given.get(what) or () for what in ("metrics", "params", "tags"))
        if not self._read.is_near or not (metrics or params or tags):
            return
        try:
            data = self._read.run(run_id).data
        except (MlflowException, OSError):  # there is no such run: the store has kept nothing, and says so itself
            return
        kept = {(m.key, _point(m)) for key in {m.key for m in metrics} for m in self._read.history(run_id, key)}
        metrics = [m for m in metrics if (given_point := _point(m)) and (m.key, given_point) in kept]
        params = [param for param in params if data.params.get(param.key) == text_of(param.value)]
        tags = [tag for tag in tags if tag.key in data.tags and text_of(data.tags[tag.key]) == text_of(tag.value)]
        if metrics or params or tags:
            self.logged(run_id, metrics=metrics, params=params, tags=tags)

    def tag_deleted(self, run_id: str, key: str) -> None:
        if key in OWN_TAGS:
            return
        tracked = self._find(run_id)
        deleted = deleted_point(key, time.time_ns() // 1000)
        self._client.log_metrics([group(tracked.task_run.attempt_uid, Source.TAG, [deleted])])
        self._fields_changed(tracked, {key: None})

    def runs_to_change(self, given: Mapping[str, Any], stage: str) -> list[str]:
        """Ids of the runs that a call for a run or an experiment is about to delete or restore."""
        if "experiment_id" not in given:
            self._find(given["run_id"])  # it may be gone afterwards
            return [given["run_id"]]
        view = ViewType.ACTIVE_ONLY if stage == "deleted" else ViewType.DELETED_ONLY
        return [tracked.info.run_id for tracked in self._runs_of(given["experiment_id"], view)]

    def stage_changed(self, run_ids: Sequence[str], stage: str) -> None:
        """Runs were deleted or restored: the tracker keeps them, with a tag."""
        for run_id in run_ids:
            self._log_tags(self._find(run_id), {LIFECYCLE: stage})

    def datasets_read(self, run_id: str, inputs: Sequence[Any] | None) -> None:
        """Datasets were logged as inputs: each is reported once, however often MLflow logs it."""
        tracked = self._find(run_id)
        for item in inputs or ():
            dataset = item.dataset
            if (dataset.name, dataset.digest) not in tracked.datasets:
                tracked.datasets.add((dataset.name, dataset.digest))
                self._client.log_datasets(tracked.task_run, dataset_operation(item, utc_now()))

    def artifact_logged(self, root: str, name: str) -> None:
        """A file was sent to an MLflow server (see ``sent_artifact``)."""
        found = sent_artifact(root, name)
        if found is None:
            return
        run_id, path, place = found
        tracked = self._find(run_id)
        if path not in tracked.artifacts and len(tracked.artifacts) < MAX_ARTIFACTS:
            tracked.artifacts.add(path)
            self._client.log_artifact(tracked.task_run.attempt_uid, path, place)

    def model_logged(self, run_id: str, name: str, location: str | None) -> None:
        """A model was logged: its name and where it stands."""
        tracked = self._find(run_id)
        place = location or f"{tracked.artifact_uri or f'runs:/{run_id}'}/{name}"
        self._client.log_artifact(tracked.task_run.attempt_uid, f"{MODEL}{name}", place)

    def experiment_seen(self, experiment_id: str, name: str) -> None:
        """An experiment's name is known: it is the project of runs outside of tasks."""
        self._map.experiments[experiment_id] = name

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
            else:
                self._log_tags(tracked, {EXPERIMENT: shown(name)})

    def _find(self, run_id: str) -> TrackedRun:
        tracked = self._map.find(run_id, self._read)
        tracked.heard_at = monotonic()
        return tracked

    def _runs_of(self, experiment_id: str, view: int) -> Iterator[TrackedRun]:
        """The runs of an experiment; on a server, which is not asked, those that this process knows."""
        if self._read.is_near:
            for run in self._read.runs_of(experiment_id, view):
                yield self._map.seen(run, self._read)
            return
        for tracked in self._map.known():
            if tracked.info is not None and str(tracked.info.experiment_id) == str(experiment_id):
                yield tracked

    def _announce(self, tracked: TrackedRun) -> None:
        if tracked.is_dbnd_run:
            self._client.init_run(tracked.task_run.run, tracked.task_run, detached=tracked.is_detached)
        else:
            self._client.add_task_runs(tracked.task_run.run, [tracked.task_run])

    def _set_project(self, run: Run, experiment_id: str) -> None:
        """Make the experiment the project of a task's run that has none, by announcing the run again."""
        name = self._map.experiments.get(experiment_id)
        if run.project_name is None and run.root is not None and name not in {None, "Default"}:
            run.project_name = name
            self._client.init_run(run, run.root)

    def _log_tags(self, tracked: TrackedRun, tags: Mapping[str, str], time_us: int | None = None) -> None:
        time_us = time.time_ns() // 1000 if time_us is None else time_us
        points = (text_point(key, mask_value(key, value), time_us) for key, value in tags.items())
        self._client.log_metrics([group(tracked.task_run.attempt_uid, Source.TAG, points)])

    def _keep_links(self, run_id: str, tracked: TrackedRun, tags: Sequence[Any]) -> None:
        """Restore the link tags of a run that ``tags``, copied from another run, have replaced."""
        for name in sorted({tag.key for tag in tags if str(tag.value) != tracked.links.get(tag.key, str(tag.value))}):
            self._read.tag(run_id, name, tracked.links[name])

    def _fields_changed(self, tracked: TrackedRun, tags: Mapping[str, str | None]) -> None:
        """Announce a run again if any of the tags that were set, or taken back (None), is a field of it."""
        changes = {key: tags[key] for key in FIELDS & tags.keys()}
        was_run = tracked.is_dbnd_run
        if not changes or not self._map.change(tracked, changes, self._read):
            return
        # A run that was nested until now has reported no state of its own, and no heartbeats.
        is_new_run = tracked.is_dbnd_run and not was_run
        if is_new_run and not tracked.has_ended:
            self._map.heartbeats.expect(tracked)
        self._announce(tracked)
        if is_new_run and tracked.has_ended:
            info = tracked.info
            self._client.set_run_state(tracked.task_run.run, STATES[info.status][1], timestamp=moment(info.end_time))
        elif is_new_run:
            self._map.heartbeats.begin(tracked)

    def _end(self, run_id: str, tracked: TrackedRun, status: str, end_time: int | None) -> None:
        root = tracked.artifact_uri or ""
        is_many = len(tracked.artifacts) >= MAX_ARTIFACTS
        if is_many or (not tracked.artifacts and may_have_unlisted(run_id, root)):
            for name, place in artifacts_of(root):
                self._client.log_artifact(tracked.task_run.attempt_uid, name, place)
        if tracked.is_own:  # the task's own state is what dbnd says of it
            return
        self._map.heartbeats.end(tracked)
        task_state, run_state = STATES[status]
        if tracked.has_ended and task_state is TaskRunState.CANCELLED:
            self._reopen(tracked)  # trackers cancel only what runs
        raised = sys.exc_info()[1] if status == "FAILED" else None
        error = None if raised is None else ErrorInfo.of(raised)
        ended = moment(end_time)
        self._client.update_task_run_attempts(tracked.task_run, task_state, timestamp=ended, error=error)
        if tracked.is_dbnd_run:
            self._client.set_run_state(tracked.task_run.run, run_state, timestamp=ended)

    def _reopen(self, tracked: TrackedRun) -> None:
        if tracked.is_own:  # the task's own state is what dbnd says of it
            return
        self._tell(tracked, goes_on=True)
        self._client.update_task_run_attempts(tracked.task_run, TaskRunState.RUNNING)
        if tracked.is_dbnd_run and (tracked.has_ended or tracked.is_guess):
            self._client.set_run_state(tracked.task_run.run, RunState.RUNNING)
        self._map.heartbeats.begin(tracked)

    def _tell(self, tracked: TrackedRun, *, goes_on: bool) -> None:
        """Announce a run and those above it: who created them may have told no tracker, which then knows only uids."""
        if tracked.is_announced or tracked.host is not None or tracked.is_guess:
            return
        tracked.is_announced = True
        if above := tracked.fields.get(PARENT):
            self._tell(self._map.find(above, self._read), goes_on=False)
        if goes_on:
            self._map.heartbeats.expect(tracked)
        self._announce(tracked)
        if tracked.has_ended and not goes_on:
            (task_state, run_state), ended = STATES[tracked.info.status], moment(tracked.info.end_time)
            self._client.update_task_run_attempts(tracked.task_run, task_state, timestamp=ended)
            if tracked.is_dbnd_run:
                self._client.set_run_state(tracked.task_run.run, run_state, timestamp=ended)


def _point(metric: Any) -> tuple[int, int, str] | None:
    """What tells a point from others of its metric; None for one that is not of numbers."""
    try:
        return int(metric.timestamp), int(metric.step), repr(float(metric.value))
    except (TypeError, ValueError, OverflowError):
        return None
