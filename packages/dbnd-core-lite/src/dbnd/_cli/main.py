"""The root of the ``dbnd`` command: its commands are those that plugins contribute, imported when called."""

from __future__ import annotations

import sys
from importlib import import_module

import click

from dbnd import __version__, _console
from dbnd._errors import DatabandError
from dbnd._hooks import Command
from dbnd._plugins import plugins


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
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(command.name, command.help) for _, command in sorted(self._known().items())])


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="dbnd")
def cli() -> None:
    """Track runs, tasks, params and metrics: yours and those of your MLflow code."""


def main() -> None:
    """Run the command line and exit with its code: 0, 10 run failed, 8 configuration, 2 usage."""
    try:
        # Not standalone, click returns the code of ctx.exit() and leaves errors to us.
        code = cli.main(prog_name="dbnd", standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        _console.error("Interrupted.")
        sys.exit(130)
    except DatabandError as error:
        _console.error(str(error))
        sys.exit(error.exit_code)
    except BrokenPipeError:  # the reader of a pipe, such as `head`, has seen enough
        sys.stderr.close()
        sys.exit(0)
