"""The root of the ``dbnd`` command: its commands are those that plugins contribute, imported when called."""

from __future__ import annotations

import sys
from importlib import import_module

import click
from click.shell_completion import CompletionItem

from dbnd._base.environment import version
from dbnd._base.errors import DatabandError
from dbnd._cli.verbosity import add_verbosity_options
from dbnd._context.hooks import Command
from dbnd._context.plugins import plugins
from dbnd._terminal import console
from dbnd._terminal.text import did_you_mean


class _Commands(click.Group):
    """A group that knows its commands by name and help and imports only the one that is called."""

    def _known(self) -> dict[str, Command]:
        return {command.name: command for found in plugins().call("dbnd_commands") for command in found}

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of all commands."""
        del ctx
        return sorted(self._known())

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return one command."""
        del ctx
        command = self._known().get(cmd_name)
        if command is None:
            return None
        module, _, attribute = command.target.partition(":")
        found = getattr(import_module(module), attribute)
        assert isinstance(found, click.Command), f"{command.target} is no click command"
        add_verbosity_options(found)
        return found

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that ``args`` begin with."""
        if not ctx.resilient_parsing and args[0][:1] != "-" and args[0] not in self._known():
            ctx.fail(f"No such command {args[0]!r}.{did_you_mean(args[0], self._known())}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(command.name, command.help) for _, command in sorted(self._known().items())])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete a command's name, without importing the commands."""
        commands = [
            CompletionItem(name, help=command.help)
            for name, command in sorted(self._known().items())
            if name.startswith(incomplete)
        ]
        return [*commands, *click.Command.shell_complete(self, ctx, incomplete)]


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="dbnd-core-lite", prog_name="dbnd")
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Track runs, tasks, params and metrics: yours and those of your MLflow code."""
    if ctx.invoked_subcommand != "run":  # what the user's own code logs is the user's
        from dbnd._terminal.logs import clean_logs

        clean_logs()


add_verbosity_options(cli)


def main() -> None:
    """Run the command line and exit with its code: 0, 1 trouble, 2 usage, 8 configuration, 10 run failed."""
    try:
        # Not standalone, click returns the code of ctx.exit() and leaves errors to us.
        code = cli.main(prog_name="dbnd", standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
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
    if console.verbosity() > 0:
        import traceback

        console.excerpt("".join(traceback.format_exception(error)))
    lines = str(error).splitlines()
    what = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
    how = "with the traceback above" if console.verbosity() > 0 else "with the traceback that -v shows"
    console.error(
        f"dbnd {version()} has stopped for a reason that it does not know ({what}). That is a mistake in dbnd: "
        f"please report it, {how}, as an issue of the project."
    )
