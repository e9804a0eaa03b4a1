"""Bringing MLflow runs into the tracker: what it has not got of them, whoever has brought the rest.

Ids, times, steps and nesting are those of MLflow. Nothing is counted or numbered from one import to the next: each one
looks at what the tracker has, and sends what is missing. A point that arrives twice all the same, by a run that goes on
or by another import, is kept once by the tracker.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from dbnd import TaskRun
from dbnd.plugins import mask_url
from dbnd.tracking import (
    Batch,
    Group,
    Reader,
    RunState,
    Source,
    TaskRunState,
    Transport,
    group,
    micros,
    new_uid,
    point,
    text_point,
    utc_now,
    wire,
)

from .._reporting.artifacts import MODEL, is_local
from .._reporting.datasets import dataset_operation
from .._reporting.derived import (
    STATES,
    attempt_uid,
    derived_task_run,
    foreign,
    integer_of,
    moment,
    page_of,
    shown,
    uid_of,
)
from .._reporting.tags import EXPERIMENT, IMPORTED, LIFECYCLE, PARENT, Link
from . import comparison
from .comparison import Texts
from .families import Families
from .mlflow_store import OwnStore

# Points of one batch.
_CHUNK: Final = 5_000
_SOURCES: Final = {"param": Source.PARAM, "tag": Source.TAG}
# A task run of which the tracker has nothing.
_NOTHING: Final[dict[str, Any]] = {
    **dict.fromkeys(("type", "name", "state", "start_time", "end_time", "parent_task_run_uid")),
    **{part: [] for part in ("params", "tags", "metrics", "artifacts", "datasets")},
    "links": {},
}
Json = dict[str, Any]


@dataclass(slots=True)
class Importer:
    """Imports runs of one MLflow store; those that others are nested in come first.

    Args:
        databand_url: The tracker, without credentials.
        recreate: Whether runs that were deleted in the tracker are imported again.
        refused: Takes the ids of the runs of which the tracker keeps nothing: they were deleted there.
    """

    source: OwnStore
    families: Families
    transport: Transport
    reader: Reader
    databand_url: str
    recreate: bool = False
    refused: list[str] = field(default_factory=list)
    _task_runs: dict[str, TaskRun] = field(default_factory=dict)
    _projects: dict[str, str | None] = field(default_factory=dict)
    _journal: str = field(default_factory=lambda: new_uid().hex)
    _sent: int = 0

    def import_run(self, run: Any) -> bool:
        """Send what the tracker has not got of one run, and return whether anything was sent.

        Raises:
            TransportError: The tracker does not take it.
            DatabandError: One of the sides cannot be read.
        """
        now = utc_now()
        known = comparison.task_run_of(run, self.reader) or _NOTHING
        task_run = self._place(run, known)
        if self._is_unchanged(run, task_run, known):
            return False
        # What was listed may be older than what the tracker has of a run that goes on.
        listed, run = run, self.source.run_or_none(run.info.run_id)
        if run is None:  # it has been deleted for good since
            return False
        if (run.info.run_name, run.data.tags) != (listed.info.run_name, listed.data.tags):
            task_run = self._place(run, known)
        before = self._sent
        is_task = known["type"] not in {None, "mlflow"}  # of which the run is a part
        if not is_task:
            self._announce(run, task_run, known)
        if known is _NOTHING and comparison.task_run_of(run, self.reader) is None:
            self.refused.append(run.info.run_id)
            return False
        if not is_task:
            self._send_states(run, task_run, known, now)
        self._send_link_and_files(run, task_run, known)
        self._send_texts(run, task_run, known)
        if experiment := self._untold_experiment(run, task_run, known):
            self._send_tag(task_run, EXPERIMENT, experiment)
        points = self._send_points(run, task_run, known)
        is_sent = self._sent > before
        self._send_tag(task_run, IMPORTED, self._mark(run, points))
        return is_sent

    def _place(self, run: Any, known: Json) -> TaskRun:
        """The task run that ``run`` becomes, below that of its parent."""
        above = self.families.parent(run)
        parent = self._gone_parent(run, known) if above is None else self._task_runs[above.info.run_id]
        link = Link.of(run)
        if known is not _NOTHING:
            # Databand 2.0 did not say for which run a link was made: for this one, if it has led to the task run.
            link = link or Link.in_tags(run.data.tags)
            link = link if link is not None and link.task_run_uid == known["task_run_uid"] else None
        if parent is not None and link is not None and parent.run.uid != link.run_uid:
            parent = None  # a run of a task hangs below that, whatever it is nested in
        task_run = derived_task_run(run, parent, self.source.experiment(run), link)
        task_run.run.cmd_name = "mlflow_import"
        task_run.run.state = RunState.RUNNING
        task_run.run.parent = None  # and not the task whose process runs the import
        self._task_runs[run.info.run_id] = task_run
        return task_run

    def _gone_parent(self, run: Any, known: Json) -> TaskRun | None:
        """The task run of a parent that only the tracker still has."""
        named, above = run.data.tags.get(PARENT), known["parent_task_run_uid"]
        if named is None or above != uid_of(named):
            return None
        top, passed = above, {above}
        while (found := self.reader.task_run(top)) is not None:
            higher = found["parent_task_run_uid"]
            if higher is None or higher in passed:
                break
            passed.add(top := higher)
        is_there = self.reader.run_summary(top) is not None
        return foreign(Link(top, above, attempt_uid(above)), named) if is_there else None

    def _is_unchanged(self, run: Any, task_run: TaskRun, known: Json) -> bool:
        """Whether the tracker has all of a run, without reading a point of it.

        The mark says how many points MLflow had when the tracker had each of them. If the tracker has as many now, it
        has the same ones; if MLflow has no further one of any metric, it has no others.
        """
        counts = {metric["key"]: metric["points"] for metric in known["metrics"] if metric["source"] == Source.METRIC}
        mark = next((tag["value"] for tag in known["tags"] if tag["name"] == IMPORTED), None)
        if mark != self._mark(run, sum(counts.values())) or "mlflow" not in known["links"]:
            return False
        if _missing(run, known, {}) or self._untold_experiment(run, task_run, known):
            return False
        # Those that stand elsewhere take a request for each folder.
        if is_local(run.info.artifact_uri) and self._missing_files(run, known):
            return False
        return run.data.metrics.keys() <= counts.keys() and not any(
            self.source.has_more_points(run.info.run_id, key, counts[key]) for key in run.data.metrics
        )

    def _untold_experiment(self, run: Any, task_run: TaskRun, known: Json) -> str | None:
        """The run's experiment, where that is not the project of the run around it, and the tracker does not say it."""
        name, run_uid = shown(self.source.experiment(run)), task_run.run.uid
        told = [tag["value"] for tag in known["tags"] if tag["name"] == EXPERIMENT]
        if task_run.uid == run_uid or name in {"Default", *told}:
            return None
        if run_uid not in self._projects:
            self._projects[run_uid] = (self.reader.run_summary(run_uid) or {}).get("project_name")
        return None if name == self._projects[run_uid] else name

    def _mark(self, run: Any, points: int) -> str:
        info = run.info
        return f"{info.status} {info.end_time}, {points} points, {self.source.experiment(run)}"

    def _announce(self, run: Any, task_run: TaskRun, known: Json) -> None:
        dbnd_run = task_run.run
        has_name = known["name"] == task_run.name
        summary = self.reader.run_summary(dbnd_run.uid) if task_run.is_root else None
        if task_run.is_root and (summary is None or task_run.uid == dbnd_run.uid):
            if has_name and summary is not None and self._is_described(run, summary, known):
                return
            if task_run.uid != dbnd_run.uid and run.info.status in STATES:
                # It belongs to a task that the tracker has not got, or not yet: the run's state is not known otherwise.
                dbnd_run.state = STATES[run.info.status][1]
            is_detached = known["parent_task_run_uid"] is not None and task_run.uid == dbnd_run.uid
            body = wire.init_run(dbnd_run, task_run, databand_url=self.databand_url, detached=is_detached)
            body["init_args"]["task_runs_info"]["recreate"] = self.recreate
            self._send("init_run", body)
        elif not has_name or (task_run.parent is not None and known["parent_task_run_uid"] != task_run.parent.uid):
            body = wire.add_task_runs(dbnd_run, [task_run])
            body["task_runs_info"]["recreate"] = self.recreate
            self._send("add_task_runs", body)

    def _is_described(self, run: Any, summary: Json, known: Json) -> bool:
        """Whether the tracker says of a run what an announcement would say."""
        fields = comparison.fields_of_mlflow(run, self.source.experiment(run))
        if fields.get(("experiment", "")) == "Default":
            del fields["experiment", ""]
        edited = comparison.edited_in_tracker(known)
        return not any(comparison.differences(fields, comparison.fields_of_tracker(summary), edited))

    def _send_states(self, run: Any, task_run: TaskRun, known: Json, now: datetime) -> None:
        start, end = (
            None if known[key] is None else datetime.fromisoformat(known[key]) for key in ("start_time", "end_time")
        )
        if known["state"] is None or start is None or start > task_run.start_time:
            self._send_state(task_run, TaskRunState.RUNNING, task_run.start_time)
        if run.info.status not in STATES:
            if end is not None:
                self._reopen(task_run, now)
            return
        task_state, run_state = STATES[run.info.status]
        ended = end if run.info.end_time is None and end is not None else moment(run.info.end_time)
        if known["state"] != task_state.value or end != ended:
            if end is not None and task_state is TaskRunState.CANCELLED:
                self._reopen(task_run, now)  # trackers cancel only what runs
            self._send_state(task_run, task_state, ended)
        self._send_run_state(task_run, run_state, ended)

    def _reopen(self, task_run: TaskRun, now: datetime) -> None:
        self._send_state(task_run, TaskRunState.RUNNING, now)
        self._send_run_state(task_run, RunState.RUNNING, now)

    def _send_state(self, task_run: TaskRun, state: TaskRunState, time: datetime) -> None:
        self._send("update_task_run_attempts", wire.attempt_update(task_run, state, time, None))

    def _send_run_state(self, task_run: TaskRun, state: RunState, time: datetime) -> None:
        """Send the state of a run that is an MLflow run, if the tracker has another one."""
        if not task_run.is_root or task_run.uid != task_run.run.uid:
            return
        summary = self.reader.run_summary(task_run.run.uid) or {}
        is_told = summary.get("state") == state.value
        if not is_told or (state is not RunState.RUNNING and datetime.fromisoformat(summary["end_time"]) != time):
            self._send("set_run_state", wire.run_state(task_run.run.uid, state, time))

    def _send_link_and_files(self, run: Any, task_run: TaskRun, known: Json) -> None:
        attempt = task_run.attempt_uid
        if "mlflow" not in known["links"]:
            links = {"mlflow": page_of(self.source.uri, run.info)}
            self._send("save_external_links", wire.external_links(attempt, links))
        for name, place in self._missing_files(run, known):
            self._send("log_artifact", wire.artifact(attempt, name, mask_url(place)))

    def _missing_files(self, run: Any, known: Json) -> list[tuple[str, str]]:
        there = {artifact["name"] for artifact in known["artifacts"]}
        return [(name, place) for name, place in self.source.artifacts(run) if name not in there]

    def _send_texts(self, run: Any, task_run: TaskRun, known: Json) -> None:
        """Send params, tags, datasets and models that the tracker has not got, or not as they are now."""
        sent: Texts = {}
        while missing := _missing(run, known, sent):
            time = micros(task_run.start_time if known is _NOTHING else utc_now())
            groups = []
            for kind, source in _SOURCES.items():
                texts = [text_point(name, text, time) for (what, name), text in missing.items() if what == kind]
                groups += [group(task_run.attempt_uid, source, texts)] if texts else []
            if groups:
                self._send("log_metrics", groups)
            for (what, name), text in missing.items():
                if what == "stage":
                    self._send_tag(task_run, LIFECYCLE, text)
                elif what == "dataset":
                    operation = dataset_operation(comparison.datasets_of(run)[name], task_run.start_time)
                    self._send("log_datasets", wire.dataset_operation(task_run, operation))
                elif what == "model":
                    place = mask_url(f"{run.info.artifact_uri}/{name}")
                    self._send("log_artifact", wire.artifact(task_run.attempt_uid, f"{MODEL}{name}", place))
            sent |= missing
            # A live run may have set one meanwhile, which an older value must not replace.
            if run.info.status in STATES or (run := self.source.run_or_none(run.info.run_id)) is None:
                return

    def _send_points(self, run: Any, task_run: TaskRun, known: Json) -> int:
        """Send the points that the tracker has not got, and return how many MLflow has."""
        tracked = {metric["key"] for metric in known["metrics"]}
        total = 0
        for key in sorted(run.data.metrics):
            points = comparison.points_of_mlflow(self.source.history(run.info.run_id, key))
            total += len(points)
            has = comparison.points_of_tracker(self.reader.points(task_run.uid, key)) if key in tracked else {}
            missing = [
                point(key, comparison.number_of(m.value), int(integer_of(m.timestamp) * 1000), each[1])
                for each, m in points.items()
                if each not in has
            ]
            for start in range(0, len(missing), _CHUNK):
                self._send("log_metrics", [group(task_run.attempt_uid, Source.METRIC, missing[start : start + _CHUNK])])
        return total

    def _send_tag(self, task_run: TaskRun, name: str, value: str) -> None:
        tag = text_point(name, value, micros(utc_now()))
        self._send("log_metrics", [group(task_run.attempt_uid, Source.TAG, [tag])])

    def _send(self, call: str, body: Json | list[Group]) -> None:
        self._sent += 1
        self.transport.send(Batch(call, body, self._journal, self._sent, self._sent))


def _missing(run: Any, known: Json, sent: Texts) -> Texts:
    """What MLflow says of a run and the tracker does not; a dataset that was read more often is there."""
    has = comparison.logged_to_tracker(known) | sent
    found = comparison.differences(comparison.logged_to_mlflow(run), has, comparison.edited_in_tracker(known))
    return {
        key: text for key, text, other in found if text is not None and not (key[0] == "dataset" and other is not None)
    }
