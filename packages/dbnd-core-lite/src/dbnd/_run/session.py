"""Databand contexts; and ``dbnd_tracking``, for a script, a part of it, or the cells of a notebook."""

from __future__ import annotations

import atexit
import builtins
import functools
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ContextDecorator, ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, TypeVar, cast

from dbnd._base.environment import script_name
from dbnd._base.errors import TrackingError, UsageError
from dbnd._base.signals import TerminatedError, sigterm_cancels
from dbnd._config.config import Config
from dbnd._config.settings import CoreSettings, TrackingSettings
from dbnd._context.current import DatabandContext, current_context
from dbnd._context.plugins import plugins
from dbnd._context.registry import configured_url, get_client, load_config
from dbnd._model.run import Run
from dbnd._run.execution import new_run, script_run
from dbnd._run.task import refuse_generators
from dbnd._terminal import console
from dbnd._terminal.html import html_table
from dbnd._terminal.text import plain
from dbnd._tracking.outbox import others_than

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

F = TypeVar("F", bound=Callable[..., Any])


@contextmanager
def new_dbnd_context(
    conf: Mapping[str, Any] | None = None, *, config: Config | None = None
) -> Iterator[DatabandContext]:
    """Enter a databand context without a run; at the end of the block, deliver what was tracked.

    Args:
        conf: Configuration over all other layers: ``{"section": {"key": value}}`` or ``{"section.key": value}``.
        config: A configuration that is loaded already, in place of ``conf``.

    Raises:
        ConfigError: The configuration cannot be used.
        TrackingError: Something could not be delivered, and ``core.tracker_raise_on_error`` is on.
    """
    context = DatabandContext(config or load_config(conf=conf))
    context.config.check()
    is_strict = False
    try:
        with current_context(context):
            try:
                url = configured_url(context.config)
                if url is not None:
                    context.client = get_client(url, context.config)
                plugins().call("dbnd_on_pre_init_context", ctx=context)
                plugins().call("dbnd_on_new_context", ctx=context)
                yield context
            finally:
                plugins().call("dbnd_on_exit_context", reverse=True, ctx=context)
        is_strict = context.config.settings(CoreSettings).tracker_raise_on_error
    finally:
        for outbox in filter(None, (*others_than(context.client), context.client)):
            # What other threads have logged since the flush is theirs to wait for.
            if problem := outbox.left_over(is_flushed=outbox.flush()):
                if is_strict and outbox is context.client:
                    raise TrackingError(problem)
                console.warning(problem)
            if kept := outbox.kept():
                console.info(kept)


class dbnd_tracking(ContextDecorator):  # noqa: N801  it is used as a function is, as contextlib's own are
    """Track what a block does as a run of its own; ``@task`` calls in it are task runs.

    Used with ``with``, which gives the run; as a decorator of a function, each of whose calls is a run; or, across the
    cells of a notebook, by ``start()`` and ``stop()``. It shows itself in a notebook.

    Args:
        job_name: Name of the job; else ``tracking.job``, else the name of the script.
        run_name: Name of the run; else ``run_info.name``, else a random one.
        project_name: Project; else ``tracking.project``.
        conf: Configuration over all other layers.

    Attributes:
        run: The run, once it has started.

    Raises:
        ConfigError: The configuration cannot be used; raised when the run starts.
    """

    def __init__(
        self,
        job_name: str | None = None,
        run_name: str | None = None,
        project_name: str | None = None,
        conf: Mapping[str, Any] | None = None,
    ) -> None:
        self._arguments = (job_name, run_name, project_name, conf)
        self._entered: ExitStack | None = None
        self.run: Run | None = None

    def start(self) -> Self:
        """Start the run without a ``with`` block, such as in one cell of a notebook; ``stop`` ends it in another.

        A run that is not stopped ends with its process: as failed by an exception that a script does not catch, as
        cancelled by SIGTERM and Ctrl-C, else as succeeded. Which code ``sys.exit()`` was called with cannot be seen:
        a script that ends by it uses ``with``, or calls ``stop``.

        Raises:
            ConfigError: The configuration cannot be used.
            UsageError: It has started already.
        """
        self.__enter__()
        atexit.register(self._end_with_process)
        return self

    def stop(self) -> None:
        """End the run that ``start`` has started, and deliver what was logged; harmless when repeated."""
        atexit.unregister(self._end_with_process)
        self.__exit__(None, None, None)

    def _end_with_process(self) -> None:
        error: BaseException | None = TerminatedError.last
        # Where somebody types in what is executed, the last error is that of some cell, and not the end.
        if error is None and not (hasattr(sys, "ps1") or hasattr(builtins, "__IPYTHON__")):
            error = getattr(sys, "last_value", None)
        try:
            self.__exit__(type(error) if error else None, error, error.__traceback__ if error else None)
        except BaseException as raised:
            if raised is not error:
                raise

    def __enter__(self) -> Run:
        """Start the run and return it."""
        if self._entered is not None:
            raise UsageError("This dbnd_tracking() has started already: call stop() first, or make another one.")
        job_name, run_name, project_name, conf = self._arguments
        with ExitStack() as stack:
            stack.enter_context(sigterm_cancels())
            context = stack.enter_context(new_dbnd_context(conf))
            job_name = job_name or context.config.settings(TrackingSettings).job or script_name()
            run = new_run(context.config, job_name, "inplace_tracking", run_name=run_name, project_name=project_name)
            stack.enter_context(script_run(context, run))
            self.run, self._entered = run, stack.pop_all()
        return run

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the run: as failed or cancelled, if ``error`` says so."""
        entered, self._entered = self._entered, None
        if entered is not None:
            entered.__exit__(kind, error, trace)

    def __call__(self, func: F) -> F:
        """Make each call of ``func`` a run; of a coroutine function, what its awaiting does."""
        if not inspect.iscoroutinefunction(func):
            refuse_generators("dbnd_tracking()", func)
            return super().__call__(func)

        @functools.wraps(func)
        async def call(*args: Any, **kwargs: Any) -> Any:
            with self._recreate_cm():
                return await func(*args, **kwargs)

        return cast("F", call)

    def _recreate_cm(self) -> dbnd_tracking:
        return dbnd_tracking(*self._arguments)

    def __repr__(self) -> str:
        if self.run is None:
            return "<dbnd_tracking, not started>"
        return plain(f"<dbnd_tracking, run {self.run.name} of {self.run.job_name}, {self.run.state.value}>")

    def _repr_html_(self) -> str:
        if self.run is None:
            return html_table("dbnd_tracking", [("State", "not started: use it with `with`, or call start()")])
        return self.run._repr_html_()
