"""``dbnd config`` and ``dbnd plugins``: what is configured and where it stands, and what extends dbnd here."""

from __future__ import annotations

import dataclasses

import click

from dbnd._base.errors import UsageError
from dbnd._cli.completion import complete_key
from dbnd._context.plugins import plugins as plugin_manager
from dbnd._context.registry import load_config
from dbnd._terminal import console


@click.group()
def config() -> None:
    """Show the configuration."""


@config.command()
@click.argument("name", required=False, metavar="[SECTION[.KEY]]", shell_complete=complete_key)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def show(name: str | None, as_json: bool) -> None:
    """Print every key, its value and where the value comes from; secrets are masked."""
    loaded = load_config()
    loaded.check()
    rows = [row for row in loaded.explain() if not name or name.lower() in {row.section, f"{row.section}.{row.key}"}]
    if not rows:
        raise UsageError(f"There is no section or key {name!r}; `dbnd config show` lists all.")
    if as_json:
        console.json_result([row._asdict() for row in rows])
        return
    cells = [(f"{row.section}.{row.key}", str(row.value), row.source) for row in rows]
    console.result(console.table(("key", "value", "source"), cells, whole_last=True))


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def plugins(as_json: bool) -> None:
    """List the plugins, their versions and the hooks that they implement."""
    infos = plugin_manager().infos
    if as_json:
        console.json_result([dataclasses.asdict(info) for info in infos])
        return
    cells = [(i.name, i.distribution, i.version, f"error: {i.error}" if i.error else ", ".join(i.hooks)) for i in infos]
    console.result(console.table(("plugin", "distribution", "version", "hooks"), cells, whole_last=True))
