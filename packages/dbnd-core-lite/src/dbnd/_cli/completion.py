"""``dbnd completion``: what a shell needs to complete the words of ``dbnd``."""

from __future__ import annotations

import click
from click.shell_completion import CompletionItem, get_completion_class

from dbnd._terminal import console
from dbnd._terminal.text import plain


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    r"""Print the script by which SHELL completes commands, options, targets and runs.

    \b
    bash: echo 'eval "$(dbnd completion bash)"' >> ~/.bashrc
    zsh:  echo 'eval "$(dbnd completion zsh)"' >> ~/.zshrc
    fish: dbnd completion fish > ~/.config/fish/completions/dbnd.fish
    """
    from dbnd._cli.main import cli

    found = get_completion_class(shell)
    assert found is not None, "click completes all three"
    console.result(plain(found(cli, {}, "dbnd", "_DBND_COMPLETE").source(), lines=True))


def complete_target(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The names that installed packages register; where none begins so, the shell's own files."""
    del ctx, param
    from importlib.metadata import entry_points

    from dbnd._run.loader import GROUP

    names = sorted(entry.name for entry in entry_points(group=GROUP) if entry.name.startswith(incomplete))
    # Not both: bash forgets the names when it is told of files.
    return [CompletionItem(name) for name in names] or [CompletionItem(incomplete, type="file")]
