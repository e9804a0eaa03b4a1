"""``dbnd run``: from the words of the command line to an exit code."""

from __future__ import annotations

import asyncio
import inspect
import sys
from typing import Any, Final

import click
from click.shell_completion import CompletionItem

from dbnd._base.paths import working_directory
from dbnd._base.signals import sigterm_cancels
from dbnd._cli.completion import complete_assignment, complete_file, complete_option, complete_target
from dbnd._cli.live import shown
from dbnd._cli.parameters import parse, task_command
from dbnd._cli.progress import RunProgress
from dbnd._cli.summary import tell_end
from dbnd._config.settings import TrackingSettings
from dbnd._context.current import DatabandContext
from dbnd._context.registry import load_config
from dbnd._model.error_info import user_traceback
from dbnd._model.run import Run, RunState
from dbnd._run.execution import log_result, new_run, task_as_run
from dbnd._run.loader import TargetImportError, load_task
from dbnd._run.session import new_dbnd_context
from dbnd._run.sync import delivering_leftovers
from dbnd._run.task import Task
from dbnd._terminal import console
from dbnd._terminal.text import plain

RUN_FAILED: Final = 10
INTERRUPTED: Final = 130


class _Run(click.Command):
    """A command to which the parameters of its target are options, too, when the shell completes."""

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        return [*complete_option(ctx.params.get("target"), incomplete), *super().shell_complete(ctx, incomplete)]


@click.command(cls=_Run, context_settings={"ignore_unknown_options": True}, add_help_option=False)
@click.argument("target", required=False, shell_complete=complete_target)
@click.argument(
    "words", nargs=-1, type=click.UNPROCESSED, metavar="[--PARAMETER VALUE]...", shell_complete=complete_file
)
@click.option(
    "-s",
    "--set",
    "assignments",
    multiple=True,
    metavar="NAME=VALUE",
    help="Set a parameter of the task.",
    shell_complete=complete_assignment,
)
@click.option("--job-name", metavar="NAME", help="Name of the job; else the name of the task.")
@click.option("--run-name", metavar="NAME", help="Name of the run; else a random one.")
@click.option("--project", metavar="NAME", help="Project of the run.")
@click.option("-h", "--help", "help_", is_flag=True, help="Show this message, with the parameters of TARGET, and exit.")
@click.pass_context
def run(
    ctx: click.Context,
    *,
    target: str | None,
    words: tuple[str, ...],
    assignments: tuple[str, ...],
    job_name: str | None,
    run_name: str | None,
    project: str | None,
    help_: bool,
) -> None:
    """Run the task TARGET and track it.

    TARGET is package.module.task, path/to/file.py::task, or a name registered by an installed package. Parameters of
    the task follow as --name VALUE.

    Exit codes: 0 success, 10 the run failed, 8 configuration, 2 usage, 130 Ctrl-C.
    """
    if help_ or target is None:
        _show_help(ctx, target)
        ctx.exit(0 if help_ else 2)
    config = load_config()
    # The context comes first: what the user's module does with MLflow while it is imported is tracked, too.
    with sigterm_cancels(), delivering_leftovers(config), new_dbnd_context(config=config) as context:
        task = _load(target)
        context.main_file = task.file
        arguments = parse(task_command(task, target), [*words, *(f"--{text}" for text in assignments)])
        job_name = job_name or config.settings(TrackingSettings).job or task.name
        tracked_run = new_run(config, job_name, "run", run_name=run_name, project_name=project)
        tracked_run.captures_output = True
        if context.client is not None:
            console.info(f"Run {tracked_run.name} of {tracked_run.job_name}, tracked in {context.client.name}.")
        progress = RunProgress(tracked_run, context.client)
        with shown(progress):
            failure = _execute(context, tracked_run, task, arguments)
    tell_end(progress, failure)
    ctx.exit(0 if failure is None else INTERRUPTED if isinstance(failure, KeyboardInterrupt) else RUN_FAILED)


def _load(target: str) -> Task:
    # A console script does not have the working directory on its path, as `python -m` does.
    sys.path.insert(0, str(working_directory() or ""))
    try:
        return load_task(target)
    except TargetImportError as error:
        if error.__cause__ is not None:
            console.excerpt(user_traceback(error.__cause__))
        raise


def _execute(context: DatabandContext, run: Run, task: Task, arguments: dict[str, Any]) -> BaseException | None:
    """Execute the task as ``run``; returns what the user's code raised, after showing it as Python would."""
    try:
        # Nothing but what can only be given by position: a decorator may add the others itself.
        first = [p for p in task.signature.parameters.values() if p.kind is p.POSITIONAL_ONLY]
        args = tuple(arguments.pop(p.name, p.default) for p in first)
        with task_as_run(context, run, task.definition, task.arguments(args, arguments)) as root:
            result = task.function(*args, **arguments)
            if inspect.iscoroutine(result):
                result = asyncio.run(result)
            log_result(context, root, result)
    except BaseException as error:  # noqa: BLE001  whatever the user's code raises
        if run.state is RunState.SUCCESS:  # sys.exit() that says that all is well
            return None
        console.excerpt(user_traceback(error))
        return error
    return None


def _show_help(ctx: click.Context, target: str | None) -> None:
    console.result(plain(ctx.get_help(), lines=True))
    if target is None:
        return
    command = task_command(_load(target), target)
    records = [param.get_help_record(click.Context(command)) for param in command.params]
    formatter = ctx.make_formatter()
    formatter.write("\n")
    with formatter.section(f"Parameters of {target}"):
        formatter.write_dl([record for record in records if record] or [("none", "")])
    console.result(plain(formatter.getvalue().rstrip("\n"), lines=True))
