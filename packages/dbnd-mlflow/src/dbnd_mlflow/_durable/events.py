"""Writes to an MLflow store as events of a journal, and back.

Metrics, params and tags are groups of points, as the tracker's are (``[run id, kind, flat points]``), so that a batch
gathers those of many calls. Their times are in ms since the epoch, as MLflow's. Any other write is an event of its own,
named after the store's method, with its arguments by name.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Iterator
from numbers import Integral
from typing import Any, Final

from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.utils.proto_json_utils import message_to_json, parse_dict
from mlflow.utils.validation import MAX_ENTITY_KEY_LENGTH

from dbnd.tracking import Group, points_of

POINTS: Final = "log_metrics"
PARAM: Final = "param"
TAG: Final = "tag"
METRIC: Final = "metric"
REPEATED: Final = "repeated"
EXTRAS: Final = ("model_id", "dataset_name", "dataset_digest")
"""What a metric may carry beside its value, where MLflow has it."""
_LONG: Final = 1 << 63


def metric_group(run_id: str, metrics: Iterable[Any], *, is_repeated: bool = False) -> list[Group]:
    """Groups of metrics; those that belong to a model or a dataset have groups of their own.

    They are ``is_repeated`` if the store may have taken them: it was asked, and has not answered.
    """
    groups: list[Group] = []
    for metric in metrics:
        extras = [getattr(metric, name, None) for name in EXTRAS]
        kind = METRIC if extras == [None, None, None] else [METRIC, *extras]
        if is_repeated:
            kind = [METRIC, *extras, REPEATED]
        if not groups or groups[-1][1] != kind:
            groups.append([run_id, kind, []])
        groups[-1][2] += (metric.key, float(metric.value), int(metric.timestamp), int(metric.step), None)
    return groups


def text_group(run_id: str, kind: str, entities: Iterable[Any]) -> list[Group]:
    """The group of params or tags; none where there are none."""
    texts = [part for each in entities for part in (each.key, str(each.value), 0, None, None)]
    return [[run_id, kind, texts]] if texts else []


def entities_of(group: Group) -> Iterator[Any]:
    """MLflow's metrics, params or tags of a group."""
    kind = group[1]
    if not is_metrics(group):
        entity = Param if kind == PARAM else RunTag
        return (entity(key, text) for key, text, *_ in points_of(group))
    extras = {} if kind == METRIC else {name: value for name, value in zip(EXTRAS, kind[1:], strict=False) if value}
    return (Metric(key, float(value), time, step or 0, **extras) for key, value, time, step, _ in points_of(group))


def is_metrics(group: Group) -> bool:
    """Whether a group holds metrics, and not params or tags."""
    return group[1] not in (PARAM, TAG)


def kind_of(group: Group, *, is_doubtful: bool) -> str:
    """PARAM, TAG, METRIC, or REPEATED for metrics that the store may have taken: before they were kept, or since."""
    if not is_metrics(group):
        return str(group[1])
    is_repeated = group[1] != METRIC and len(group[1]) > 1 + len(EXTRAS)
    return REPEATED if is_doubtful or is_repeated else METRIC


def kept_points(waiting: Iterable[Any], run_id: str, key: str, expected: int) -> Any:
    """The points of a metric, in the order of MLflow's stores, from the events that wait.

    None unless all of the events wait that the run has logged, of which there are ``expected``.
    """
    from mlflow.store.entities.paged_list import PagedList

    found, events_of_run = [], 0
    for record in waiting:
        if record.trouble:  # it is damaged, or cannot be read: nobody knows whose it is
            return None
        if record.call != POINTS:
            events_of_run += record.body.get("run_id") == run_id
            continue
        groups = [group for group in record.body if group[0] == run_id]
        events_of_run += bool(groups)
        found += [m for group in groups if is_metrics(group) for m in entities_of(group) if m.key == key]
    return PagedList(found, None) if events_of_run == expected else None


def inputs(entities: Iterable[Any] | None) -> list[Any]:
    """Datasets, and models as inputs or outputs, in a form for JSON."""
    return [[type(each).__name__, json.loads(message_to_json(each.to_proto()))] for each in entities or ()]


def inputs_of(values: Iterable[Any]) -> list[Any]:
    """MLflow's entities of what ``inputs`` has made."""
    return [_entity(name, value) for name, value in values]


def _entity(name: str, value: dict[str, Any]) -> Any:
    import mlflow.entities

    entity = getattr(mlflow.entities, name)
    if entity is DatasetInput:  # MLflow 2.9 reads what a message lacks as empty text
        return DatasetInput(Dataset(**value["dataset"]), [InputTag(**tag) for tag in value.get("tags", ())])
    message = _message_of(entity)()
    parse_dict(value, message)
    return entity.from_proto(message)


@functools.cache
def _message_of(entity: Any) -> Any:
    from mlflow.protos import service_pb2

    names = {"LoggedModelInput": "ModelInput", "LoggedModelOutput": "ModelOutput"}
    return getattr(service_pb2, names.get(entity.__name__, entity.__name__))


def is_text(*values: object) -> bool:
    """Whether all of these are text that a journal keeps as it is."""
    for value in values:
        if not isinstance(value, str) or "\0" in value:
            return False
        try:
            value.isascii() or value.encode()
        except UnicodeEncodeError:
            return False
    return True


def is_text_or_none(*values: object) -> bool:
    """Whether all of these are text that a journal keeps as it is, or None."""
    return is_text(*(value for value in values if value is not None))


def is_long(value: object) -> bool:
    """Whether a value is a whole number of 64 bits, as times and steps are."""
    is_whole = type(value) is int or (isinstance(value, Integral) and not isinstance(value, bool))
    return is_whole and -_LONG <= value < _LONG  # type: ignore[operator]


def are_usual(metrics: Iterable[Any], texts: Iterable[Any]) -> bool:
    """Whether every store takes these metrics, and these params or tags, and a journal keeps them as they are."""
    return all(_is_usual(m) for m in metrics) and all(_is_key(each.key) and is_text(each.value) for each in texts)


def are_usual_inputs(datasets: Any) -> bool:
    """The same of datasets."""
    if datasets is None:
        return True
    found = [value for each in datasets for value in vars(each.dataset).values()]
    tags = [text for each in datasets for tag in each.tags for text in (tag.key, tag.value)]
    # Only an SQL store refuses a key that is given twice.
    is_twice = any(len({tag.key for tag in each.tags}) < len(each.tags) for each in datasets)
    if not isinstance(datasets, list) or "" in found or is_twice:
        return False
    return is_text_or_none(*found) and is_text(*tags)


def have_no_place(known: dict[str, Any], entities: Iterable[Any]) -> bool:
    """Whether a store of files that has what is ``known`` has no place for some: no file has the name of a folder."""
    new = {entity.key for entity in entities} - known.keys()
    keys = {*known.copy(), *new} if new else new  # a copy, as threads log meanwhile
    folders = {key[:end] for key in new for end, sign in enumerate(key) if sign == "/"}
    return not folders.isdisjoint(keys) or any(key.startswith(f"{each}/") for each in new for key in keys)


def _is_key(key: object) -> bool:
    # A file store gives a file the name, and files have names of few bytes.
    return is_text(key) and len(str(key).encode()) <= MAX_ENTITY_KEY_LENGTH


def _is_usual(metric: Any) -> bool:
    value = metric.value
    if type(value) is not float:
        try:
            float(value)
        except (TypeError, ValueError, OverflowError):
            return False
        if isinstance(value, (str, bytes, bool)) or (isinstance(value, Integral) and not is_long(value)):
            return False
    more = [getattr(metric, name, None) for name in EXTRAS]
    are_names = "" not in more and is_text_or_none(*more)
    return are_names and _is_key(metric.key) and is_long(metric.timestamp) and is_long(metric.step)
