"""The hooks through which plugins extend dbnd, and the marks that declare them.

A plugin is a module or object named by an entry point of the group ``dbnd``. It implements any of the hooks
below with ``@dbnd.hookimpl`` and takes only the arguments that it wants. It is loaded at the start of every
command: its module imports nothing heavy at the top.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from contextlib import AbstractContextManager

    from dbnd._config.config import Config
    from dbnd._config.settings import Settings
    from dbnd._context.current import DatabandContext
    from dbnd._model.run import TaskRun
    from dbnd._tracking.contracts import Destination, ReaderFactory, TransportFactory

hookspec = pluggy.HookspecMarker("dbnd")
hookimpl = pluggy.HookimplMarker("dbnd")


@dataclass(frozen=True, slots=True)
class Command:
    """A command that a plugin adds to ``dbnd``.

    Args:
        name: The word typed after ``dbnd``.
        target: Where the click command stands, as ``package.module:attribute``; imported when it is called.
        help: One line for ``dbnd --help``, so that listing commands imports none of them.
    """

    name: str
    target: str
    help: str


@hookspec
def dbnd_setup_plugin() -> None:
    """Called once per process, after all plugins are registered and before the first context."""


@hookspec
def dbnd_on_pre_init_context(ctx: DatabandContext) -> None:
    """Called first when a context is entered: the configuration is known, no run exists yet."""


@hookspec
def dbnd_on_new_context(ctx: DatabandContext) -> None:
    """Called when a context has been entered and its tracking client exists."""


@hookspec
def dbnd_on_exit_context(ctx: DatabandContext) -> None:
    """Called when a context is left, also after a failure: the run is final, the journal not yet drained."""


@hookspec
def dbnd_task_run_context(task_run: TaskRun) -> AbstractContextManager[object] | None:
    """Return a context manager to wrap around the execution of ``task_run``, or None."""


@hookspec
def dbnd_commands() -> Iterable[Command]:  # type: ignore[empty-body]
    """Return the commands that the plugin adds to ``dbnd``."""


@hookspec
def dbnd_transports() -> Mapping[str, TransportFactory]:  # type: ignore[empty-body]
    """Return transport factories by URL scheme: each takes the databand URL and the configuration."""


@hookspec
def dbnd_destination(url: str, config: Config) -> Destination | None:
    """Return what ``url``, which a journal names without credentials, stands for; None if it is not of the plugin."""


@hookspec
def dbnd_readers() -> Mapping[str, ReaderFactory]:  # type: ignore[empty-body]
    """Return factories of readers by URL scheme: each takes the databand URL and the configuration."""


@hookspec
def dbnd_settings() -> Iterable[type[Settings]]:  # type: ignore[empty-body]
    """Return the configuration sections that the plugin declares."""
