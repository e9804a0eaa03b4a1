"""Comparing MLflow runs with what the tracker has of them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from dbnd.tracking import storable

from .._reporting.derived import PARENT, description, moment, name_of, source_of, uid_of, user_of
from .._reporting.reporter import LIFECYCLE, METRIC, MODEL, STATES
from .._reporting.tags import Link
from .comparison import (
    Point,
    datasets_of_mlflow,
    datasets_of_tracker,
    is_same,
    point_of,
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

_ABSENT: Final = "(none)"
_FINAL: Final = frozenset(run_state.value for _, run_state in STATES.values())


@dataclass(frozen=True, slots=True)
class Difference:
    """Something that the two sides do not agree on.

    Args:
        run_id: Id of the MLflow run.
        what: "run", "status", "name", "parent", "start", "end", "stage", "experiment", "description", "user", "job",
            "param", "tag", "metric", "last value", "dataset" or "model".
        name: Its key.
        mlflow: What MLflow's store has.
        tracker: What the tracker has.
    """

    run_id: str
    what: str
    name: str
    mlflow: str
    tracker: str


def differences(run: Any, store: OwnStore, reader: Reader, families: Families) -> Iterator[Difference]:
    """What differs between an MLflow run and its task run.

    Args:
        run: The MLflow run.
        store: The user's own store.
        reader: Reader of the tracker.
        families: Which runs of the store are nested in which.
    """
    run_id = run.info.run_id
    task_run = task_run_of(run, reader)
    if task_run is None:
        yield Difference(run_id, "run", name_of(run.info), "exists", _ABSENT)
        return
    stage = next((tag["value"] for tag in task_run["tags"] if tag["name"] == LIFECYCLE), "active")
    compared = [("stage", "", run.info.lifecycle_stage, stage), *_logged(run, task_run)]
    # The first run of a task is the task's own, whose name, times and state are those of the task.
    if task_run["type"] == "mlflow":
        parent, above = families.parent(run), task_run["parent_task_run_uid"]
        # A run of a task hangs below that, if what it is nested in is in another run.
        if parent is not None and families.run_uid(parent) == families.run_uid(run):
            compared.append(("parent", "", _uid(parent, reader), above))
        elif above is not None and PARENT not in run.data.tags and task_run["task_run_uid"] == uid_of(run_id):
            compared.append(("parent", "", None, above))
        compared += _facts(run, task_run)
        if parent is None and above is None and task_run["task_run_uid"] == uid_of(run_id):
            compared += _facts_of_run(run, store, reader.run_summary(task_run["task_run_uid"]) or {})
        else:
            compared.append(("name", "", name_of(run.info), task_run["name"]))
    for what, name, left, right in compared:
        if left != right:
            yield Difference(run_id, what, name, _ABSENT if left is None else left, _ABSENT if right is None else right)
    yield from _metrics(run, task_run, store, reader)


def _facts(run: Any, task_run: dict[str, Any]) -> Iterator[tuple[str, str, str | None, str | None]]:
    info = run.info
    is_final = info.status in STATES
    if task_run["state"] != (STATES[info.status][0].value if is_final else "running"):
        yield "status", "", info.status, str(task_run["state"])
    yield "start", "", _time(info.start_time), task_run["start_time"] and _in_ms(task_run["start_time"])
    if is_final and info.end_time is not None:
        yield "end", "", _time(info.end_time), task_run["end_time"] and _in_ms(task_run["end_time"])


def _facts_of_run(
    run: Any,
    store: OwnStore,
    summary: dict[str, Any],
) -> Iterator[tuple[str, str, str | None, str | None]]:
    """Facts of an MLflow run that is a run of its own in the tracker, where MLflow has them."""
    status, state = run.info.status, summary.get("state")
    # What sends no heartbeats any more is shown as lost.
    if state != STATES[status][1].value if status in STATES else state in _FINAL:
        yield "status", "of the run", status, str(state)
    yield "name", "", name_of(run.info), summary.get("name")
    # Who writes by a client alone may never have told MLflow's name of the experiment.
    project = summary.get("project_name")
    yield "experiment", "", project and storable(store.experiment(run)), project
    tags = run.data.tags
    for what, name, left in (
        ("description", "description", description(tags)),
        ("user", "user", user_of(run)),
        ("job", "job_name", source_of(tags)),
    ):
        if left:
            yield what, "", left, summary.get(name)


def _logged(run: Any, task_run: dict[str, Any]) -> Iterator[tuple[str, str, str | None, str | None]]:
    texts = texts_of_tracker(task_run)
    for what, ours in texts_of_mlflow(run).items():
        for name in sorted({*ours, *texts[what]}):
            left, right = ours.get(name), texts[what].get(name)
            if not is_same(what, left, right):
                yield what, name, left, right
    known = {artifact["name"] for artifact in task_run["artifacts"]}
    for name in models_of(run):
        yield "model", name, "logged", "logged" if f"{MODEL}{name}" in known else None
    datasets, read = datasets_of_mlflow(run), datasets_of_tracker(task_run)
    for identity in sorted({*datasets, *read}):
        left = "read" if identity in datasets else None
        right = "read" if read[identity] == 1 else f"read {read[identity]} times" if read[identity] else None
        yield "dataset", "{} ({})".format(*identity), left, right


def _metrics(run: Any, task_run: dict[str, Any], store: OwnStore, reader: Reader) -> Iterator[Difference]:
    run_id = run.info.run_id
    reported = {metric["key"]: metric for metric in task_run["metrics"] if metric["source"] == METRIC}
    last_of = {metric.key: metric for metric in getattr(run.data, "_metric_objs", ())}
    for key in sorted({*run.data.metrics, *reported}):
        ours = Counter(points_of_mlflow(store.history(run_id, key)).keys())
        points = reader.points(task_run["task_run_uid"], key) if key in reported else iter(())
        theirs = points_of_tracker(points)
        if ours != theirs:
            missing, extra = sorted((ours - theirs).elements()), sorted((theirs - ours).elements())
            yield Difference(run_id, "metric", key, _text(missing, theirs), _text(extra, ours))
        elif key in last_of:
            metric, view = last_of[key], reported[key]
            left = point_of(metric.timestamp, metric.step, metric.value)
            right = point_of(view["last_timestamp"], view["last_step"], view["last_value"])
            # MLflow's stores do not agree on how NaN compares with another value of the same step and time.
            is_doubtful = left[:2] == right[:2] and any(p[:2] == left[:2] and p[2] == str(math.nan) for p in ours)
            if left != right and not is_doubtful:
                yield Difference(run_id, "last value", key, _point_text(left), _point_text(right))


def _uid(run: Any, reader: Reader) -> str:
    """Uid of the task run of an MLflow run that others are nested in."""
    link = Link.of(run)
    if link is None and Link.in_tags(run.data.tags) is not None:
        found = task_run_of(run, reader)
        return uid_of(run.info.run_id) if found is None else str(found["task_run_uid"])
    return uid_of(run.info.run_id) if link is None else link.task_run_uid


def _time(milliseconds: int | None) -> str | None:
    return None if milliseconds is None else moment(milliseconds).isoformat(timespec="milliseconds")


def _in_ms(text: str) -> str:
    return datetime.fromisoformat(text).isoformat(timespec="milliseconds")


def _text(points: list[Point], other: Counter[Point]) -> str:
    """The first of the points that only one side has, or has more often than the other."""
    if not points:
        return "all of the other's"
    again = " once more" if points[0] in other else ""
    more = f" and {len(points) - 1} more" if len(points) > 1 else ""
    return f"{_point_text(points[0])}{again}{more}"


def _point_text(point: Point) -> str:
    timestamp, step, value = point
    return f"{value} at step {step}, {timestamp} ms"
