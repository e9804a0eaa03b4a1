"""Points in the protocol's form, some 300 bytes each, as groups of our own client's form.

A schema decides what is right, but takes several times as long as storing the points does. So a body is first tried
with types that are checked while its JSON is read, which nearly all are of; the others go through the schema.
"""

from __future__ import annotations

import time
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec

from dbnd.tracking import LARGEST_STEP, Mark, micros
from dbnd_tracker._errors import PayloadError
from dbnd_tracker._ingest.points import TEXT_SOURCES, from_groups

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dbnd_tracker._ingest.points import Group
    from dbnd_tracker._schemas.logged import Metric, MetricInfo


class _Metric(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """A metric whose value is a number; there is no field for the text of params and tags."""

    key: str
    timestamp: Annotated[datetime, msgspec.Meta(tz=True)]
    value: Any = None
    value_int: int | None = None
    value_float: float | None = None
    value_str: None = None
    value_json: None = None
    source: str | None = None
    step: Annotated[int, msgspec.Meta(ge=-LARGEST_STEP - 1, le=LARGEST_STEP)] | None = None


class _Info(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """A metric and the attempt that logged it."""

    task_run_attempt_uid: str
    metric: _Metric
    source: str | None = None
    target_meta_uid: None = None


class _Body(msgspec.Struct, forbid_unknown_fields=True):
    metrics_info: list[_Info]


_DECODER: Final = msgspec.json.Decoder(_Body)


def plain(raw: bytes) -> list[Group] | None:
    """Points of the body of ``log_metrics`` if each is a number and nothing unusual; else None."""
    groups: dict[tuple[str, str | None], list[Any]] = {}
    try:
        for info in _DECODER.decode(raw).metrics_info:
            metric = info.metric
            value = metric.value_int if metric.value_float is None else metric.value_float
            if value is None:
                return None
            name = (info.task_run_attempt_uid, info.source or metric.source)
            members = groups.get(name) or groups.setdefault(name, [])
            members += (metric.key, value, micros(metric.timestamp), metric.step, None)
        found = from_groups([[*name, members] for name, members in groups.items()])
    except (msgspec.MsgspecError, RecursionError, PayloadError):
        return None
    return None if any(group.source in TEXT_SOURCES for group in found) else found


def of_metrics(infos: Iterable[MetricInfo]) -> list[Group]:
    """Points that the schema has found right."""
    groups: dict[tuple[str, str | None], list[Any]] = {}
    now_us = time.time_ns() // 1000
    for info in infos:
        metric = info.metric
        source = info.source or metric.source
        value = _text(metric) if source in TEXT_SOURCES else metric.chosen()
        mark = None if type(value) in {int, float} else Mark.TEXT if isinstance(value, str) else Mark.JSON
        if source in TEXT_SOURCES and metric.deleted:
            value, mark = "", Mark.DELETED
        time_us = now_us if metric.timestamp is None else micros(metric.timestamp)
        members = groups.setdefault((info.task_run_attempt_uid, source), [])
        members += (metric.key, value, time_us, metric.step, mark)
    return from_groups([[*name, members] for name, members in groups.items()])


def _text(metric: Metric) -> object:
    """The value of a param or tag: its text as it was logged where that is known."""
    texts = (metric.text, metric.value_str, metric.value)
    return next((text for text in texts if isinstance(text, str)), metric.chosen())
