"""The plugin's hooks. Imported by every ``dbnd`` command, so it imports MLflow only when tracking is switched on."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from dbnd import Command, hookimpl

if TYPE_CHECKING:
    from dbnd import DatabandContext, Settings, TaskRun


@hookimpl
def dbnd_commands() -> Iterable[Command]:
    """Commands that compare the two sides, and that bring older runs over."""
    return (
        Command(
            "mlflow", "dbnd_mlflow._commands.cli:mlflow", "Compare MLflow's runs with the tracker's; import older ones."
        ),
    )


@hookimpl
def dbnd_settings() -> Iterable[type[Settings]]:
    """The section ``[mlflow_tracking]``."""
    from ._settings import MlflowTrackingSettings

    return (MlflowTrackingSettings,)


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
    import sys

    # Never imported means never switched on.
    switch = sys.modules.get(f"{__package__}._store.switch")
    if switch is not None:
        switch.switch_off(ctx)


@hookimpl
def dbnd_task_run_context(task_run: TaskRun) -> AbstractContextManager[None] | None:
    """End MLflow runs that the run's root task leaves open."""
    import sys

    switch = sys.modules.get(f"{__package__}._store.switch")
    if switch is None or not task_run.is_root:
        return None
    context: AbstractContextManager[None] = switch.ending_active_runs()
    return context
