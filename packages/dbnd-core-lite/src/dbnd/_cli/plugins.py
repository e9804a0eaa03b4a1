"""``dbnd plugins``: what extends dbnd here."""

from __future__ import annotations

import dataclasses

import click

from dbnd._context.plugins import plugins as plugin_manager
from dbnd._terminal import console


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def plugins(as_json: bool) -> None:
    """List the plugins, their versions and the hooks that they implement."""
    infos = plugin_manager().infos()
    if as_json:
        console.json_result([dataclasses.asdict(info) for info in infos])
        return
    cells = [(i.name, i.distribution, i.version, f"error: {i.error}" if i.error else ", ".join(i.hooks)) for i in infos]
    console.result(console.table(("plugin", "distribution", "version", "hooks"), cells, whole_last=True))
