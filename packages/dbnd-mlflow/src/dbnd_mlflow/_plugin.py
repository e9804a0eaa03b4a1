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


def _store_transport(url: str, config: Config) -> Transport:
    import functools

    from ._durable.transport import MlflowTransport
    from ._reporting.pairs import report_pair
    from ._uri import parse_journal_url

    return MlflowTransport(url, config, functools.partial(report_pair, config, parse_journal_url(url)[0]))


@hookimpl
def dbnd_destination(url: str, config: Config) -> Destination | None:
    """Send writes to the configured store, with its credentials, and to databases and folders of this machine."""
    from dbnd.tracking import Destination

    from ._settings import configured_uri
    from ._uri import JOURNAL_SCHEME, absolute_uri, build_journal_url, parse_journal_url, store_name, without_user

    if url.partition(":")[0] != JOURNAL_SCHEME:
        return None
    uri, workspace = parse_journal_url(url)
    configured, bare = configured_uri(config), without_user(uri)
    own = absolute_uri(configured) if configured else ""
    is_local = uri.startswith(("sqlite:", "sqlite+", "/"))
    found = own if own and without_user(own) == bare else uri if is_local else None
    hint = f"`dbnd sync --set-config mlflow_tracking.duplicate_tracking_to={bare}` sends them"
    return Destination(store_name(uri), None if found is None else build_journal_url(found, workspace), hint)


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
