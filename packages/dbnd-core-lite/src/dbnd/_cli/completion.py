"""What the shell completes: keys of the configuration, targets of ``dbnd run``, and the parameters of a target."""

from __future__ import annotations

import ast
import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Final, get_args

import click
from click.shell_completion import BashComplete, CompletionItem, split_arg_string

from dbnd._context.plugins import plugins
from dbnd._terminal.text import plain

# Unlike click's own it hands over the line as it was typed: bash takes "train.py::train" and "core.delivery=relay" for
# three words each, of which it wants the last one back.
_BASH: Final = r"""%(complete_func)s() {
    local IFS=$'\n' reply type value
    for reply in $(
        COMP_LINE="${COMP_LINE:0:COMP_POINT}" COMP_WORDBREAKS="$COMP_WORDBREAKS" %(complete_var)s=bash_complete "$1"
    ); do
        IFS=, read -r type value <<< "$reply"
        case $type in
            file) COMPREPLY=(); compopt -o default ;;
            dir) COMPREPLY=(); compopt -o dirnames ;;
            plain) COMPREPLY+=("$value") ;;
        esac
    done
    if [[ ${COMPREPLY[0]} == *= ]]; then compopt -o nospace; fi
}
complete -o nosort -F %(complete_func)s %(prog_name)s
"""


class Bash(BashComplete):
    source_template = _BASH
    _kept = 0  # characters of the word that bash does not want back

    def get_completion_args(self) -> tuple[list[str], str]:
        """The words before the one that is completed, and that one."""
        line = os.environ["COMP_LINE"]
        words = split_arg_string(line)
        incomplete = "" if line[-1:].isspace() else words.pop()
        breaks = set(":=") & set(os.environ["COMP_WORDBREAKS"])
        self._kept = max((incomplete.rfind(sign) + 1 for sign in breaks), default=0)
        return words[1:], incomplete

    def format_completion(self, item: CompletionItem) -> str:
        return f"{item.type},{item.value[self._kept :]}"


def complete_setting(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The keys of the configuration as ``section.key=``; behind that the values of a key that takes only some."""
    name, equals, _ = incomplete.partition("=")
    items = []
    for key, field in _keys():
        if not equals:
            items.append(CompletionItem(f"{key}=", help=_summary(field)))
        elif key == name.lower():
            choices = ("True", "False") if field.annotation is bool else get_args(field.annotation)
            items += [CompletionItem(f"{name}={value}") for value in choices if isinstance(value, str)]
    return _starting(items, incomplete)


def complete_key(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The keys of the configuration as ``section.key``."""
    return _starting([CompletionItem(key, help=_summary(field)) for key, field in _keys()], incomplete)


def _keys() -> Iterator[tuple[str, Any]]:
    models = (model for models in plugins().call("dbnd_settings") for model in models)
    for model in sorted(models, key=lambda model: str(model.section)):
        yield from ((f"{model.section}.{name}", field) for name, field in model.model_fields.items())


def _summary(field: Any) -> str:
    return plain((field.description or "").partition("\n")[0])


def complete_target(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The names that installed packages register; where none begins so, the shell's own files."""
    names = _starting([CompletionItem(name) for name in sorted(_registered())], incomplete)
    # Not both: bash forgets the names when it is told of files.
    return names or complete_file(_ctx, _param, incomplete)


def complete_file(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(incomplete, type="file")]


def complete_assignment(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The parameters of the target as ``name=``."""
    # What stands before an option without its value, click leaves as it is.
    names = _parameters(next(iter(ctx.args), ""))
    return _starting([CompletionItem(f"{name}=", help=text) for name, text in names], incomplete)


def complete_option(target: str | None, incomplete: str) -> list[CompletionItem]:
    """The parameters of ``target`` as ``--name``."""
    names = _parameters(target or "")
    return _starting([CompletionItem(f"--{name.replace('_', '-')}", help=text) for name, text in names], incomplete)


def _starting(items: list[CompletionItem], incomplete: str) -> list[CompletionItem]:
    return [item for item in items if item.value.startswith(incomplete)]


def _parameters(target: str) -> Iterator[tuple[str, str]]:
    """Names of a target's parameters and what its source says of each.

    The source is read and not run: a key of the keyboard must neither start what a module does nor wait for it.
    """
    for file, name in _sources(target):
        tree = None
        with suppress(OSError, SyntaxError, ValueError):
            tree = ast.parse(file.read_bytes())
        for node in tree.body if tree else ():
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == name:
                found = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
                yield from ((arg.arg, plain(ast.unparse(arg.annotation) if arg.annotation else "")) for arg in found)
                return


def _sources(target: str) -> Iterator[tuple[Path, str]]:
    """The files in which the function of a target may be, and its name there."""
    path, is_file, name = target.partition("::")
    if is_file:
        yield Path(path), name
        return
    module, _, name = _registered().get(target, target).replace(":", ".").rpartition(".")
    for folder in ("", *sys.path) if module else ():
        place = Path(folder, *module.split("."))
        yield from ((file, name) for file in (place.with_suffix(".py"), place / "__init__.py"))


def _registered() -> dict[str, str]:
    from dbnd._run.loader import GROUP

    return {entry.name: entry.value for entry in entry_points(group=GROUP)}
