"""Writes the pages of the reference from the code: commands, configuration, hooks and the tracker's HTTP interface.

They are made anew at each build and not kept in the repository, so that they cannot fall behind.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from pydantic import SecretStr
from pydantic_core import PydanticUndefined

from dbnd._cli.main import cli
from dbnd._context import hooks
from dbnd._context.plugins import plugins
from dbnd_tracker._pages.reference import operations
from dbnd_tracker._server.app import create_app
from dbnd_tracker._storage.database import Database


def write(folder: Path) -> None:
    """Write every generated page into ``folder``."""
    pages = {"commands": _commands(), "configuration": _configuration(), "hooks": _hook_pages(), "http": _http()}
    folder.mkdir(exist_ok=True)
    for name, lines in pages.items():
        text = "\n".join(lines) + "\n"
        path = folder / f"{name}.md"
        if not path.exists() or path.read_text() != text:  # an unchanged page is not built again
            path.write_text(text)


def _commands() -> Iterator[str]:
    yield "# Commands"
    yield "\n`dbnd` exits with 0, with 10 when a run failed, 8 for configuration and 2 for usage."
    yield from _command(cli, click.Context(cli, info_name="dbnd"), level=1)


def _command(command: click.Command, context: click.Context, level: int) -> Iterator[str]:
    if level > 1:
        yield f"\n{'#' * min(level, 4)} `{context.command_path}`"
    yield ""
    yield inspect.cleandoc((command.help or command.short_help or "").partition("\f")[0]).replace("\b\n", "")
    usage = " ".join(command.collect_usage_pieces(context))
    yield f"\n```text\n{context.command_path} {usage}\n```"
    parameters = [parameter for parameter in command.get_params(context) if parameter.name != "help"]
    options = [entry for parameter in parameters if (entry := parameter.get_help_record(context))]
    if options:
        yield "\n| option | |\n|---|---|"
        yield from (f"| `{_cell(names)}` | {_cell(text)} |" for names, text in options)
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            if found is not None and not found.hidden:
                yield from _command(found, click.Context(found, info_name=name, parent=context), level + 1)


def _configuration() -> Iterator[str]:
    yield "# Configuration keys"
    yield (
        "\nEach can be set in a file, by the environment variable `DBND__SECTION__KEY`, with "
        "`--set-config section.key=value` and with `dbnd_tracking(conf=…)`; `dbnd config show` prints where each value "
        "comes from."
    )
    for found in plugins().call("dbnd_settings"):
        for section in found:
            yield f"\n## `[{section.section}]`\n"
            yield "| key | default | |\n|---|---|---|"
            for name, field in section.model_fields.items():
                yield f"| `{section.section}.{name}` | {_default(field)} | {_cell(field.description or '')} |"


def _default(field: Any) -> str:
    value = field.get_default(call_default_factory=True)
    if value is None or value is PydanticUndefined or value in ({}, []):
        return ""
    if isinstance(value, SecretStr):
        return "" if not value.get_secret_value() else "*(secret)*"
    return f"`{_cell(str(value))}`"


def _hook_pages() -> Iterator[str]:
    yield "# Hooks"
    yield f"\n{inspect.cleandoc(hooks.__doc__ or '')}"
    for name, function in vars(hooks).items():
        if name.startswith("dbnd_") and inspect.isfunction(function):
            arguments = ", ".join(inspect.signature(function).parameters)
            yield f"\n## `{name}({arguments})`\n"
            yield inspect.cleandoc(function.__doc__ or "")


def _http() -> Iterator[str]:
    yield "# The tracker's HTTP interface"
    yield "\nA running tracker shows this at `/docs`, and as an OpenAPI document at `/openapi.json`."
    for tag, entries in operations(_openapi()).items():
        yield f"\n## {tag.capitalize()}"
        for entry in entries:
            yield f"\n### `{entry.method} {entry.path}`\n\n{entry.summary}"
            if entry.description:
                yield f"\n{entry.description}"
            if entry.fields:
                yield "\n| name | in | type | |\n|---|---|---|---|"
                for field in entry.fields:
                    kind = f"{field.kind}, required" if field.is_required else field.kind
                    yield f"| `{field.name}` | {field.place} | {kind} | {_cell(field.description)} |"


def _openapi() -> dict[str, Any]:
    document: dict[str, Any] = create_app(Database("sqlite:///never-opened.db")).openapi()
    return document


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
