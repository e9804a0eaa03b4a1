"""Comparing MLflow runs with what the tracker has of them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, NamedTuple

from dbnd.tracking import (
    VERIFIED_TAG,
    Batch,
    Reader,
    Source,
    Transport,
    group,
    micros,
    new_uid,
    text_point,
    utc_now,
)

from .._reporting.derived import STATES, moment, name_of, uid_of
from .._reporting.tags import PARENT, Link
from . import comparison
from .comparison import Point, Texts
from .families import Families
from .mlflow_store import OwnStore

_ABSENT: Final = "(none)"
_FINAL: Final = frozenset(run_state.value for _, run_state in STATES.values())


class Difference(NamedTuple):
    """Something that the two sides do not agree on: what each has of a kind, such as "param" or "status", and name."""

    run_id: str
    what: str
    name: str
    mlflow: str
    tracker: str


@dataclass(frozen=True, slots=True)
class Verifier:
    """Compares runs of an MLflow store with what the tracker has of them; with a transport, the tracker keeps that."""

    store: OwnStore
    reader: Reader
    families: Families
    transport: Transport | None = None

    def verify(self, run: Any) -> list[Difference]:
        """What differs between an MLflow run and its task run.

        Raises:
            TransportError: The tracker does not keep the result.
            DatabandError: One of the sides cannot be read.
        """
        run_id = run.info.run_id
        task_run = comparison.task_run_of(run, self.reader)
        if task_run is None:
            return [Difference(run_id, "run", name_of(run.info), "exists", _ABSENT)]
        edited = comparison.edited_in_tracker(task_run)
        found = [
            Difference(run_id, what, name, _ABSENT if left is None else left, _ABSENT if right is None else right)
            for (what, name), left, right in comparison.differences(*self._texts(run, task_run), edited)
        ]
        found += self._metrics(run, task_run)
        if self.transport is not None and task_run["attempts"]:
            now = utc_now()
            verdict = text_point(VERIFIED_TAG, f"{now.isoformat(timespec='seconds')} {len(found)}", micros(now))
            tags = group(task_run["attempts"][-1]["attempt_uid"], Source.TAG, [verdict])
            self.transport.send(Batch("log_metrics", [tags], new_uid().hex, 1, 1))
        return found

    def _texts(self, run: Any, task_run: dict[str, Any]) -> tuple[Texts, Texts]:
        """What MLflow and the tracker say of a run, but for its metrics."""
        ours, theirs = comparison.logged_to_mlflow(run), comparison.logged_to_tracker(task_run)
        ours, theirs = (
            {key: self.families.translated(text) for key, text in texts.items()} for texts in (ours, theirs)
        )
        # The first run of a task is the task's own, whose name, times and state are those of the task.
        if task_run["type"] == "mlflow":
            for left, right in (_states(run, task_run), self._fields(run, task_run)):
                ours |= left
                theirs |= right
        return ours, theirs

    def _fields(self, run: Any, task_run: dict[str, Any]) -> tuple[Texts, Texts]:
        ours: Texts = {}
        theirs: Texts = {}
        uid, above = task_run["task_run_uid"], task_run["parent_task_run_uid"]
        is_own = uid == uid_of(run.info.run_id)
        parent = self.families.parent(run)
        # A run of a task hangs below that, if what it is nested in is in another run.
        is_nested = parent is not None and self.families.run_uid(parent) == self.families.run_uid(run)
        if is_nested:
            ours["parent", ""] = self._uid(parent)
        if above is not None and (is_nested or (is_own and PARENT not in run.data.tags)):
            theirs["parent", ""] = above
        if parent is not None or above is not None or not is_own:
            ours["name", ""], theirs["name", ""] = name_of(run.info), task_run["name"]
            return ours, theirs
        summary = self.reader.run_summary(uid) or {}
        status, state = run.info.status, str(summary.get("state"))
        # What sends no heartbeats any more is shown as lost.
        agrees = state == STATES[status][1].value if status in STATES else state not in _FINAL
        ours |= {("status", "of the run"): status}
        theirs |= {("status", "of the run"): status if agrees else state}
        ours |= comparison.fields_of_mlflow(run, self.store.experiment(run))
        theirs |= comparison.fields_of_tracker(summary)
        if ("experiment", "") not in theirs:  # who writes by a client alone may never have told its name
            del ours["experiment", ""]
        return ours, theirs

    def _metrics(self, run: Any, task_run: dict[str, Any]) -> Iterator[Difference]:
        run_id = run.info.run_id
        reported = {metric["key"]: metric for metric in task_run["metrics"] if metric["source"] == Source.METRIC}
        last_of = {metric.key: metric for metric in getattr(run.data, "_metric_objs", ())}
        for key in sorted({*run.data.metrics, *reported}):
            ours = Counter(comparison.points_of_mlflow(self.store.history(run_id, key)).keys())
            points = self.reader.points(task_run["task_run_uid"], key) if key in reported else iter(())
            theirs = comparison.points_of_tracker(points)
            if ours != theirs:
                missing, extra = sorted((ours - theirs).elements()), sorted((theirs - ours).elements())
                yield Difference(run_id, "metric", key, _text(missing, theirs), _text(extra, ours))
            elif key in last_of:
                metric, view = last_of[key], reported[key]
                left = comparison.point_of(metric.timestamp, metric.step, metric.value)
                right = comparison.point_of(view["last_timestamp"], view["last_step"], view["last_value"])
                # MLflow's stores do not agree on how NaN compares with another value of the same step and time.
                is_doubtful = left[:2] == right[:2] and any(p[:2] == left[:2] and p[2] == str(math.nan) for p in ours)
                if left != right and not is_doubtful:
                    yield Difference(run_id, "last value", key, _text_of_point(left), _text_of_point(right))

    def _uid(self, run: Any) -> str:
        """Uid of the task run of a run that others are nested in."""
        link = Link.of(run)
        if link is not None:
            return link.task_run_uid
        # Of databand 2.0, whose links may be those of another run.
        found = None if Link.in_tags(run.data.tags) is None else comparison.task_run_of(run, self.reader)
        return uid_of(run.info.run_id) if found is None else str(found["task_run_uid"])


def _states(run: Any, task_run: dict[str, Any]) -> tuple[Texts, Texts]:
    status, state = run.info.status, task_run["state"]
    agrees = state == (STATES[status][0].value if status in STATES else "running")
    ours, theirs = {("status", ""): status}, {("status", ""): status if agrees else str(state)}
    for what, time in (("start", run.info.start_time), ("end", run.info.end_time if status in STATES else None)):
        if time is not None:
            ours[what, ""] = _text_of_time(moment(time))
        if (told := task_run[f"{what}_time"]) is not None:
            theirs[what, ""] = _text_of_time(datetime.fromisoformat(told))
    return ours, theirs


def _text_of_time(time: datetime) -> str:
    return time.isoformat(timespec="milliseconds")


def _text_of_point(point: Point) -> str:
    timestamp, step, value = point
    return f"{value} at step {step}, {timestamp} ms"


def _text(points: list[Point], other: Counter[Point]) -> str:
    """The first of the points that only one side has, or has more often than the other."""
    if not points:
        return "all of the other's"
    again = " once more" if points[0] in other else ""
    more = f" and {len(points) - 1} more" if len(points) > 1 else ""
    return f"{_text_of_point(points[0])}{again}{more}"
