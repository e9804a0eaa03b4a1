"""Execution of runs and task runs: states, errors and results become events as the user's code goes on."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Final

from dbnd._base.clock import utc_now
from dbnd._base.errors import ConfigError
from dbnd._base.names import new_uid
from dbnd._base.signals import TerminatedError, request_end
from dbnd._config.settings import CoreSettings, RunInfoSettings, RunSettings, TrackingSettings
from dbnd._context.current import as_current
from dbnd._context.plugins import plugins
from dbnd._model.addresses import page_url
from dbnd._model.error_info import ErrorInfo
from dbnd._model.run import Run, RunState, TaskDefinition, TaskRun, TaskRunState
from dbnd._terminal import console

if TYPE_CHECKING:
    from dbnd._config.config import Config
    from dbnd._context.current import DatabandContext

# Longest error of a task run that is kept in memory, in characters.
_MAX_ERROR: Final = 500


def new_run(
    config: Config, job_name: str, cmd_name: str, *, run_name: str | None = None, project_name: str | None = None
) -> Run:
    """A run as the configuration describes it but for what is given; ConfigError where ``DBND_RUN_UID`` is no uid."""
    info, tracking = config.settings(RunInfoSettings), config.settings(TrackingSettings)
    project_name = project_name or tracking.project
    run = Run(str(job_name), cmd_name, project_name=project_name and str(project_name), description=info.description)
    _join(run)
    sends_none = run.is_attached or config.settings(CoreSettings).delivery == "relay"
    run.sends_heartbeat = not sends_none and config.settings(RunSettings).heartbeat_interval_s > 0
    run.name = str(run_name or info.name or run.name)
    run.user = info.user or run.user
    return run


def _join(run: Run) -> None:
    """Take part in the run that ``DBND_RUN_UID`` names; with ``DBND_RESUBMIT_RUN``, do it again. Not for children."""
    uid, resubmit = os.environ.pop("DBND_RUN_UID", ""), os.environ.pop("DBND_RESUBMIT_RUN", "")
    if not uid:
        return
    try:
        run.uid = str(uuid.UUID(uid))
    except ValueError:
        what = f"The environment variable DBND_RUN_UID = {uid!r}"
        raise ConfigError(f"{what} is no uid of a run, such as {new_uid()}.") from None
    if resubmit.lower() in {"true", "yes", "t", "1"}:
        run.attempt_suffix = "-resubmit"
    else:
        run.is_attached = True


@contextmanager
def script_run(context: DatabandContext, run: Run) -> Iterator[TaskRun]:
    """Execute the block as ``run``, whose root task run is the script itself.

    When a task raises through the block, the root is UPSTREAM_FAILED, since it was the task that failed.
    """
    root = run.new_task_run(TaskDefinition(run.job_name), parent=None)
    root.start_time = run.start_time
    with _running(context, run, root), _reporting(context, root, is_script=True):
        yield root


@contextmanager
def task_as_run(
    context: DatabandContext, run: Run, definition: TaskDefinition, params: dict[str, str]
) -> Iterator[TaskRun]:
    """Execute the block as ``run``, whose root task run is a task."""
    root = run.new_task_run(definition, parent=None, params=params)
    with _running(context, run, root):
        if context.client is not None and not run.is_attached:
            context.client.set_run_state(run, RunState.RUNNING)
        with _reporting(context, root), plugins().task_run_context(root):
            yield root


@contextmanager
def nested_task(
    context: DatabandContext, parent: TaskRun, definition: TaskDefinition, params: dict[str, str]
) -> Iterator[TaskRun]:
    """Execute the block as a task run called by ``parent``."""
    task_run = parent.run.new_task_run(definition, parent=parent, params=params)
    if context.client is not None:
        context.client.add_task_runs(task_run.run, [task_run])
    with _reporting(context, task_run), as_current(task_run), plugins().task_run_context(task_run):
        yield task_run


def log_result(context: DatabandContext, task_run: TaskRun, result: object) -> None:
    """Report what a task returned, unless it is None or ``tracking.log_value_preview`` is off."""
    if context.client is None or result is None:
        return
    if context.config.settings(TrackingSettings).log_value_preview:
        context.client.log_targets(task_run, result)


@contextmanager
def _running(context: DatabandContext, run: Run, root: TaskRun) -> Iterator[None]:
    """Announce ``run``, make it the context's run, and report its final state."""
    before, context.run = context.run, run
    client, owner = context.client, os.getpid()
    is_announced, outcome = False, RunState.SUCCESS
    try:
        with as_current(root), _visible_to_children(context, root):
            if client is None:
                install = "install dbnd-tracker (pip install 'databand[tracker]') or set core.databand_url"
                console.info(f"This run is not tracked: {install}.")
            else:
                run.address = page_url(client.url, run.job_name, run.uid) or f"dbnd runs show {run.uid[:8]}"
                client.init_run(run, root)
                is_announced = True
                if run.sends_heartbeat:
                    client.start_heartbeat(run, _goes_on)
            yield
    except BaseException as error:
        if client is not None and not is_announced:  # a signal came in between: no run ends without a name
            client.init_run(run, root)
        outcome = _outcome(error)
        raise
    finally:
        _finish(context, run, outcome, owner)
        context.run = before


def _goes_on(state: str) -> bool:
    """Whether the tracker lets the run of this process go on; otherwise end it."""
    is_over = state == RunState.SHUTDOWN.value
    if is_over:
        request_end()
    return not is_over


# What the runs of this process that go on have found in the environment, in the order of their start.
_outer: Final[list[dict[str, str | None]]] = []


@contextmanager
def _visible_to_children(context: DatabandContext, root: TaskRun) -> Iterator[None]:
    """Set the variables by which child processes find the task run that has started them, and the tracker."""
    environment = root.as_parent().environment()
    if context.main_file is not None:
        environment["DBND_MAIN_FILE"] = context.main_file
    if context.client is not None:
        environment["DBND__CORE__DATABAND_URL"] = context.client.url
        token = context.config.settings(CoreSettings).databand_access_token
        if token is not None:
            environment["DBND__CORE__DATABAND_ACCESS_TOKEN"] = token.get_secret_value()
    outer = {name: os.environ.get(name) for name in environment}
    _outer.append(outer)
    os.environ.update(environment)
    try:
        yield
    finally:
        place = next(number for number, each in enumerate(_outer) if each is outer)
        del _outer[place]
        if place < len(_outer):  # a run that has begun since goes on, and what this one has found is there after that
            _outer[place] |= outer
        else:
            for name, value in outer.items():
                os.environ.pop(name, None)
                if value is not None:
                    os.environ[name] = value


def _finish(context: DatabandContext, run: Run, state: RunState, owner: int) -> None:
    run.state, run.end_time, run.error = state, utc_now(), None
    if context.client is None or os.getpid() != owner:  # a forked child that has left the block does not end the run
        return
    context.client.stop_heartbeat(run)
    if run.is_attached:
        return
    context.client.set_run_state(run, state, timestamp=run.end_time)
    if state is not RunState.SUCCESS:
        unfinished = TaskRunState.UPSTREAM_FAILED if state is RunState.CANCELLED else TaskRunState.FAILED
        context.client.set_unfinished_tasks_state(run, unfinished, timestamp=run.end_time)


@contextmanager
def _reporting(context: DatabandContext, task_run: TaskRun, *, is_script: bool = False) -> Iterator[None]:
    """Report the states of ``task_run`` as the block begins and ends; a forked child that leaves it does not end it."""
    run, owner = task_run.run, os.getpid()

    def enter(state: TaskRunState, time: datetime, error: ErrorInfo | None = None) -> None:
        task_run.enter(state, time)
        if context.client is not None and os.getpid() == owner:
            context.client.update_task_run_attempts(task_run, state, timestamp=time, error=error)

    enter(TaskRunState.RUNNING, run.start_time if is_script else utc_now())
    try:
        yield
    except BaseException as error:
        outcome = _outcome(error)
        if outcome is RunState.SUCCESS:
            enter(TaskRunState.SUCCESS, utc_now())
        elif is_script and run.error is error:  # a task run has failed with this very exception, and holds it already
            enter(TaskRunState.UPSTREAM_FAILED, utc_now())
        else:
            info = ErrorInfo.of(error)
            if run.error is not error:
                task_run.error = f"{type(error).__name__}: {info.message}"[:_MAX_ERROR]
            run.error = error
            enter(TaskRunState[outcome.name], utc_now(), info)
        raise
    enter(TaskRunState.SUCCESS, utc_now())


def _outcome(error: BaseException) -> RunState:
    """The final state of a run that raised ``error``; ``sys.exit(0)`` is a success."""
    if isinstance(error, SystemExit) and (error.code is None or error.code == 0):
        return RunState.SUCCESS
    return RunState.CANCELLED if isinstance(error, (KeyboardInterrupt, TerminatedError)) else RunState.FAILED
