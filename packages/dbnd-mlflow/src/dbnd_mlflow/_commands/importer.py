"""Bringing MLflow runs into the tracker: what it has not got of them, whoever has brought the rest.

Ids, times, steps and nesting are those of MLflow. Nothing is counted or numbered from one import to the next: each one
looks at what the tracker has, and sends what is missing. A point that arrives twice all the same, by a run that goes on
or by another import, is kept once by the tracker.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from dbnd import TaskRun
from dbnd.plugins import mask_url
from dbnd.tracking import (
    Batch,
    Group,
    RunState,
    TaskRunState,
    Transport,
    group,
    micros,
    new_uid,
    point,
    storable,
    text_point,
    utc_now,
    wire,
)

from .._reporting.artifacts import MAX_ARTIFACTS, artifacts_of, is_local
from .._reporting.datasets import dataset_operation
from .._reporting.derived import PARENT, attempt_uid, derived_task_run, foreign, moment, source_of, uid_of
from .._reporting.reporter import IMPORTED, LIFECYCLE, METRIC, MODEL, PARAM, STATES, TAG, page_of
from .._reporting.tags import Link
from .comparison import (
    Texts,
    datasets_of_mlflow,
    datasets_of_tracker,
    is_same,
    number_of,
    points_of_mlflow,
    points_of_tracker,
    texts_of_mlflow,
    texts_of_tracker,
)
from .sides import models_of, task_run_of

if TYPE_CHECKING:
    from dbnd.tracking import Reader

    from .families import Families
    from .sides import OwnStore

# Points of one batch.
_CHUNK: Final = 5_000
_SOURCES: Final = {"param": PARAM, "tag": TAG}
_NOTHING: Final[dict[str, Any]] = {
    "type": None,
    "name": None,
    "state": None,
    "start_time": None,
    "end_time": None,
    "parent_task_run_uid": None,
    "links": {},
    **{part: [] for part in ("params", "tags", "metrics", "artifacts", "datasets")},
}
Call = tuple[str, dict[str, Any] | list[Group]]


@dataclass(slots=True)
class Importer:
    """Imports runs of one MLflow store; those that others are nested in come first.

    Args:
        source: The store.
        families: Which of its runs are nested in which.
        transport: How events reach the tracker.
        reader: What the tracker has already.
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
    _journal: str = field(default_factory=lambda: new_uid().hex)
    _sent: int = 0

    def import_run(self, run: Any) -> bool:
        """Send what the tracker has not got of one run. What only the tracker has stays.

        Args:
            run: The MLflow run.

        Returns:
            Whether anything was sent.

        Raises:
            TransportError: The tracker does not take it.
            DatabandError: One of the sides cannot be read.
        """
        now = utc_now()
        known = task_run_of(run, self.reader) or _NOTHING
        task_run = self._place(run, known)
        if self._is_unchanged(run, task_run, known):
            return False
        # What was listed may be older than what the tracker has of a run that goes on.
        listed, run = run, self.source.run(run.info.run_id)
        if (run.info.run_name, run.data.tags) != (listed.info.run_name, listed.data.tags):
            task_run = self._place(run, known)
        before = self._sent
        for call, body in self._announcement(run, task_run, known):
            self._send(call, body)
        if known is _NOTHING and task_run_of(run, self.reader) is None:
            self.refused.append(run.info.run_id)
            return False
        self._send_states(run, task_run, known, now)
        for call, body in self._facts(run, task_run, known, lists_all=True):
            self._send(call, body)
        self._send_texts(run, task_run, known)
        points = self._send_points(run, task_run, known)
        is_sent = self._sent > before
        self._send_tag(task_run, IMPORTED, self._mark(run, points))
        return is_sent

    def _is_unchanged(self, run: Any, task_run: TaskRun, known: dict[str, Any]) -> bool:
        """Whether the tracker has all of a run, without reading a point of it.

        The mark says how many points MLflow had when the tracker had each of them. If the tracker has as many now, it
        has the same ones; if MLflow has no further one of any metric, it has no others.
        """
        counts = {metric["key"]: metric["points"] for metric in known["metrics"] if metric["source"] == METRIC}
        if _tags(known).get(IMPORTED) != self._mark(run, sum(counts.values())):
            return False
        if any(True for _ in self._facts(run, task_run, known)) or _missing_texts(run, texts_of_tracker(known)):
            return False
        return run.data.metrics.keys() <= counts.keys() and not any(
            self.source.has_more_points(run.info.run_id, key, counts[key]) for key in run.data.metrics
        )

    def _mark(self, run: Any, points: int) -> str:
        info = run.info
        return f"{info.status} {info.end_time}, {points} points, {self.source.experiment(run)}"

    def _place(self, run: Any, known: dict[str, Any]) -> TaskRun:
        """The task run that ``run`` becomes, below that of its parent."""
        above = self.families.parent(run)
        parent = self._gone_parent(run, known) if above is None else self._task_runs[above.info.run_id]
        link = Link.of(run)
        if link is None and known is not _NOTHING:  # of databand 2.0, if it is the one that was found
            named = Link.in_tags(run.data.tags)
            link = named if named is not None and named.task_run_uid == known["task_run_uid"] else None
        elif link is not None and known is not _NOTHING and link.task_run_uid != known["task_run_uid"]:
            link = None
        if parent is not None and link is not None and parent.run.uid != link.run_uid:
            parent = None  # a run of a task hangs below that, whatever it is nested in
        task_run = derived_task_run(run, parent, self.source.experiment(run), link)
        task_run.run.cmd_name = "mlflow_import"
        task_run.run.state = RunState.RUNNING
        task_run.run.parent = None  # and not the task whose process runs the import
        self._task_runs[run.info.run_id] = task_run
        return task_run

    def _gone_parent(self, run: Any, known: dict[str, Any]) -> TaskRun | None:
        """The task run of a parent that MLflow has no more, where the tracker has it: what it has stays."""
        named, above = run.data.tags.get(PARENT), known["parent_task_run_uid"]
        if named is None or above != uid_of(named):
            return None
        top, passed = above, {above}
        while (found := self.reader.task_run(top)) is not None:
            higher = found["parent_task_run_uid"]
            if higher is None or higher in passed:
                break
            passed.add(top := higher)
        return None if self.reader.run_summary(top) is None else foreign(top, above, attempt_uid(above), named)

    def _announcement(self, run: Any, task_run: TaskRun, known: dict[str, Any]) -> Iterator[Call]:
        if known["type"] not in {None, "mlflow"}:  # a task, of which the run is a part
            return
        is_known = known["type"] is not None and known["name"] == task_run.name
        summary = self.reader.run_summary(task_run.run.uid) if task_run.is_root else None
        if task_run.is_root and task_run.uid == task_run.run.uid:
            if not (is_known and summary is not None and _is_described(run, task_run, summary)):
                yield self._init_run(task_run, detached=known["parent_task_run_uid"] is not None)
        elif task_run.is_root and summary is None:
            # A run of a task that the tracker has not got, or not yet: its run is as good as this one.
            if run.info.status in STATES:
                task_run.run.state = STATES[run.info.status][1]
            yield self._init_run(task_run)
        elif not is_known or (task_run.parent is not None and known["parent_task_run_uid"] != task_run.parent.uid):
            body = wire.add_task_runs(task_run.run, [task_run])
            body["task_runs_info"]["recreate"] = self.recreate
            yield "add_task_runs", body

    def _init_run(self, task_run: TaskRun, *, detached: bool = False) -> Call:
        body = wire.init_run(task_run.run, task_run, databand_url=self.databand_url, detached=detached)
        body["init_args"]["task_runs_info"]["recreate"] = self.recreate
        return "init_run", body

    def _send_states(self, run: Any, task_run: TaskRun, known: dict[str, Any], now: datetime) -> None:
        if known["type"] not in {None, "mlflow"}:
            return
        state, start, end = known["state"], known["start_time"], known["end_time"]
        if state is None or start is None or _time(start) > task_run.start_time:
            self._send_state(task_run, TaskRunState.RUNNING, task_run.start_time)
        if run.info.status not in STATES:
            if end is not None:  # it was read in the tracker before MLflow said that it runs
                self._send_state(task_run, TaskRunState.RUNNING, now)
                self._send_run_state(task_run, RunState.RUNNING, now)
            return
        task_state, run_state = STATES[run.info.status]
        ended = moment(run.info.end_time) if run.info.end_time is not None or end is None else _time(end)
        if state != task_state.value or end is None or _time(end) != ended:
            if end is not None and task_state is TaskRunState.CANCELLED:
                # A tracker lets nothing but what runs be cancelled, and MLflow does.
                self._send_state(task_run, TaskRunState.RUNNING, now)
                self._send_run_state(task_run, RunState.RUNNING, now)
            self._send_state(task_run, task_state, ended)
        self._send_run_state(task_run, run_state, ended)

    def _send_state(self, task_run: TaskRun, state: TaskRunState, time: datetime) -> None:
        self._send("update_task_run_attempts", wire.attempt_update(task_run, state, time, None))

    def _send_run_state(self, task_run: TaskRun, state: RunState, time: datetime) -> None:
        """Say the state of a run that is an MLflow run, if the tracker has another one."""
        if not task_run.is_root or task_run.uid != task_run.run.uid:
            return
        summary = self.reader.run_summary(task_run.run.uid)
        is_final = state is not RunState.RUNNING
        if summary and summary["state"] == state.value and (not is_final or _time(summary["end_time"]) == time):
            return
        self._send("set_run_state", wire.run_state(task_run.run.uid, state, time))

    def _facts(
        self,
        run: Any,
        task_run: TaskRun,
        known: dict[str, Any],
        *,
        lists_all: bool = False,
    ) -> Iterator[Call]:
        """What is kept once by its name: link, stage, datasets, artifacts and models.

        Args:
            run: The MLflow run.
            task_run: What it is in the tracker.
            known: What the tracker has.
            lists_all: Whether artifacts are listed that stand elsewhere, which takes a request for each folder.
        """
        attempt = task_run.attempt_uid
        if "mlflow" not in known["links"]:
            link = {"mlflow": page_of(self.source.uri, run.info)}
            yield "save_external_links", wire.external_links(attempt, link)
        stage = run.info.lifecycle_stage
        if stage != _tags(known).get(LIFECYCLE, "active"):
            yield "log_metrics", [group(attempt, TAG, [text_point(LIFECYCLE, stage, micros(utc_now()))])]
        read = datasets_of_tracker(known)
        for identity, dataset in datasets_of_mlflow(run).items():
            if identity not in read:
                operation = dataset_operation(dataset, task_run.start_time)
                yield "log_datasets", wire.dataset_operation(task_run, operation)
        names = {artifact["name"] for artifact in known["artifacts"]}
        for name, place in self._artifacts(run, lists_all=lists_all):
            if name not in names:
                yield "log_artifact", wire.artifact(attempt, name, mask_url(place))
        for name in models_of(run):
            if f"{MODEL}{name}" not in names:
                place = mask_url(f"{run.info.artifact_uri}/{name}")
                yield "log_artifact", wire.artifact(attempt, f"{MODEL}{name}", place)

    def _artifacts(self, run: Any, *, lists_all: bool) -> list[tuple[str, str]]:
        """Names and places of a run's artifacts, also of those on a server; of many only their root."""
        root = run.info.artifact_uri
        if is_local(root):
            return artifacts_of(root)
        names = self.source.artifacts(run.info.run_id, MAX_ARTIFACTS) if lists_all else []
        return artifacts_of(root) if names is None else [(name, f"{root}/{name}") for name in names]

    def _send_texts(self, run: Any, task_run: TaskRun, known: dict[str, Any]) -> None:
        """Send params and tags that the tracker has not got, or not as they are now."""
        has = texts_of_tracker(known)
        while missing := _missing_texts(run, has):
            time = micros(task_run.start_time if known is _NOTHING else utc_now())
            groups = [
                group(task_run.attempt_uid, _SOURCES[what], (text_point(*text, time) for text in texts.items()))
                for what, texts in missing.items()
            ]
            self._send("log_metrics", groups)
            for what, texts in missing.items():
                has[what] |= texts
            if run.info.status in STATES:
                return
            # While that was under way the run may have set one anew, and the tracker may have had that first.
            run = self.source.run(run.info.run_id)

    def _send_points(self, run: Any, task_run: TaskRun, known: dict[str, Any]) -> int:
        """Send the points that the tracker has not got; returns how many MLflow has."""
        tracked = {metric["key"] for metric in known["metrics"]}
        total = 0
        for key in sorted(run.data.metrics):
            points = points_of_mlflow(self.source.history(run.info.run_id, key))
            total += len(points)
            has = points_of_tracker(self.reader.points(task_run.uid, key)) if key in tracked else {}
            missing = [
                point(key, number_of(m.value), int(m.timestamp * 1000), int(m.step))
                for each, m in points.items()
                if each not in has
            ]
            for start in range(0, len(missing), _CHUNK):
                self._send("log_metrics", [group(task_run.attempt_uid, METRIC, missing[start : start + _CHUNK])])
        return total

    def _send_tag(self, task_run: TaskRun, name: str, value: str) -> None:
        self._send("log_metrics", [group(task_run.attempt_uid, TAG, [text_point(name, value, micros(utc_now()))])])

    def _send(self, call: str, body: dict[str, Any] | list[Group]) -> None:
        self._sent += 1
        self.transport.send(Batch(call, body, self._journal, self._sent, self._sent))


def _missing_texts(run: Any, has: dict[str, Texts]) -> dict[str, Texts]:
    """Params and tags of an MLflow run that are not there, or others."""
    found = {
        what: {name: text for name, text in texts.items() if not is_same(what, text, has[what].get(name))}
        for what, texts in texts_of_mlflow(run).items()
    }
    return {what: texts for what, texts in found.items() if texts}


def _is_described(run: Any, task_run: TaskRun, summary: dict[str, Any]) -> bool:
    """Whether the tracker says of a run what an announcement would say."""
    new = task_run.run
    described = ("name", "description", "user")
    is_project = storable(new.project_name or "") in {"Default", summary["project_name"]}
    is_job = source_of(run.data.tags) in {None, summary["job_name"]}
    return is_project and is_job and all(getattr(new, name) in {None, "", summary[name]} for name in described)


def _tags(known: dict[str, Any]) -> Texts:
    return {tag["name"]: tag["value"] for tag in known["tags"]}


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)
