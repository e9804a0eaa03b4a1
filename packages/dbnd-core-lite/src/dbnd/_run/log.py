"""``log_metric``, ``log_metrics`` and ``log_artifact``: logging into the current task run."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timezone

from dbnd._base.clock import micros
from dbnd._base.environment import readable
from dbnd._base.errors import DatabandError
from dbnd._base.paths import absolute
from dbnd._context.current import current_task_run, get_databand_context
from dbnd._context.registry import configured_url, get_client, load_config
from dbnd._model.points import group, point
from dbnd._model.run import ParentTaskRun
from dbnd._model.values import of_user, preview
from dbnd._terminal import console
from dbnd._tracking.client import TrackingAPIClient


def log_metric(key: str, value: object, *, step: int | None = None, timestamp: datetime | None = None) -> None:
    """Log one metric of the current task run; outside of a run it does nothing.

    A process that a task has started logs into the task run that started it.

    Args:
        key: Name of the metric.
        value: A number, text, None, or anything that JSON can hold.
        step: Training step.
        timestamp: Time of the value; now if None.
    """
    _log(lambda: [(key, value)], step, timestamp)


def log_metrics(metrics: Mapping[str, object], *, step: int | None = None, timestamp: datetime | None = None) -> None:
    """Log several metrics of the current task run as one event.

    Args:
        metrics: Values by key.
        step: Training step of all of them.
        timestamp: Time of all of them; now if None.
    """
    _log(lambda: metrics.items(), step, timestamp)  # noqa: PLW0108  it may be no mapping at all


def _log(metrics: Callable[[], Iterable[tuple[object, object]]], step: int | None, timestamp: datetime | None) -> None:
    target = _target()
    if target is None:
        return
    client, attempt_uid = target
    try:
        time_us = time.time_ns() // 1000 if timestamp is None else _micros_of(timestamp)
        points = [point(key if type(key) is str else _text(key), value, time_us, step) for key, value in metrics()]
        logged = group(attempt_uid, "user", points)
    except Exception as error:  # noqa: BLE001  a mapping of the user's may raise anything; the training goes on
        client.drop("log_metrics", error)
    else:
        client.log_metrics([logged])


def log_artifact(name: str, path: str | os.PathLike[str]) -> None:
    """Log where an artifact of the current task run stands; its content is neither read nor sent.

    Args:
        name: Name of the artifact.
        path: A local path, made absolute, or a URI.
    """
    target = _target()
    if target is None:
        return
    client, attempt_uid = target
    try:
        address = os.fsdecode(path)
        if "://" not in address:
            address = readable(str(absolute(address)))
    except Exception as error:  # noqa: BLE001  a path of the user's may raise anything; the training goes on
        client.drop("log_artifact", error)
    else:
        client.log_artifact(attempt_uid, _text(name), address)


def _text(key: object) -> str:
    return of_user(str, key, otherwise=lambda: preview(key))


def _micros_of(timestamp: datetime) -> int:
    """``timestamp`` in µs since the epoch; now where it cannot be understood."""

    def micros_of(timestamp: datetime) -> int:
        try:
            # As one of Python's own: pandas' takes no time without a zone.
            return micros(datetime.combine(timestamp.date(), timestamp.timetz()).astimezone(timezone.utc))
        except (OverflowError, ValueError):  # at an end of the calendar
            return int(micros(timestamp.replace(tzinfo=timezone.utc)))  # that of pandas' NaT is NaN

    def now() -> int:
        console.warn_once("A timestamp that is no datetime is left out; its value is kept with the time of the call.")
        return time.time_ns() // 1000

    return of_user(micros_of, timestamp, otherwise=now)


def _target() -> tuple[TrackingAPIClient, str] | None:
    """The client and the attempt to log into, or None when nothing is tracked."""
    task_run, context = current_task_run(), get_databand_context()
    if task_run is not None and context is not None:
        return None if context.client is None else (context.client, task_run.attempt_uid)
    starter = ParentTaskRun.of_environment()
    if starter is not None:
        client = _client_of_environment()
        return None if client is None else (client, starter.attempt_uid)
    _say_untracked()
    return None


@functools.cache
def _say_untracked() -> None:
    console.info("Something was logged outside of a run, and is not tracked: use `dbnd run` or dbnd_tracking().")


@functools.cache
def _client_of_environment() -> TrackingAPIClient | None:
    """The client of a process that a task has started and that has no context of its own."""
    try:
        config = load_config()
        url = configured_url(config)
        return None if url is None else get_client(url, config)
    except DatabandError as error:
        console.warning(f"Nothing is tracked: {error}")
        return None
