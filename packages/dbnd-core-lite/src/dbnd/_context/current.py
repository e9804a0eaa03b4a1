"""What is current in this process: the databand context, and in each thread or task of asyncio the task run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar, Token
from dataclasses import dataclass
from typing import Final

from dbnd._config.config import Config
from dbnd._model.run import Run, TaskRun
from dbnd._terminal.html import html_table
from dbnd._tracking.client import TrackingAPIClient
from dbnd._tracking.outbox import others_than

# Contexts nest; the last one entered is the current one, for all threads of the process.
_stack: Final[list[DatabandContext]] = []
_current: ContextVar[TaskRun | None] = ContextVar("dbnd_current_task_run", default=None)


@dataclass(eq=False)
class DatabandContext:
    """What a run needs around it; ``new_dbnd_context`` enters one."""

    config: Config
    client: TrackingAPIClient | None = None
    """The tracking client, set while the context is entered; None when nothing is tracked."""
    run: Run | None = None
    """The run that takes place in it."""
    main_file: str | None = None
    """The file that ``dbnd run`` runs, as ``python`` would run it; None where Python itself knows."""

    def _repr_html_(self) -> str:
        rows = [] if self.run is None else self.run.rows()
        if self.client is None:
            rows.append(("Tracker", "none: install dbnd-tracker or set core.databand_url"))
        else:
            unsent = f"{self.client.unsent} events" if self.client.unsent else None
            rows += [("Tracker", self.client.name), ("Unsent", unsent), ("Trouble", self.client.trouble)]
        for outbox in others_than(self.client):
            if outbox.unsent:
                rows += [
                    ("Unsent", f"{outbox.unsent} events for {outbox.destination}"),
                    ("Trouble", outbox.trouble and f"{outbox.destination}: {outbox.trouble}"),
                ]
        return html_table("Databand context", rows)


def get_databand_context() -> DatabandContext | None:
    """The context that was entered last and not left yet, or None."""
    return _stack[-1] if _stack else None


@contextmanager
def current_context(context: DatabandContext) -> Iterator[None]:
    """Make ``context`` the current one within the block."""
    _stack.append(context)
    try:
        yield
    finally:
        _stack.remove(context)


def current_task_run() -> TaskRun | None:
    """The task run that the calling code belongs to, or None outside of a run.

    A thread that was started without a copy of its starter's ``contextvars`` context belongs to the root task run of
    the run that its process is in.
    """
    task_run = _current.get()
    # A thread, or a cell of a notebook, may outlive the run that it has begun in.
    if task_run is not None and task_run.run.end_time is None:
        return task_run
    context = get_databand_context()
    return context.run.root if context is not None and context.run is not None else None


@contextmanager
def as_current(task_run: TaskRun) -> Iterator[None]:
    """Make ``task_run`` the current one within the block."""
    token = _current.set(task_run)
    try:
        yield
    finally:
        try:
            _current.reset(token)
        except ValueError:  # it ends in another place than it has begun in: a notebook's next cell
            _current.set(None if token.old_value is Token.MISSING else token.old_value)
