"""The parameters of a task as options of ``dbnd run TARGET``."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import click
from click.core import ParameterSource

from dbnd._model.error_info import message_of
from dbnd._model.values import of_user, param_text, preview
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
        example = _example(task.types[name])
        default = of_user(repr, param.default, otherwise=partial(preview, param.default))
        notes = [] if is_required else [f"[default: {default}]"]
        notes += [f"Repeat it, or give {example}."] if example else []
        params.append(
            click.Option(
                [*dict.fromkeys((f"--{name.replace('_', '-')}", f"--{name}")), name],
                type=click.UNPROCESSED,
                callback=_converter(task.types[name]),
                metavar=type_name(task.types[name]),
                required=is_required,
                multiple=bool(example),
                help=" ".join(notes) or None,
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


def _example(annotation: Any) -> str:
    """How several values are given at once, for a type that holds several; empty for any other."""
    kind, of = get_origin(annotation) or annotation, get_args(annotation)
    if kind is Annotated:
        return _example(of[0])
    if kind in {Union, UnionType}:
        return next(filter(None, map(_example, of)), "")
    if not (isinstance(kind, type) and issubclass(kind, Collection)) or issubclass(kind, str | bytes | Mapping):
        return ""
    return '\'["a", "b"]\'' if of[:1] == (str,) else "'[2, 4]'"


def _converter(annotation: Any) -> Callable[[click.Context, click.Parameter, str | tuple[str, ...] | None], Any]:
    """A callback that converts text by pydantic; dicts and models are given as JSON, and lists may be."""

    def convert(_: click.Context, param: click.Parameter, given: str | tuple[str, ...] | None) -> Any:
        from pydantic import PydanticSchemaGenerationError, TypeAdapter, ValidationError

        if not given and given != "":
            return None
        takes = f"it takes {type_name(annotation)}"
        errors = []
        for is_json, value in _readings(given):
            try:
                adapter = TypeAdapter(annotation)
                return adapter.validate_json(value) if is_json else adapter.validate_python(value)
            except ValidationError as error:
                errors.append(error)
            except PydanticSchemaGenerationError:
                raise click.BadParameter(f"{takes}, and no text can give that.") from None
            except Exception as error:  # noqa: BLE001  a type of the user's may raise anything
                reason = message_of(error).partition("\n")[0].rstrip(".")
                raise click.BadParameter(f"{takes}, which cannot be made of text: {reason}.") from None
        shown = given if isinstance(given, str) else ", ".join(given)
        # A single value that is no JSON list was meant as one of a list, which is tried second.
        reason = first_problem(errors[len(errors) == 3])[1]
        raise click.BadParameter(f"{takes}, not {param_text(param.name or '', shown)!r}: {reason}.")

    return convert


def _readings(given: str | tuple[str, ...]) -> list[tuple[bool, Any]]:
    """What may have been meant, as whether it is JSON and the value; several texts are given for a list."""
    if isinstance(given, str):
        return [(False, given), (True, given)]
    alone = given[0] if len(given) == 1 else None
    whole = [] if alone is None else [(False, alone)]
    if alone is not None and alone.lstrip().startswith("["):
        whole.insert(0, (True, alone))
    return [*whole, (False, list(given)), (True, f"[{','.join(given)}]")]
