"""Comparing MLflow runs with what the tracker has of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from mlflow.utils.validation import MAX_PARAM_VAL_LENGTH, MAX_TAG_VAL_LENGTH

from dbnd._masking import mask_value
from dbnd._values import storable

from ._reporter import METRIC, MODEL, OWN_TAGS, PARAM, STATES
from ._sides import MODELS_TAG, models_of, task_run_of

if TYPE_CHECKING:
    from dbnd._tracking.reader import Reader

    from ._sides import OwnStore

_ABSENT: Final = "(none)"
_LONGEST: Final = {"param": MAX_PARAM_VAL_LENGTH, "tag": MAX_TAG_VAL_LENGTH}
# SQL databases hold no infinity: MLflow puts the largest double in its place.
_LARGEST: Final = 1.7976931348623157e308
Point = tuple[int, int, str]


@dataclass(frozen=True, slots=True)
class Difference:
    """Something that the two sides do not agree on.

    Args:
        run_id: Id of the MLflow run.
        what: "run", "status", "param", "tag", "metric", "dataset" or "model".
        name: Its key.
        mlflow: What MLflow's store has.
        tracker: What the tracker has.
    """

    run_id: str
    what: str
    name: str
    mlflow: str
    tracker: str


def differences(run: Any, store: OwnStore, reader: Reader) -> Iterator[Difference]:  # noqa: ANN401
    """What differs between an MLflow run and its task run: status, params, tags, datasets, models, all metric points.

    Args:
        run: The MLflow run.
        store: The user's own store.
        reader: Reader of the tracker.
    """
    run_id = run.info.run_id
    task_run = task_run_of(run, reader)
    if task_run is None:
        yield Difference(run_id, "run", run.info.run_name or run_id, "exists", _ABSENT)
        return
    # The first run of a task is the task's own, whose state is that of the task.
    if task_run["type"] == "mlflow":
        expected = STATES[run.info.status][0].value if run.info.status in STATES else "running"
        if task_run["state"] != expected:
            yield Difference(run_id, "status", "", run.info.status, str(task_run["state"]))
    for what, ours, theirs in _facts(run, task_run):
        for name in sorted({*ours, *theirs}):
            left, right = ours.get(name, _ABSENT), theirs.get(name, _ABSENT)
            # A store cuts what is too long for it, and says nothing; the tracker has the whole.
            if left != right and not (len(left) == _LONGEST.get(what) and right.startswith(left)):
                yield Difference(run_id, what, name, left, right)
    reported = {metric["key"] for metric in task_run["metrics"] if metric["source"] == METRIC}
    for key in sorted({*run.data.metrics, *reported}):
        ours_points = {_point(m.timestamp, m.step, m.value) for m in store.history(run_id, key)}
        points = reader.points(task_run["task_run_uid"], key) if key in reported else iter(())
        theirs_points = {_point(p["timestamp"], p["step"], p["value"]) for p in points}
        if ours_points != theirs_points:
            missing, extra = sorted(ours_points - theirs_points), sorted(theirs_points - ours_points)
            yield Difference(run_id, "metric", key, _points_text(missing), _points_text(extra))


def _facts(run: Any, task_run: dict[str, Any]) -> Iterator[tuple[str, dict[str, str], dict[str, str]]]:  # noqa: ANN401
    params = {p["name"]: p["value"] for p in task_run["params"] if p["source"] == PARAM}
    yield "param", {key: storable(mask_value(key, value)) for key, value in run.data.params.items()}, params
    not_compared = OWN_TAGS | {MODELS_TAG}
    tags = {t["name"]: t["value"] for t in task_run["tags"] if t["name"] not in not_compared}
    own = {key: storable(mask_value(key, value)) for key, value in run.data.tags.items() if key not in not_compared}
    yield "tag", own, tags
    models = dict.fromkeys(models_of(run), "logged")
    known = {artifact["name"] for artifact in task_run["artifacts"]}
    yield "model", models, {name: "logged" for name in models if f"{MODEL}{name}" in known}
    inputs = getattr(run, "inputs", None)
    datasets = {_dataset(i.dataset.name, i.dataset.digest): "read" for i in (inputs.dataset_inputs if inputs else ())}
    read = [d["data_schema"] or {} for d in task_run["datasets"] if d["operation_source"] == "mlflow"]
    yield "dataset", datasets, {_dataset(facts.get("name"), facts.get("digest")): "read" for facts in read}


def _dataset(name: object, digest: object) -> str:
    return storable(f"{name} ({digest})")


def _point(timestamp: float, step: float | None, value: object) -> Point:
    # A number, or the words of the read API: "NaN", "Infinity". Databases keep no negative zero: adding zero ends it.
    number = float(value) + 0.0  # type: ignore[arg-type]
    if abs(number) >= _LARGEST:
        number = float("inf") if number > 0 else float("-inf")
    return int(timestamp), int(step or 0), repr(number)


def _points_text(points: list[Point]) -> str:
    if not points:
        return "all of the other's"
    timestamp, step, value = points[0]
    more = f" and {len(points) - 1} more" if len(points) > 1 else ""
    return f"{value} at step {step}, {timestamp} ms{more}"
