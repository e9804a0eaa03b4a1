"""``dbnd config``: what is configured, and where it stands."""

from __future__ import annotations

import dataclasses

import click

from dbnd._base.errors import UsageError
from dbnd._context.registry import load_config
from dbnd._terminal import console


@click.group()
def config() -> None:
    """Show the configuration."""


@config.command()
@click.argument("name", required=False, metavar="[SECTION[.KEY]]")
@click.option("-c", "--set-config", multiple=True, metavar="SECTION.KEY=VALUE", help="Set a configuration value.")
@click.option("--conf-file", multiple=True, metavar="FILE", help="Read a configuration file, over all others.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def show(name: str | None, set_config: tuple[str, ...], conf_file: tuple[str, ...], as_json: bool) -> None:
    """Print every key, its value and where the value comes from; secrets are masked."""
    loaded = load_config(set_config=set_config, conf_files=conf_file)
    loaded.check()
    rows = loaded.explain()
    if name:
        rows = [row for row in rows if name.lower() in {row.section, f"{row.section}.{row.key}"}]
        if not rows:
            msg = f"There is no section or key {name!r}; `dbnd config show` lists all."
            raise UsageError(msg)
    if as_json:
        console.json_result([dataclasses.asdict(row) for row in rows])
        return
    cells = [(f"{row.section}.{row.key}", row.value, row.source) for row in rows]
    console.result(console.table(("key", "value", "source"), cells, whole_last=True))
