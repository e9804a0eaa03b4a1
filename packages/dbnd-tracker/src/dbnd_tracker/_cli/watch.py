"""``dbnd watch``: a run while it goes on, wherever it runs, as the tracker knows it."""

from __future__ import annotations

import sys
import time
from itertools import count
from typing import TYPE_CHECKING, Final

import click

from dbnd_tracker._cli.references import complete_run, configured_reader, resolve

if TYPE_CHECKING:
    from dbnd_tracker._cli.watched import WatchedRun

# Seconds between two pictures, and least seconds between two questions to the tracker.
_FRAME: Final = 0.25
_PERIOD: Final = 1.0
# A tracker that is slow to answer is asked less often: it may spend this part of its time on us.
_SHARE: Final = 0.2
RUN_FAILED: Final = 10
INTERRUPTED: Final = 130


@click.command()
@click.argument("run", required=False, shell_complete=complete_run)
@click.option(
    "-m", "--metric", "metrics", multiple=True, metavar="NAME", help="Draw this metric; * stands for any text."
)
@click.pass_context
def watch(ctx: click.Context, run: str | None, metrics: tuple[str, ...]) -> None:
    """Watch a run while it goes on: its tasks, and charts of its metrics.

    RUN is named by its uid or the first digits of it, by its name, or by "latest"; without it, it is the newest run
    that goes on, or else the newest one. It may run anywhere, since the tracker is asked. The view ends with the run;
    Ctrl-C leaves it.

    Exit codes: 0 the run succeeded, 10 it did not, 130 Ctrl-C.
    """
    from dbnd.plugins import console
    from dbnd_tracker._cli.watched import WatchedRun
    from dbnd_tracker._queries.language.grammar import condition

    reader = configured_reader()
    running = [] if run else reader.runs(condition("state", "=", "running"), 1).data
    found = running[0] if running else resolve(reader, run or "latest")
    watched = WatchedRun(reader, found, metrics)
    try:
        _follow(watched)
    except KeyboardInterrupt:
        console.details("")  # the terminal has shown the key
        console.info(f"The run {watched.run.name} goes on.")
        ctx.exit(INTERRUPTED)
    ctx.exit(0 if watched.state == "success" else RUN_FAILED)


def _follow(watched: WatchedRun) -> None:
    """Show the run until it ends: on a terminal in place, else a line for each task run that ends."""
    from dbnd.plugins import Region, console

    region = Region(sys.stderr.fileno()) if console.is_live() else None
    colour = console.has_colour(sys.stderr)
    size, next_read = None, 0.0
    try:
        for frame in count():
            size = None if region is None else region.size()
            began = time.monotonic()
            if began >= next_read:
                for line in watched.read(size):
                    if region is None:
                        console.info(line)
                next_read = time.monotonic() + max(_PERIOD, (time.monotonic() - began) / _SHARE)
            if watched.has_ended:
                break
            if region is not None and size is not None:
                region.draw(watched.picture(size, frame, colour=colour))
            time.sleep(_FRAME)
    finally:
        if region is not None:
            region.close()
    watched.tell_end(size, colour=colour)
