"""What MLflow and the tracker say of one run, in a form in which it can be compared."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any, Final

from mlflow.utils.validation import MAX_PARAM_VAL_LENGTH, MAX_TAG_VAL_LENGTH

from dbnd.plugins import mask_value
from dbnd.tracking import storable

from .._reporting.reporter import METRIC, OWN_TAGS, PARAM

MODELS_TAG: Final = "mlflow.log-model.history"
"""The tag in which stores before MLflow 3 list a run's models, by themselves; the tracker has them as artifacts."""
_LONGEST: Final = {"param": MAX_PARAM_VAL_LENGTH, "tag": MAX_TAG_VAL_LENGTH}
# SQL databases hold no infinity: MLflow puts the largest double in its place.
_LARGEST: Final = 1.7976931348623157e308

Point = tuple[int, int, str]
"""Time in ms, step and value of a point."""
Texts = dict[str, str]


def number_of(value: object) -> float:
    """A metric's value as MLflow means it.

    Args:
        value: A number, or the word of the read API for one that JSON cannot carry: "NaN", "Infinity".

    Raises:
        ValueError, TypeError: It is no number.
    """
    # Databases keep no negative zero: adding zero ends it.
    number = float(value) + 0.0  # type: ignore[arg-type]
    if abs(number) >= _LARGEST:
        return float("inf") if number > 0 else float("-inf")
    return number


def point_of(timestamp: float, step: float | None, value: object) -> Point:
    """A point by which both sides know it."""
    try:
        text = repr(number_of(value))
    except (TypeError, ValueError):  # logged under the same name by dbnd, which takes any value
        text = repr(value)
    return int(timestamp), int(step or 0), text


def points_of_mlflow(history: Iterable[Any]) -> dict[Point, Any]:
    """MLflow's points with the metric of each: what only a file store keeps twice counts once."""
    return {point_of(m.timestamp, m.step, m.value): m for m in history}


def points_of_tracker(points: Iterable[dict[str, Any]]) -> Counter[Point]:
    """How often the tracker has each point; points that MLflow cannot tell apart count as one."""
    raw = Counter((p["timestamp"], p["step"] or 0, _hashable(p["value"])) for p in points)
    found: Counter[Point] = Counter()
    for each, count in raw.items():
        point = point_of(*each)
        found[point] = max(found[point], count)
    return found


def _hashable(value: Any) -> Any:
    return value if isinstance(value, (int, float, str)) else repr(value)


def texts_of_mlflow(run: Any) -> dict[str, Texts]:
    """Params and tags of an MLflow run, as they are reported and kept."""
    tags = {key: value for key, value in run.data.tags.items() if key not in OWN_TAGS and key != MODELS_TAG}
    found = {"param": run.data.params, "tag": tags}
    return {
        what: {key: storable(mask_value(key, value)) for key, value in texts.items()} for what, texts in found.items()
    }


def texts_of_tracker(task_run: dict[str, Any]) -> dict[str, Texts]:
    """Params and tags of a task run that came from MLflow."""
    tags = {t["name"]: t["value"] for t in task_run["tags"] if t["name"] not in OWN_TAGS and t["name"] != MODELS_TAG}
    return {"param": {p["name"]: p["value"] for p in task_run["params"] if p["source"] == PARAM}, "tag": tags}


def is_same(what: str, mlflow: str | None, tracker: str | None) -> bool:
    """Whether both sides have the same param or tag: a store cuts what is too long, the tracker has the whole."""
    if mlflow == tracker:
        return True
    return tracker is not None and mlflow is not None and len(mlflow) == _LONGEST[what] and tracker.startswith(mlflow)


def datasets_of_mlflow(run: Any) -> dict[tuple[str, str], Any]:
    """The datasets that an MLflow run has read, by name and digest."""
    inputs = getattr(run, "inputs", None)
    return {
        (storable(i.dataset.name), storable(i.dataset.digest)): i.dataset
        for i in (inputs.dataset_inputs if inputs else ())
    }


def datasets_of_tracker(task_run: dict[str, Any]) -> Counter[tuple[str, str]]:
    """How often a task run has read each of MLflow's datasets, by name and digest."""
    read = [d["data_schema"] or {} for d in task_run["datasets"] if d["operation_source"] == METRIC]
    return Counter((str(facts.get("name")), str(facts.get("digest"))) for facts in read)
