"""The root of the ``dbnd`` command: its commands are those that plugins contribute, imported when called.

What all commands have in common is declared here: the options of the configuration, ``-v`` and ``-q``; and completion.
"""

from __future__ import annotations

import sys
from functools import partial
from importlib import import_module
from typing import Final

import click
from click.shell_completion import add_completion_class, get_completion_class

from dbnd._base.environment import version
from dbnd._base.errors import DatabandError
from dbnd._cli.completion import Bash, complete_file, complete_setting
from dbnd._config.layers import CONF_FILE, SET_CONFIG
from dbnd._context.hooks import Command
from dbnd._context.plugins import plugins
from dbnd._terminal import console
from dbnd._terminal.text import did_you_mean, plain

# What click raises for a group without a command; before 8.2, it prints the help itself.
_NO_ARGUMENTS: Final[tuple[type[click.UsageError], ...]] = tuple(
    filter(None, [getattr(click.exceptions, "NoArgsIsHelpError", None)])
)


def add_common_options(command: click.Command) -> None:
    """Add the options that all commands have to ``command`` and its subcommands, except names that it uses itself.

    A command that passes options on gets only the short forms of ``-v`` and ``-q``: ``--verbose`` may be the other's.
    """
    for inner in getattr(command, "commands", {}).values():
        add_common_options(inner)
    passes_on = bool(command.context_settings.get("ignore_unknown_options"))
    more, less = (["-v"], ["-q"]) if passes_on else (["-v", "--verbose"], ["-q", "--quiet"])
    taken = {option for param in command.params for option in param.opts}
    setting = partial(click.Option, multiple=True, expose_value=False, callback=_keep)
    counter = partial(click.Option, count=True, expose_value=False, callback=_count)
    for option in (
        setting(
            ["-c", "--set-config", SET_CONFIG],
            metavar="SECTION.KEY=VALUE",
            help="Set a configuration value.",
            shell_complete=complete_setting,
        ),
        setting(
            ["--conf-file", CONF_FILE],
            metavar="FILE",
            help="Read a configuration file, over all others.",
            shell_complete=complete_file,
        ),
        counter([*more, "say_more"], help="Say more; can be repeated."),
        counter([*less, "say_less"], help="Say less: once only what goes wrong, twice only errors."),
    ):
        if taken.isdisjoint(option.opts):
            command.params.append(option)


def _keep(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> None:
    """Store the values where ``load_config`` looks for them."""
    ctx.meta[str(param.name)] = (*ctx.meta.get(str(param.name), ()), *values)


def _count(ctx: click.Context, param: click.Parameter, number: int) -> None:
    if not ctx.resilient_parsing:
        console.add_verbosity(number if param.name == "say_more" else -number)


class _Commands(click.Group):
    """A group that knows its commands by name and help and imports only the one that is called."""

    def _known(self) -> dict[str, Command]:
        return {command.name: command for found in plugins().call("dbnd_commands") for command in found}

    def list_commands(self, _: click.Context) -> list[str]:
        return sorted(self._known())

    def get_command(self, _: click.Context, cmd_name: str) -> click.Command | None:
        command = self._known().get(cmd_name)
        if command is None:
            return None
        module, attribute = command.target.split(":")
        found = getattr(import_module(module), attribute)
        assert isinstance(found, click.Command), f"{command.target} is no click command"
        add_common_options(found)
        return found

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if not ctx.resilient_parsing and args[0][:1] != "-" and args[0] not in self._known():
            ctx.fail(f"No such command {args[0]!r}.{did_you_mean(args[0], self._known())}")
        return super().resolve_command(ctx, args)

    def format_commands(self, _: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(command.name, command.help) for _, command in sorted(self._known().items())])


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="dbnd-core-lite", prog_name="dbnd")
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Track runs, tasks, params and metrics: yours and those of your MLflow code."""
    if ctx.invoked_subcommand != "run":  # what the user's own code logs is the user's
        from dbnd._terminal.logs import clean_logs

        clean_logs()


add_common_options(cli)
add_completion_class(Bash)


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    r"""Print the script by which SHELL completes commands, options, targets and their parameters, keys and runs.

    \b
    bash: echo 'eval "$(dbnd completion bash)"' >> ~/.bashrc
    zsh:  echo 'eval "$(dbnd completion zsh)"' >> ~/.zshrc
    fish: dbnd completion fish > ~/.config/fish/completions/dbnd.fish
    """
    found = get_completion_class(shell)
    assert found is not None, "click completes all three"
    console.result(plain(found(cli, {}, "dbnd", "_DBND_COMPLETE").source(), lines=True))


def main() -> None:
    """Run the command and exit with its code: 0, 1 trouble, 2 usage, 8 configuration, 10 run failed, 130 Ctrl-C."""
    try:
        # Not standalone, click returns the code of ctx.exit() and leaves errors to us.
        code = cli.main(prog_name="dbnd", standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except _NO_ARGUMENTS as error:
        console.result(plain(error.format_message(), lines=True))
        sys.exit(0)
    except click.ClickException as error:
        console.error(_sentence(error))
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        console.error("Interrupted.")
        sys.exit(130)
    except DatabandError as error:
        console.error(str(error))
        sys.exit(error.exit_code)
    except BrokenPipeError:  # the reader of a pipe, such as `head`, has seen enough
        sys.stderr.close()
        sys.exit(0)
    except Exception as error:  # noqa: BLE001  a mistake of ours is a sentence, too
        _tell_unexpected(error)
        sys.exit(1)


def _sentence(error: click.ClickException) -> str:
    """What click has to say, as one sentence, with where the right usage stands."""
    text = " ".join(line.strip(" \t") for line in error.format_message().split("\n"))
    text = text if text.endswith((".", "?")) else f"{text}."
    context = getattr(error, "ctx", None)
    return text if context is None else f"{text} `{context.command_path} --help` shows how it is used."


def _tell_unexpected(error: Exception) -> None:
    import traceback

    is_shown = console.verbosity() > 0
    if is_shown:
        console.excerpt("".join(traceback.format_exception(error)))
    what = f"{type(error).__name__}: {error}".partition("\n")[0].removesuffix(": ")
    console.error(
        f"dbnd {version()} has stopped for a reason that it does not know ({what}). That is a mistake in dbnd: please "
        f"report it, with the traceback {'above' if is_shown else 'that -v shows'}, as an issue of the project."
    )
