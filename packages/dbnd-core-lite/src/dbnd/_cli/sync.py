"""``dbnd sync``: deliver what earlier processes could not."""

from __future__ import annotations

import _thread
import signal
import threading
from pathlib import Path
from typing import Final

import click

from dbnd._base.errors import UsageError
from dbnd._config.config import Config
from dbnd._config.settings import CoreSettings
from dbnd._context.registry import load_config
from dbnd._journal.leftovers import Leftover, find, tidy
from dbnd._journal.leftovers import discard as discard_file
from dbnd._run.relay import Relay
from dbnd._run.sync import Report, Sync
from dbnd._terminal import console
from dbnd._terminal.text import Shown, capitalised, duration

# Seconds for which a tracker that answers, but takes nothing, is tried.
_PATIENCE: Final = 30.0


@click.command()
@click.argument("folder", required=False, type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--watch", is_flag=True, help="Deliver what is written, also by processes that only keep it, until stopped."
)
@click.option("--list", "list_", is_flag=True, help="List what is not delivered, and send nothing.")
@click.option("--dry-run", is_flag=True, help="Say what would be sent where, and send nothing.")
@click.option("--retry-dead", is_flag=True, help="Send the events that were refused once more, too.")
@click.option("--discard", is_flag=True, help="Deliver what can be, show what cannot, and remove that for good.")
@click.option("-y", "--yes", is_flag=True, help="With --discard: do not ask.")
@click.option("--json", "as_json", is_flag=True, help="With --list: print JSON.")
def sync(
    folder: Path | None,
    *,
    watch: bool,
    list_: bool,
    dry_run: bool,
    retry_dead: bool,
    discard: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Deliver the events that earlier processes could not.

    FOLDER is where the journals are, if not where core.journal_folder says.

    Exit codes: 0 everything is delivered (or --watch was stopped), 1 something is left or was damaged,
    8 configuration, 2 usage.
    """
    if discard and (list_ or dry_run):
        raise UsageError("--discard removes events, and --list and --dry-run change nothing: give one of them.")
    if as_json and not list_:
        raise UsageError("--json is for what --list shows: give both of them.")
    if watch and (list_ or dry_run or discard or retry_dead):
        raise UsageError("--watch delivers what is written, and takes none of the other options.")
    # A plugin may keep something beside the journals, which it finds by the configuration.
    config = load_config(lenient=list_, conf={"core.journal_folder": str(folder)} if folder else None)
    folder = config.settings(CoreSettings).journals
    if list_:
        _list(find(folder), as_json=as_json)
        return
    config.check()
    if watch:
        _watch(folder, config)
        return
    work = Sync(folder, config, retry_dead=retry_dead)
    if not work.found and not work.in_use:
        tidy(folder)
        console.success("Nothing waits to be delivered.")
        return
    if dry_run:
        _announce(work)
        return
    events = sum(leftover.events for leftover in work.found)
    with console.progress("Delivering", events, patience=0.0) as progress:
        report = work.deliver(patience=_PATIENCE, progress=progress)
    _say(report)
    is_complete = report.is_complete
    if discard:
        # What was refused just now is kept, unless dead letters are meant.
        is_complete = _discard(folder, yes=yes, dead_too=retry_dead) and not (report.refused and not retry_dead)
    click.get_current_context().exit(0 if is_complete else 1)


def _watch(folder: Path, config: Config) -> None:
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        # By another thread: this one holds the lock of ``stop`` now and then while it waits, and would wait for itself.
        signal.signal(number, lambda *_: _thread.start_new_thread(stop.set, ()))
    Relay(folder, config, console.info, console.warning).run(stop)


def _discard(folder: Path, *, yes: bool, dead_too: bool) -> bool:
    """Remove what is left and nobody delivers; returns whether nothing of that is there any more."""
    left = [x for x in find(folder) if not x.is_owned and (dead_too or not (x.is_dead or x.is_damaged))]
    if not left:
        console.info("There is nothing to discard.")
        return True
    console.result(_table(left))
    events = sum(leftover.events for leftover in left)
    if not yes and not console.is_confirmed(f"Discard these {events} events, for good?"):
        return False
    is_done = True
    for leftover in left:
        try:
            problem = None if discard_file(leftover.path) else "another process has it now"
        except OSError as error:
            problem = str(error)
        if problem:
            events -= leftover.events
            is_done = False
            console.error(f"{leftover.path} is not discarded: {problem}.")
    console.success(f"{events} events are discarded.")
    return is_done


def _table(found: list[Leftover]) -> Shown:
    cells = [
        (str(x.events), x.state, x.header.url if x.header else "", duration(x.age), x.problem or str(x.path))
        for x in found
    ]
    return console.table(("events", "state", "destination", "age", "file"), cells, whole_last=True)


def _list(found: list[Leftover], *, as_json: bool) -> None:
    if as_json:
        rows = [
            {
                "file": str(leftover.path),
                "destination": leftover.header.url if leftover.header else None,
                "events": leftover.events,
                "state": leftover.state,
                "process": leftover.header.pid if leftover.header else None,
                "problem": leftover.problem,
            }
            for leftover in found
        ]
        console.json_result(rows)
    else:
        console.result(_table(found) if found else "Nothing waits to be delivered.")


def _announce(work: Sync) -> None:
    for leftover in work.found:
        if leftover.problem or leftover.header is None:
            console.result(leftover.problem or "")
            continue
        what = f"{leftover.events} events of {leftover.path} for {leftover.header.url}"
        destination = work.destination_of(leftover.header)
        if destination.url is None:
            console.result(f"{what} would not be sent, because that is not configured here: {destination.hint}.")
        else:
            console.result(f"{what} would be sent.")


def _say(report: Report) -> None:
    if report.delivered:
        console.success(f"{report.delivered} events are delivered.")
    elif report.is_complete:
        console.success("Nothing waits to be delivered.")
    if report.dropped:
        console.info(f"{report.dropped} of them were dropped, because their runs were deleted.")
    if report.refused:
        console.error(f"{report.refused} events were refused ({report.reason}): `dbnd sync --list` shows all.")
    for problem in report.problems:
        console.warning(problem)
    for path, events in report.damaged.items():
        console.error(
            f"{events} events are damaged and lost; their bytes are kept in {path}: look at it, and remove it."
        )
    _say_what_waits(report)


def _say_what_waits(report: Report) -> None:
    for pid, events in report.in_use.items():
        console.info(f"{events} events are in use by process {pid}, which delivers them itself.")
    for who, events in report.leased.items():
        console.info(f"{events} events are left to {who}, which delivers this folder.")
    for path, events in report.busy.items():
        console.error(f"{events} events of {path} are left, because another process has it now: try again later.")
    for name, why in report.unreachable.items():
        console.error(f"{capitalised(name)} does not take events ({why}); they are kept: try again later.")
    for destination, events in report.elsewhere.items():
        console.error(
            f"{events} events are for {destination.name}, which is not configured here: {destination.hint}, and "
            "`dbnd sync --discard` removes them."
        )
