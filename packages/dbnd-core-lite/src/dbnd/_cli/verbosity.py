"""``-v`` and ``-q``: the same for ``dbnd`` and for each of its commands, and they add up."""

from __future__ import annotations

import click

from dbnd._terminal import console


def add_verbosity_options(command: click.Command) -> None:
    """Give ``command``, and what it groups, the options -v and -q where it has none of its own.

    A command that passes options on to something else gets the short forms alone: ``--verbose`` may be the other's.
    """
    if getattr(command, "commands", None):
        assert isinstance(command, click.Group)
        for inner in command.commands.values():
            add_verbosity_options(inner)
    taken = {option for param in command.params for option in param.opts}
    passes_on = bool(command.context_settings.get("ignore_unknown_options"))
    for short, long, step, text in (
        ("-v", "--verbose", 1, "Say more; can be repeated."),
        ("-q", "--quiet", -1, "Say less: once only what goes wrong, twice only errors."),
    ):
        if short in taken or long in taken:
            continue
        names = [short] if passes_on else [short, long]
        command.params.append(_option(names, step, text))


def _option(names: list[str], step: int, text: str) -> click.Option:
    def count(ctx: click.Context, param: click.Parameter, value: int) -> None:
        del param
        if not ctx.resilient_parsing:
            console.add_verbosity(step * value)

    # A name that is no parameter of any task.
    name = "verbosity_up" if step > 0 else "verbosity_down"
    return click.Option([*names, name], count=True, expose_value=False, callback=count, help=text)
