"""The plugin's hooks. Imported by every ``dbnd`` command, so it imports MLflow only when tracking is switched on."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from dbnd import Command, hookimpl

if TYPE_CHECKING:
    from dbnd import Config, DatabandContext, Settings, TaskRun
    from dbnd.tracking import Destination, Transport, TransportFactory


@hookimpl
def dbnd_commands() -> Iterable[Command]:
    text = "Compare MLflow's runs with the tracker's; import older ones; print the URI that tracks them."
    return (Command("mlflow", "dbnd_mlflow._commands.cli:mlflow", text),)


@hookimpl
def dbnd_settings() -> Iterable[type[Settings]]:
    from ._settings import MlflowTrackingSettings

    return (MlflowTrackingSettings,)


@hookimpl
def dbnd_transports() -> Mapping[str, TransportFactory]:
    return {"mlflow": _store_transport}


@hookimpl
def dbnd_destination(url: str, config: Config) -> Destination | None:
    from ._durable.urls import destination

    return destination(url, config)


def _store_transport(url: str, config: Config) -> Transport:
    import functools

    from ._durable.transport import MlflowTransport
    from ._durable.urls import parsed
    from ._reporting.pairs import report_pair

    return MlflowTransport(url, config, functools.partial(report_pair, config, parsed(url)[0]))


@hookimpl
def dbnd_on_pre_init_context(ctx: DatabandContext) -> None:
    """Set the composite URI, if ``mlflow_tracking.databand_tracking`` is on."""
    from ._settings import MlflowTrackingSettings

    if ctx.config.settings(MlflowTrackingSettings).databand_tracking:
        from ._store.switch import switch_on

        switch_on(ctx)


@hookimpl
def dbnd_on_exit_context(ctx: DatabandContext) -> None:
    """Restore the tracking URI that was set before the context."""
    if (switch := _switch()) is not None:
        switch.switch_off(ctx)


@hookimpl
def dbnd_task_run_context(task_run: TaskRun) -> AbstractContextManager[None] | None:
    """End MLflow runs that the run's root task leaves open."""
    switch = _switch() if task_run.is_root else None
    return None if switch is None else switch.ending_active_runs()


def _switch() -> Any:
    """The module that switches MLflow; None where it was never imported, and nothing is switched on."""
    return sys.modules.get(f"{__package__}._store.switch")
