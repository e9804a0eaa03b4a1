"""The databand context: configuration, plugins' hooks, tracking client and, inside it, a run."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from dbnd import _console
from dbnd._config import Config
from dbnd._errors import TrackingError
from dbnd._facts import readable
from dbnd._plugins import plugins
from dbnd._settings import CoreSettings, TrackingSettings
from dbnd._signals import sigterm_cancels
from dbnd._tracking.client import TrackingAPIClient, get_client
from dbnd._tracking.transport import configured_url

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

    from dbnd._run import Run

# Contexts nest; the last one entered is the current one, for all threads of the process.
_stack: Final[list[DatabandContext]] = []


class DatabandContext:
    """What a run needs around it; entered with ``with``.

    Args:
        config: The configuration it works with.

    Attributes:
        config: The configuration.
        client: The tracking client, or None when nothing is tracked. Set while the context is entered.
        run: The run that takes place in it, or None.
    """

    def __init__(self, config: Config) -> None:
        self.config: Final = config
        self.client: TrackingAPIClient | None = None
        self.run: Run | None = None

    def __enter__(self) -> Self:
        """Check the configuration, make the client and call the plugins' hooks.

        Raises:
            ConfigError: The configuration cannot be used.
        """
        self.config.check()
        _stack.append(self)
        try:
            url = configured_url(self.config)
            if url is not None:
                self.client = get_client(url, self.config)
            plugins().call("dbnd_on_pre_init_context", ctx=self)
            plugins().call("dbnd_on_new_context", ctx=self)
        except BaseException:
            self._leave()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Call the plugins' hooks, deliver what was tracked, and say what could not be delivered.

        Raises:
            TrackingError: Something could not be delivered, and ``core.tracker_raise_on_error`` is on.
        """
        self._leave()
        if self.client is None:
            return
        problem = self.client.drain()
        if problem:
            if self.config.settings(CoreSettings).tracker_raise_on_error and error is None:
                raise TrackingError(problem)
            _console.warning(problem)

    def _repr_html_(self) -> str:
        from dbnd._html import client_facts, facts_table, run_facts

        facts = [] if self.run is None else run_facts(self.run)
        return facts_table("Databand context", [*facts, *client_facts(self.client)])

    def _leave(self) -> None:
        try:
            plugins().call("dbnd_on_exit_context", reverse=True, ctx=self)
        finally:
            _stack.remove(self)


def get_databand_context() -> DatabandContext | None:
    """The context that was entered last and not left yet, or None."""
    return _stack[-1] if _stack else None


@contextmanager
def new_dbnd_context(
    conf: Mapping[str, Any] | None = None, *, config: Config | None = None
) -> Iterator[DatabandContext]:
    """Enter a databand context without a run.

    Args:
        conf: Configuration over all other layers: ``{"section": {"key": value}}`` or ``{"section.key": value}``.
        config: A configuration that is loaded already, in place of ``conf``.

    Raises:
        ConfigError: The configuration cannot be used.
    """
    with DatabandContext(config or Config.load(conf=conf)) as context:
        yield context


@contextmanager
def tracked_script(
    job_name: str | None = None,
    run_name: str | None = None,
    project_name: str | None = None,
    conf: Mapping[str, Any] | None = None,
) -> Iterator[Run]:
    """Track what the block does as a run of its own (see ``dbnd_tracking``).

    SIGTERM ends the run as CANCELLED and then the process, unless you have a handler for it.

    Args:
        job_name: Name of the job; else ``tracking.job``, else the name of the script.
        run_name: Name of the run; else ``run_info.name``, else a random one.
        project_name: Project; else ``tracking.project``.
        conf: Configuration over all other layers.

    Raises:
        ConfigError: The configuration cannot be used.
    """
    from dbnd._execution import new_run, script_run

    with sigterm_cancels(), new_dbnd_context(conf) as context:
        tracking = context.config.settings(TrackingSettings)
        run = new_run(
            context.config,
            job_name=job_name or tracking.job or script_name(),
            cmd_name="inplace_tracking",
            run_name=run_name,
            project_name=project_name,
        )
        with script_run(context, run):
            yield run


def script_name() -> str:
    """Name of the running script, or "python" in an interactive session."""
    script = str((getattr(sys, "argv", None) or [""])[0])
    return readable(Path(script).name) if script and script != "-c" else "python"
