"""Switching MLflow to the composite URI and back."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import mlflow
from mlflow.tracking._tracking_service import utils as mlflow_tracking

from dbnd import Config, DatabandContext
from dbnd.plugins import console, mask_text
from dbnd.tracking import configured_url, current_config

from .._reporting.runs import is_reported
from .._settings import DIRECT, MlflowTrackingSettings
from .._uri import build_composite_uri, is_composite_uri, parse_composite_uri
from . import explicit

_ENVIRONMENT: Final = "MLFLOW_TRACKING_URI"


# The tracking URIs that MLflow and the environment were set to, by the owner of those in their place:
# set_tracking_uri() changes both. And the run that was active, which goes on afterwards.
_before: Final[dict[int, tuple[str | None, str | None, str | None]]] = {}
# The key of what enable_dbnd_for_mlflow_tracking() has replaced: no context's id.
_BY_HAND: Final = 0


def enable_dbnd_for_mlflow_tracking() -> bool:
    """Track what MLflow logs from here on, as ``mlflow_tracking.databand_tracking`` configures it.

    Returns:
        Whether tracking is on: False when ``mlflow_tracking.databand_tracking`` is off, or there is no tracker.

    Raises:
        ConfigError: The configuration cannot be used.
    """
    config = current_config()
    return config.settings(MlflowTrackingSettings).databand_tracking and _set(_BY_HAND, config)


def disable_dbnd_for_mlflow_tracking() -> None:
    """Undo ``enable_dbnd_for_mlflow_tracking()``: MLflow's tracking URI is what it was."""
    _restore(_BY_HAND)


def switch_on(ctx: DatabandContext) -> None:
    """Set the composite URI for the time of a context."""
    _set(id(ctx), ctx.config)


def switch_off(ctx: DatabandContext) -> None:
    """Restore what ``switch_on`` has replaced; nothing if it has replaced nothing."""
    if id(ctx) in _before:
        try:
            _end_active_runs("FINISHED" if sys.exc_info()[1] is None else "FAILED", _before[id(ctx)][-1])
        finally:
            _restore(id(ctx))


@contextmanager
def ending_active_runs() -> Iterator[None]:
    """End, with the block, the MLflow runs that it has begun and leaves open.

    MLflow ends them only at the exit of the process, by the tracking URI that is set then: with the URI restored it
    would not find them.
    """
    before = _active_run_id()
    try:
        yield
    except BaseException:
        _end_active_runs("FAILED", before)
        raise
    _end_active_runs("FINISHED", before)


def _active_run_id() -> str | None:
    run = mlflow.active_run()
    return None if run is None else str(run.info.run_id)


def _end_active_runs(status: str, before: str | None) -> None:
    """End the active runs down to the one that was active ``before``."""
    while (run_id := _active_run_id()) not in {None, before} and is_reported(str(run_id)):
        try:
            mlflow.end_run(status)  # no longer active, even if that fails
        except Exception as error:  # noqa: BLE001  of a run that was deleted, say, or a store that is gone
            reason = mask_text(f"{type(error).__name__}: {error}")
            console.warning(f"The MLflow run {run_id}, which was left open, could not be ended ({reason}).")


def _set(owner: int, config: Config) -> bool:
    url = configured_url(config)
    if url is None:
        return False
    settings = config.settings(MlflowTrackingSettings)
    own, writes = settings.duplicate_tracking_to, settings.store_writes
    if own is None:
        own = mlflow.get_tracking_uri()
        if is_composite_uri(own):  # inherited from a process that is tracked
            own = parse_composite_uri(own).duplicate_tracking_to
    # A second call without a restore between keeps what was there first.
    uri = getattr(mlflow_tracking, "_tracking_uri", None)
    _before.setdefault(owner, (uri, os.environ.get(_ENVIRONMENT), _active_run_id()))
    uri = build_composite_uri(url, own, None if writes == DIRECT else writes)
    mlflow.set_tracking_uri(uri)
    os.environ[_ENVIRONMENT] = uri  # for child processes; MLflow 2.9 does not do so itself
    explicit.begin(owner, uri)
    return True


def _restore(owner: int) -> None:
    if owner not in _before:
        return
    since = list(_before)[list(_before).index(owner) + 1 :]
    uri, environment, _ = _before.pop(owner)
    explicit.end(owner)
    if since:  # a context that was entered later goes on, and what this one has found is there after that
        _before[since[0]] = (uri, environment, _before[since[0]][-1])
        return
    mlflow.set_tracking_uri(uri)  # type: ignore[arg-type]  # None is how MLflow itself unsets it
    if environment is None:
        os.environ.pop(_ENVIRONMENT, None)
    else:
        os.environ[_ENVIRONMENT] = environment
