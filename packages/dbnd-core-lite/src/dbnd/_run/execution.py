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


_UNTRACKED: Final = (
    "This run is not tracked: install dbnd-tracker (pip install 'databand[tracker]') or set core.databand_url."
)


def new_run(
    config: Config, *, job_name: str, cmd_name: str, run_name: str | None = None, project_name: str | None = None
) -> Run:
    """A run with the facts that the configuration gives.

    Args:
        config: Where ``[run_info]`` and ``[tracking]`` are read.
        job_name: Name of the job.
        cmd_name: How it was started (see ``Run``).
        run_name: Name of the run, over the configuration.
        project_name: Project, over the configuration.

    Raises:
        ConfigError: ``DBND_RUN_UID`` is no uid.
    """
    info, tracking = config.settings(RunInfoSettings), config.settings(TrackingSettings)
    run = Run(
        job_name,
        cmd_name,
        project_name=project_name or tracking.project,
        description=info.description,
    )
    _join(run)
    run.sends_heartbeat = not run.is_attached and config.settings(RunSettings).heartbeat_interval_s > 0
    run.name = run_name or info.name or run.name
    run.user = info.user or run.user
    return run


def _join(run: Run) -> None:
    """Take part in the run that ``DBND_RUN_UID`` names, if it does; with ``DBND_RESUBMIT_RUN``, do it once more.

    Both variables are for this process alone, and not for its children.
    """
    uid, resubmit = os.environ.pop("DBND_RUN_UID", ""), os.environ.pop("DBND_RESUBMIT_RUN", "")
    if not uid:
        return
    try:
        run.uid = str(uuid.UUID(uid))
    except ValueError:
        msg = f"The environment variable DBND_RUN_UID = {uid!r} is no uid of a run, such as {new_uid()}."
        raise ConfigError(msg) from None
    if resubmit.lower() in {"true", "yes", "t", "1"}:
        run.attempt_suffix = "-resubmit"
    else:
        run.is_attached = True


@contextmanager
def script_run(context: DatabandContext, run: Run) -> Iterator[TaskRun]:
    """Execute the block as ``run``, whose root task run is the script itself.

    When a task raises through the block, the root is UPSTREAM_FAILED, since it was the task that failed.
    """
    root, owner = run.new_task_run(TaskDefinition(run.job_name), parent=None), os.getpid()
    root.start_time = run.start_time
    with _running(context, run, root):
        _enter(context, root, TaskRunState.RUNNING, owner, at=run.start_time)
        try:
            yield root
        except BaseException as error:
            # Where a task run has failed with this very exception, it holds the error already.
            _end(context, root, error, owner, blame=run.error is not error)
            raise
        _end(context, root, None, owner)


@contextmanager
def task_as_run(
    context: DatabandContext, run: Run, definition: TaskDefinition, params: dict[str, str]
) -> Iterator[TaskRun]:
    """Execute the block as ``run``, whose root task run is a task."""
    root = run.new_task_run(definition, parent=None, params=params)
    with _running(context, run, root):
        if context.client is not None and not run.is_attached:
            context.client.set_run_state(run, RunState.RUNNING)
        with _task_body(context, root):
            yield root


@contextmanager
def nested_task(
    context: DatabandContext, parent: TaskRun, definition: TaskDefinition, params: dict[str, str]
) -> Iterator[TaskRun]:
    """Execute the block as a task run called by ``parent``."""
    task_run = parent.run.new_task_run(definition, parent=parent, params=params)
    if context.client is not None:
        context.client.add_task_runs(task_run.run, [task_run])
    with _task_body(context, task_run):
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
    owner, is_announced = os.getpid(), False
    try:
        with as_current(root), _visible_to_children(context, root):
            _announce(context, run, root)
            is_announced = True
            yield
    except BaseException as error:
        if context.client is not None and not is_announced:  # a signal came in between: no run ends without a name
            context.client.init_run(run, root)
        failure = RunState.CANCELLED if _is_cancellation(error) else RunState.FAILED
        _finish(context, run, RunState.SUCCESS if _is_success(error) else failure, owner)
        raise
    else:
        _finish(context, run, RunState.SUCCESS, owner)
    finally:
        context.run = before


def _announce(context: DatabandContext, run: Run, root: TaskRun) -> None:
    client = context.client
    if client is None:
        console.info(_UNTRACKED)
    else:
        run.address = page_url(client.url, run.job_name, run.uid) or f"dbnd runs show {run.uid[:8]}"
        client.init_run(run, root)
        if run.sends_heartbeat:
            client.start_heartbeat(run, _goes_on)


def _goes_on(state: str) -> bool:
    """End the run of this process if that is what the tracker asks for."""
    if state != RunState.SHUTDOWN.value:
        return True
    request_end()
    return False


@contextmanager
def _visible_to_children(context: DatabandContext, root: TaskRun) -> Iterator[None]:
    """Set the variables by which child processes find the task run that has started them, and the tracker."""
    environment = root.as_parent().environment()
    if context.client is not None:
        environment["DBND__CORE__DATABAND_URL"] = context.client.url
        token = context.config.settings(CoreSettings).databand_access_token
        if token is not None:
            environment["DBND__CORE__DATABAND_ACCESS_TOKEN"] = token.get_secret_value()
    outer = {name: os.environ.get(name) for name in environment}
    os.environ.update(environment)
    try:
        yield
    finally:
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
def _task_body(context: DatabandContext, task_run: TaskRun) -> Iterator[None]:
    owner = os.getpid()
    _enter(context, task_run, TaskRunState.RUNNING, owner)
    try:
        with as_current(task_run), plugins().task_run_context(task_run):
            yield
    except BaseException as error:
        _end(context, task_run, error, owner)
        raise
    else:
        _end(context, task_run, None, owner)


def _end(
    context: DatabandContext, task_run: TaskRun, error: BaseException | None, owner: int, *, blame: bool = True
) -> None:
    """Report the final state of a task run.

    Args:
        context: Where it ran.
        task_run: What has ended.
        error: What it raised, if anything.
        owner: The process that it was begun in; a forked child that leaves the block does not end it.
        blame: Whether the error is its own, and not that of a task that it called.
    """
    if error is None or _is_success(error):
        state, info = TaskRunState.SUCCESS, None
    elif blame:
        state = TaskRunState.CANCELLED if _is_cancellation(error) else TaskRunState.FAILED
        info = ErrorInfo.of(error)
        task_run.run.error = error
    else:
        state, info = TaskRunState.UPSTREAM_FAILED, None
    _enter(context, task_run, state, owner, error=info)


def _enter(
    context: DatabandContext,
    task_run: TaskRun,
    state: TaskRunState,
    owner: int,
    *,
    at: datetime | None = None,
    error: ErrorInfo | None = None,
) -> None:
    time = at or utc_now()
    task_run.enter(state, time)
    if context.client is not None and os.getpid() == owner:
        context.client.update_task_run_attempts(task_run, state, timestamp=time, error=error)


def _is_cancellation(error: BaseException) -> bool:
    return isinstance(error, (KeyboardInterrupt, TerminatedError))


def _is_success(error: BaseException) -> bool:
    """Whether the "error" is a ``sys.exit()`` that says that all is well."""
    return isinstance(error, SystemExit) and error.code in {None, 0}
