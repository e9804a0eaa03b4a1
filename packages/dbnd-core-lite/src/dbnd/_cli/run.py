"""``dbnd run``: resolve a task, layer the configuration, execute and track it."""

from __future__ import annotations

import asyncio
import inspect
import sys
from collections.abc import Awaitable, Sequence
from typing import Any, Final

import click

from dbnd._base.clock import utc_now
from dbnd._base.errors import TaskParameterError
from dbnd._base.masking import mask_text
from dbnd._base.paths import working_directory
from dbnd._base.signals import sigterm_cancels
from dbnd._cli.completion import complete_target
from dbnd._cli.live import shown
from dbnd._cli.progress import RunProgress
from dbnd._cli.summary import summary
from dbnd._config.settings import TrackingSettings
from dbnd._context.current import DatabandContext
from dbnd._context.registry import load_config
from dbnd._model.error_info import user_traceback
from dbnd._model.run import Run, RunState
from dbnd._run.execution import log_result, new_run, task_as_run
from dbnd._run.loader import TargetImportError, load_task
from dbnd._run.session import new_dbnd_context
from dbnd._run.sync import delivering_leftovers
from dbnd._run.task import Task, type_name
from dbnd._terminal import console
from dbnd._terminal.text import cut, duration, plain, together

RUN_FAILED: Final = 10
# Longest reason of a failure that its headline repeats, in columns; the traceback above has the whole.
_REASON: Final = 200
_SHORTEST_REASON: Final = 30
_ENDED: Final = {RunState.SUCCESS: "succeeded", RunState.FAILED: "failed", RunState.CANCELLED: "was cancelled"}


@click.command(
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
    add_help_option=False,
    options_metavar="[OPTIONS]",
)
@click.argument("target", required=False, shell_complete=complete_target)
@click.argument("parameters", nargs=-1, type=click.UNPROCESSED, metavar="[--PARAMETER VALUE]...")
@click.option("-c", "--set-config", multiple=True, metavar="SECTION.KEY=VALUE", help="Set a configuration value.")
@click.option("-s", "--set", "set_", multiple=True, metavar="NAME=VALUE", help="Set a parameter of the task.")
@click.option("--conf-file", multiple=True, metavar="FILE", help="Read a configuration file, over all others.")
@click.option("--job-name", metavar="NAME", help="Name of the job; else the name of the task.")
@click.option("--run-name", metavar="NAME", help="Name of the run; else a random one.")
@click.option("--project", metavar="NAME", help="Project of the run.")
@click.option("-h", "--help", "help_", is_flag=True, help="Show this message, with the parameters of TARGET, and exit.")
@click.pass_context
def run(  # noqa: PLR0913, PLR0917  one argument for each option
    ctx: click.Context,
    target: str | None,
    parameters: tuple[str, ...],
    set_config: tuple[str, ...],
    set_: tuple[str, ...],
    conf_file: tuple[str, ...],
    job_name: str | None,
    run_name: str | None,
    project: str | None,
    help_: bool,
) -> None:
    """Run the task TARGET and track it.

    TARGET is package.module.task, path/to/file.py::task, or a name registered by an installed package. Parameters of
    the task follow as --name VALUE.

    Exit codes: 0 success, 10 the run failed, 8 configuration, 2 usage.
    """
    if target is None:
        _show_help(ctx, None)
        ctx.exit(0 if help_ else 2)
    if help_:
        _show_help(ctx, _load(target))
        ctx.exit(0)
    in_config = [text for text in set_ if "." in text.partition("=")[0]]
    config = load_config(set_config=(*in_config, *set_config), conf_files=conf_file)
    texts = dict(_assignment(text) for text in set_ if text not in in_config)
    # The context comes first: what the user's module does with MLflow while it is imported is tracked, too.
    with sigterm_cancels(), delivering_leftovers(config), new_dbnd_context(config=config) as context:
        task = _load(target)
        arguments = task.convert(_parse(task, parameters) | texts)
        tracked_run = new_run(
            config,
            job_name=job_name or config.settings(TrackingSettings).job or task.name,
            cmd_name="run",
            run_name=run_name,
            project_name=project,
        )
        tracked_run.captures_output = True
        if context.client is not None:
            console.info(f"Run {tracked_run.name} of {tracked_run.job_name}, tracked in {context.client.name}.")
        progress = RunProgress(tracked_run, context.client)
        with shown(progress):
            failure = _run_task(context, tracked_run, task, arguments)
    _tell_end(progress, failure)
    ctx.exit(0 if failure is None else RUN_FAILED)


def _tell_end(progress: RunProgress, failure: BaseException | None) -> None:
    run = progress.run
    took = duration(((run.end_time or utc_now()) - run.start_time).total_seconds())
    headline = f"Run {run.name} {_ENDED[run.state]} after {took}"
    if failure is None:
        console.success(f"{headline}.")
    else:
        reason = plain(mask_text(str(failure), _REASON).strip())
        # The whole of it stands above, in the traceback: on a terminal, two lines remind of it.
        columns = console.columns(sys.stderr) or _REASON
        room = max(min(2 * columns - len(f"dbnd: error: {headline}: ") - 4, _REASON), _SHORTEST_REASON)
        console.error(f"{headline}: {cut(f'{type(failure).__name__}: {reason}'.removesuffix(': '), room)}")
    console.details(summary(progress))


def _assignment(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        msg = f"--set {text!r} is not of the form name=value."
        raise TaskParameterError(msg)
    return name.strip(), value


def _load(target: str) -> Task:
    # A console script does not have the working directory on its path, as `python -m` does.
    sys.path.insert(0, str(working_directory() or ""))
    try:
        return load_task(target)
    except TargetImportError as error:
        if error.__cause__ is not None:
            console.excerpt(user_traceback(error.__cause__))
        raise


def _parse(task: Task, words: Sequence[str]) -> dict[str, str]:
    """Texts by parameter from ``--name value``, ``--name=value`` and, for switches, a bare ``--name``."""
    texts: dict[str, str] = {}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--") or word == "--":
            msg = f"The argument {word!r} is not of the form --name VALUE."
            raise TaskParameterError(msg)
        option, equals, value = word[2:].partition("=")
        name = option.replace("-", "_")
        if not equals:
            if rest and not (rest[0].startswith("--") and task.types.get(name) is bool):
                value = rest.pop(0)
            elif task.types.get(name) is bool:
                value = "true"
            else:
                msg = f"The option --{option} needs a value."
                raise TaskParameterError(msg)
        texts[name] = value
    return texts


def _show_help(ctx: click.Context, task: Task | None) -> None:
    console.result(plain(ctx.get_help(), lines=True))
    if task is None:
        return
    rows = [
        (
            f"--{name.replace('_', '-')}",
            type_name(task.types[name]),
            "required" if param.default is inspect.Parameter.empty else repr(param.default),
        )
        for name, param in task.signature.parameters.items()
    ]
    console.result(together(("", console.heading(f"Parameters of {task.name}:")), "\n"))
    console.result(console.table(("option", "type", "default"), rows) if rows else "none")


def _run_task(context: DatabandContext, run: Run, task: Task, arguments: dict[str, Any]) -> BaseException | None:
    """Execute the task as ``run``; returns what the user's code raised, after showing it as Python would."""
    try:
        with task_as_run(context, run, task.definition, task.arguments((), arguments)) as root:
            result = task.function(**arguments)
            if inspect.isawaitable(result):
                result = asyncio.run(_finish(result))
            log_result(context, root, result)
    except (Exception, SystemExit, KeyboardInterrupt) as error:  # noqa: BLE001  whatever the user's code raises
        if run.state is RunState.SUCCESS:  # sys.exit() that says that all is well
            return None
        console.excerpt(user_traceback(error))
        return error
    return None


async def _finish(value: Awaitable[object]) -> object:
    return await value
