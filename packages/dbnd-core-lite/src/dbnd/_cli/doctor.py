"""``dbnd doctor``: say what is wrong with a setup."""

from __future__ import annotations

import dataclasses

import click

from dbnd._cli.checks import examine
from dbnd._terminal import console


@click.command()
@click.option("-c", "--set-config", multiple=True, metavar="SECTION.KEY=VALUE", help="Set a configuration value.")
@click.option("--conf-file", multiple=True, metavar="FILE", help="Read a configuration file, over all others.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def doctor(ctx: click.Context, set_config: tuple[str, ...], conf_file: tuple[str, ...], as_json: bool) -> None:
    """Check configuration, tracker, credentials, journals and disk.

    Nothing is changed, but for an embedded tracker that is not there yet: it is made.

    Exit codes: 0 all is well, 1 something is wrong.
    """
    findings = list(examine(set_config, conf_file))
    if as_json:
        console.json_result([dataclasses.asdict(finding) for finding in findings])
    else:
        cells = [(finding.status, finding.check, finding.text) for finding in findings]
        console.result(console.table(("", "what", "found"), cells, whole_last=True))
    ctx.exit(1 if any(finding.status == "error" for finding in findings) else 0)
