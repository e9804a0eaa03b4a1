"""What MLflow and the tracker say of one run, in forms in which they can be compared.

Each side says texts by kind and name, such as ``{("param", "lr"): "0.1"}``, and the points of its metrics. Where they
differ, ``dbnd mlflow verify`` shows it, and ``dbnd mlflow import`` sends what MLflow says.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from collections.abc import Set as AbstractSet
from typing import Any, Final

from mlflow.utils.validation import MAX_PARAM_VAL_LENGTH, MAX_TAG_VAL_LENGTH

from dbnd.plugins import mask_value
from dbnd.tracking import EDITED_TAG, LATEST, Reader, Source, storable

from .._durable.ids import FIRST_ID
from .._reporting.artifacts import MODEL
from .._reporting.derived import integer_of, name_of, note_of, source_of, text_of, uid_of, user_of
from .._reporting.tags import LIFECYCLE, MADE_FOR, MODELS, OWN_TAGS, Link

Key = tuple[str, str]
"""A kind, such as "param", and a name."""
Texts = dict[Key, str]
Point = tuple[int, int, str]
"""Time in ms, step and value of a point."""

_LONGEST: Final = {"param": MAX_PARAM_VAL_LENGTH, "tag": MAX_TAG_VAL_LENGTH}
_UNCOMPARED: Final = frozenset(("tag", name) for name in OWN_TAGS | {MODELS})
# Kinds of which the tracker must not have more than MLflow.
_ON_BOTH_SIDES: Final = frozenset({"param", "tag", "dataset", "parent"})
# SQL databases hold no infinity: MLflow puts the largest double in its place.
_LARGEST: Final = 1.7976931348623157e308
# A time beyond the calendar, in ms since the epoch, is its last one for the tracker.
_LATEST: Final = LATEST // 1000
# Fields of a run: their keys in the tracker's answers.
_FIELDS: Final = {
    "name": "name",
    "experiment": "project_name",
    "description": "description",
    "user": "user",
    "job": "job_name",
}


def task_run_of(run: Any, reader: Reader) -> dict[str, Any] | None:
    """The task run that an MLflow run is reported as, with everything it logged; None if the tracker has none.

    Raises:
        DatabandError: The tracker cannot be read.
    """
    run_id, tags = run.info.run_id, run.data.tags
    link = Link.of(run)
    found = None if link is None else reader.task_run(link.task_run_uid)
    if MADE_FOR not in tags and (unnamed := Link.in_tags(tags)) is not None:
        # Databand 2.0 did not say for which run the tags were made; the tracker does.
        task_run = reader.task_run(unnamed.task_run_uid)
        if task_run is not None and str(task_run["links"].get("mlflow")).endswith(f"/runs/{run_id}"):
            found = task_run
    found = found or reader.task_run(uid_of(run_id))
    # A process that began it while the store was away may have been killed before it told the links.
    return found or (reader.task_run(uid_of(tags[FIRST_ID])) if FIRST_ID in tags else None)


def differences(
    mlflow: Texts, tracker: Texts, edited: AbstractSet[Key] = frozenset()
) -> Iterator[tuple[Key, str | None, str | None]]:
    """The keys of which the tracker says something else than MLflow, and what each side says, or None.

    What people have ``edited`` in the tracker is meant to differ.
    """
    for key in sorted({*mlflow, *(key for key in tracker if key[0] in _ON_BOTH_SIDES)} - edited):
        left, right = mlflow.get(key), tracker.get(key)
        # MLflow's stores cut what is too long.
        is_cut = left is not None and right is not None and len(left) == _LONGEST.get(key[0]) and right.startswith(left)
        if left != right and not is_cut:
            yield key, left, right


def logged_to_mlflow(run: Any) -> Texts:
    """Params, tags, datasets and models of an MLflow run, as they are reported and kept, and its lifecycle stage."""
    found = {
        (what, name): storable(mask_value(name, text_of(text)))  # SQLite keeps bytes as such
        for what, texts in (("param", run.data.params), ("tag", run.data.tags))
        for name, text in texts.items()
        if (what, name) not in _UNCOMPARED
    }
    found |= {("dataset", name): "read" for name in datasets_of(run)}
    found |= {("model", name): "logged" for name in models_of(run)}
    return found | {("stage", ""): run.info.lifecycle_stage}


def logged_to_tracker(task_run: dict[str, Any]) -> Texts:
    """The same of a task run."""
    tags = {("tag", tag["name"]): tag["value"] for tag in task_run["tags"]}
    found = {key: text for key, text in tags.items() if key not in _UNCOMPARED}
    found |= {("param", p["name"]): p["value"] for p in task_run["params"] if p["source"] == Source.PARAM}
    read = [each["data_schema"] or {} for each in task_run["datasets"] if each["operation_source"] == Source.METRIC]
    for name, count in Counter(_dataset(each.get("name"), each.get("digest")) for each in read).items():
        found["dataset", name] = "read" if count == 1 else f"read {count} times"
    artifacts = [artifact["name"] for artifact in task_run["artifacts"]]
    found |= {("model", name.removeprefix(MODEL)): "logged" for name in artifacts if name.startswith(MODEL)}
    return found | {("stage", ""): tags.get(("tag", LIFECYCLE), "active")}


def edited_in_tracker(task_run: dict[str, Any]) -> set[Key]:
    """What people have changed in the tracker of the run of a task run."""
    noted = next((tag["value"] for tag in task_run["tags"] if tag["name"] == EDITED_TAG), None)
    try:
        names = [str(name) for name in json.loads(noted or "[]")]
    except (ValueError, TypeError):  # a tag that anyone may set
        return set()
    return {("tag", name.removeprefix("tags.")) if name.startswith("tags.") else (name, "") for name in names}


def fields_of_mlflow(run: Any, experiment: str) -> Texts:
    """Fields of an MLflow run that is a run of its own in the tracker, as far as MLflow has them."""
    tags = run.data.tags
    values = (name_of(run.info), storable(experiment), note_of(tags), user_of(run), source_of(tags))
    return {(what, ""): value for what, value in zip(_FIELDS, values, strict=True) if value}


def fields_of_tracker(summary: dict[str, Any]) -> Texts:
    """The same of the tracker's run."""
    return {(what, ""): summary[key] for what, key in _FIELDS.items() if summary.get(key) is not None}


def datasets_of(run: Any) -> dict[str, Any]:
    """The inputs of an MLflow run that are datasets, by the name and digest of these."""
    inputs = getattr(run, "inputs", None)
    given = inputs.dataset_inputs if inputs else ()
    return {_dataset(storable(each.dataset.name), storable(each.dataset.digest)): each for each in given}


def _dataset(name: str | None, digest: str | None) -> str:
    return f"{name} ({digest})"


def models_of(run: Any) -> list[str]:
    """The artifact paths of a run's models, as stores before MLflow 3 list them in a tag."""
    try:
        listed = json.loads(run.data.tags.get(MODELS, "[]"))
    except ValueError:  # a tag that anyone may set
        return []
    entries = [entry for entry in listed if isinstance(entry, dict)] if isinstance(listed, list) else []
    return sorted({str(entry["artifact_path"]) for entry in entries if "artifact_path" in entry})


def number_of(value: object) -> float:
    """A metric's value as MLflow means it, from a number or its word in the read API: "NaN", "Infinity".

    Raises:
        ValueError, TypeError: It is no number.
    """
    # Databases keep no negative zero: adding zero ends it.
    number = float(value) + 0.0  # type: ignore[arg-type]
    if abs(number) >= _LARGEST:
        return float("inf") if number > 0 else float("-inf")
    return number


def point_of(timestamp: object, step: object, value: object) -> Point:
    """A point by which both sides know it."""
    try:
        text = repr(number_of(value))
    except (TypeError, ValueError):  # logged under the same name by dbnd, which takes any value
        text = repr(value)
    return min(int(integer_of(timestamp)), _LATEST), int(integer_of(step)), text


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
