"""``dbnd doctor``: look at configuration, tracker, credentials, journals and disk, and say what is wrong."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import click

from dbnd._base.clock import monotonic
from dbnd._base.errors import ConfigError
from dbnd._base.masking import mask_url
from dbnd._config.config import Config
from dbnd._config.settings import CoreSettings
from dbnd._context.registry import configured_url, create_transport, destination_of, load_config
from dbnd._journal.leftovers import Leftover, find
from dbnd._terminal import console
from dbnd._terminal.text import capitalised
from dbnd._tracking.contracts import AccessError, TransportError, tracker_name

# Seconds that a tracker has to answer.
_PATIENCE: Final = 10.0
# Free bytes on the journal's disk below which something should be done.
_LITTLE_SPACE: Final = 200 << 20
# What is said of the files in each state.
_STATES: Final = {
    "in use": ("ok", "their processes deliver them"),
    "relayed": ("ok", "a relay (`dbnd sync --watch`) delivers them"),
    "waiting": ("warning", "`dbnd sync` or the next `dbnd run` sends them"),
    "refused": ("error", "`dbnd sync --list` shows where they are kept, `dbnd sync --retry-dead` sends them again"),
    "damaged": (
        "error",
        "they are lost: `dbnd sync --list` shows the files with their bytes; look at them, and remove them",
    ),
}


class Finding(NamedTuple):
    """What one look has found, as a sentence; the status is "ok", "warning" (it may be as you want it) or "error"."""

    check: str
    status: str
    text: str


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def doctor(ctx: click.Context, as_json: bool) -> None:
    """Check configuration, tracker, credentials, journals and disk.

    Nothing is changed, but for an embedded tracker that is not there yet: it is made.

    Exit codes: 0 all is well, 1 something is wrong.
    """
    findings = list(examine())
    if as_json:
        console.json_result([finding._asdict() for finding in findings])
    else:
        cells = [(finding.status, finding.check, finding.text) for finding in findings]
        console.result(console.table(("", "what", "found"), cells, whole_last=True))
    ctx.exit(1 if any(finding.status == "error" for finding in findings) else 0)


def examine() -> Iterator[Finding]:
    """Look at everything, in the order in which one thing depends on the other."""
    try:
        config = load_config()
        config.check()
    except ConfigError as error:
        yield Finding("configuration", "error", str(error))
        config = load_config(lenient=True)
    else:
        files = ", ".join(map(str, config.files))
        yield Finding("configuration", "ok", f"It is read from {files}." if files else "No configuration file is read.")
        for row in config.explain():
            if row.source != "default":
                yield Finding("configuration", "ok", f"{row.section}.{row.key} = {row.value} ({row.source}).")
        yield from _tracker(config)
    folder = config.settings(CoreSettings).journals
    found = find(folder)
    yield from _journals(found, config)
    yield from _other_destinations(found, config)
    yield _disk(folder)


def _tracker(config: Config) -> Iterator[Finding]:
    url = configured_url(config)
    if url is None:
        text = "Nothing is tracked: install dbnd-tracker (pip install 'databand[tracker]') or set core.databand_url."
        yield Finding("tracker", "error", text)
        return
    name = mask_url(url)
    source = config.source("core", "databand_url") if config.settings(CoreSettings).databand_url else "embedded default"
    yield Finding("tracker", "ok", f"Runs are tracked in {name} ({source}).")
    findings = list(_reached("tracker", name, url, config))
    yield from findings
    if url.startswith("http") and all(finding.status == "ok" for finding in findings):
        has_token = config.settings(CoreSettings).databand_access_token is not None
        what = "The token of core.databand_access_token" if has_token else "The login of core.dbnd_user"
        yield Finding("credentials", "ok", f"{what} is accepted.")


def _other_destinations(found: list[Leftover], config: Config) -> Iterator[Finding]:
    """Whether what events wait for beside the tracker can be reached."""
    states = {"in use", "relayed", "waiting"}
    waiting = {leftover.header.url for leftover in found if leftover.header is not None and leftover.state in states}
    for url in sorted(waiting):
        destination = destination_of(url, config)
        if destination.url is not None and destination.name != tracker_name(url):
            yield from _reached("destination", capitalised(destination.name), destination.url, config)


def _reached(check: str, name: str, url: str, config: Config) -> Iterator[Finding]:
    """Whether what is at ``url`` answers, and takes the credentials."""
    try:
        transport = create_transport(url, config)
    except ConfigError as error:
        yield Finding(check, "error", str(error))
        return
    transport.deadline = monotonic() + _PATIENCE
    try:
        transport.check()
    except AccessError as error:
        yield Finding(check, "ok", f"{name} can be reached.")
        yield Finding("credentials", "error", f"{name} refuses the credentials: {error}.")
    except TransportError as error:
        if config.settings(CoreSettings).delivery == "relay":
            text = f"{name} cannot be used from here ({error}): the relay has to reach it (core.delivery = relay)."
            yield Finding(check, "warning", text)
        else:
            yield Finding(check, "error", f"{name} cannot be used: {error}.")
    else:
        yield Finding(check, "ok", f"{name} can be reached.")
    finally:
        transport.close()


def _journals(found: list[Leftover], config: Config) -> Iterator[Finding]:
    for leftover in found:
        if leftover.problem:
            yield Finding("journal", "error", leftover.problem)
    for state, (status, hint) in _STATES.items():
        by_url: dict[str, list[Leftover]] = {}
        for leftover in found:
            if leftover.state == state and leftover.header is not None:
                by_url.setdefault(leftover.header.url, []).append(leftover)
        for url, files in by_url.items():
            events, destination = sum(leftover.events for leftover in files), destination_of(url, config)
            is_elsewhere = destination.url is None and state == "waiting"
            whose = "" if destination.name == tracker_name(url) and not is_elsewhere else f" for {destination.name}"
            how = f"that is not configured here, {destination.hint}" if is_elsewhere else hint
            yield Finding("journal", status, f"{events} events{whose} in {len(files)} files are {state}: {how}.")
    if not found:
        yield Finding("journal", "ok", "Nothing waits to be delivered.")


def _disk(folder: Path) -> Finding:
    # Path.exists() raises where it may not look.
    existing = next(path for path in (folder, *folder.parents) if os.path.exists(path))  # noqa: PTH110
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        text = f"{folder} cannot be written: make {existing} a folder of yours, or set DBND_HOME to one."
        return Finding("disk", "error", text)
    free = shutil.disk_usage(existing).free
    text = f"{free / (1 << 30):,.1f} GiB are free for {folder}."
    return Finding("disk", "error" if free < _LITTLE_SPACE else "ok", text)
