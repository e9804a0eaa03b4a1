"""Core's own commands, settings and transport, contributed through the same hooks as any plugin's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from dbnd._context.hooks import Command, hookimpl

if TYPE_CHECKING:
    from dbnd._config.config import Config
    from dbnd._config.settings import Settings
    from dbnd._model.run import TaskRun
    from dbnd._tracking.contracts import Destination, Transport, TransportFactory


@hookimpl
def dbnd_commands() -> Iterable[Command]:
    """Core's commands."""
    return (
        Command("run", "dbnd._cli.run:run", "Run a task and track it."),
        Command("sync", "dbnd._cli.sync:sync", "Deliver what earlier processes could not deliver."),
        Command("doctor", "dbnd._cli.doctor:doctor", "Check configuration, tracker, credentials, journals and disk."),
        Command("config", "dbnd._cli.config:config", "Show the configuration and where each value came from."),
        Command("init", "dbnd._cli.init:init", "Write a commented databand.cfg."),
        Command("completion", "dbnd._cli.main:completion", "Print the completion script of a shell."),
        Command("plugins", "dbnd._cli.config:plugins", "List the plugins and the hooks that they implement."),
    )


@hookimpl
def dbnd_settings() -> Iterable[type[Settings]]:
    """Core's sections."""
    from dbnd._config.settings import CORE_SECTIONS

    return CORE_SECTIONS


@hookimpl
def dbnd_transports() -> Mapping[str, TransportFactory]:
    """Trackers behind HTTP."""
    return {"http": _http, "https": _http}


def _http(url: str, config: Config) -> Transport:
    from dbnd._config.settings import CoreSettings
    from dbnd._http.transport import HttpTransport

    return HttpTransport(url, config.settings(CoreSettings))


@hookimpl
def dbnd_destination(url: str, config: Config) -> Destination:
    """The configured tracker, or a file, which asks for no token.

    What was logged for a file that SQLite is not put to goes to the configured tracker, too.
    """
    from dbnd._base.masking import mask_url
    from dbnd._context.registry import configured_url
    from dbnd._tracking.contracts import Destination, tracker_name
    from dbnd._tracking.network_file import network_of

    configured = configured_url(config)
    is_configured = configured is not None and (mask_url(configured) == url or network_of(url) is not None)
    known = configured if is_configured else (url if url.startswith("sqlite:") else None)
    hint = f"`dbnd sync --set-config core.databand_url={url}` sends them"
    return Destination(tracker_name(known or url), known, hint)


@hookimpl
def dbnd_task_run_context(task_run: TaskRun) -> AbstractContextManager[None]:
    """Capture of what the task prints."""
    from dbnd._context.task_log import captured

    return captured(task_run)
