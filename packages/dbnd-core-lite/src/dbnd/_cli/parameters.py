"""The parameters of a task as options of ``dbnd run TARGET``."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import click
from click.core import ParameterSource

from dbnd._model.values import param_text
from dbnd._run.task import Task, type_name
from dbnd._terminal.text import first_problem


def task_command(task: Task, target: str) -> click.Command:
    """A command whose options are the parameters of ``task``; only its parser is used."""
    params: list[click.Parameter] = []
    for name, param in task.signature.parameters.items():
        if param.kind in {param.VAR_POSITIONAL, param.VAR_KEYWORD}:
            continue
        # A switch may be given without a value.
        switch: dict[str, Any] = {"is_flag": False, "flag_value": "true"} if task.types[name] is bool else {}
        is_required = param.default is inspect.Parameter.empty
        params.append(
            click.Option(
                [*dict.fromkeys((f"--{name.replace('_', '-')}", f"--{name}")), name],
                type=click.UNPROCESSED,
                callback=_converter(task.types[name]),
                metavar=type_name(task.types[name]),
                required=is_required,
                help=None if is_required else f"[default: {param.default!r}]",
                **switch,
            )
        )
    return click.Command(f"dbnd run {target}", params=params, add_help_option=False)


def parse(command: click.Command, words: Sequence[str]) -> dict[str, Any]:
    """The arguments that ``words`` give, by name.

    Raises:
        click.UsageError: A parameter is unknown, missing, or its text is not of its type.
    """
    ctx = command.make_context(command.name, list(words))
    return {
        name: value
        for name, value in ctx.params.items()
        if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE
    }


def _converter(annotation: Any) -> Callable[[click.Context, click.Parameter, str | None], Any]:
    """A callback that converts text by pydantic; lists, dicts and models are given as JSON."""

    def convert(_: click.Context, param: click.Parameter, text: str | None) -> Any:
        from pydantic import PydanticSchemaGenerationError, TypeAdapter, ValidationError

        if text is None:
            return None
        takes = f"it takes {type_name(annotation)}"
        try:
            adapter = TypeAdapter(annotation)
        except PydanticSchemaGenerationError:
            raise click.BadParameter(f"{takes}, and no text can give that.") from None
        try:
            return adapter.validate_python(text)
        except ValidationError as error:
            reason = first_problem(error)[1]
        try:
            return adapter.validate_json(text)
        except ValidationError:
            raise click.BadParameter(f"{takes}, not {param_text(param.name or '', text)!r}: {reason}.") from None

    return convert
