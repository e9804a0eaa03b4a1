"""The thread that shows a run while it goes on."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from dbnd._base.clock import utc_now
from dbnd._base.forks import start
from dbnd._cli.block import ENDED, GLYPHS, block
from dbnd._terminal import console
from dbnd._terminal.region import Region
from dbnd._terminal.text import duration, plain

if TYPE_CHECKING:
    from dbnd._cli.progress import RunProgress, TaskProgress

# Seconds between two looks at the run.
_PERIOD: Final = 0.25
# A run that takes less is over before anybody has read the block.
_DELAY: Final = 1.0


@contextmanager
def shown(progress: RunProgress) -> Iterator[None]:
    """Keep ``progress`` up to date and show it on the terminal while the block runs.

    On a terminal it is a block of lines that changes in place; elsewhere nothing but, asked for by ``-v``, a line for
    each task run that ends.
    """
    live = _Live(progress)
    start(live)
    try:
        yield
    finally:
        live.stop()


class _Live(threading.Thread):
    def __init__(self, progress: RunProgress) -> None:
        super().__init__(name="dbnd-live", daemon=True)
        self._progress = progress
        self._end = threading.Event()
        self._colour = console.has_colour(sys.stderr)
        self._region = Region(sys.stderr.fileno()) if console.is_live() else None
        self._frame = 0

    def stop(self) -> None:
        self._end.set()
        if self.ident is not None:
            self.join()
        self._progress.close()
        self._update()
        self._close()

    def run(self) -> None:
        while not self._end.wait(_PERIOD):
            self._update()
            if self._region is not None:
                try:
                    self._draw(self._region)
                except OSError:  # the terminal is gone; the run is not
                    self._close()

    def _update(self) -> None:
        for task in self._progress.update():
            if console.verbosity() > 0:
                console.info(_line(task))

    def _draw(self, region: Region) -> None:
        now = utc_now()
        if (now - self._progress.run.start_time).total_seconds() < _DELAY:
            return
        self._frame += 1
        region.draw(block(self._progress, region.size(), now, frame=self._frame, colour=self._colour))

    def _close(self) -> None:
        region, self._region = self._region, None
        if region is not None:
            try:
                region.close()
            except OSError:  # gone, with what stood there
                return


def _line(task: TaskProgress) -> str:
    task_run = task.task_run
    glyph, _ = GLYPHS.get(task_run.state, ("·", None))
    took = ((task_run.end_time or utc_now()) - task_run.start_time).total_seconds()
    return f"{glyph} {plain(task_run.af_id)} {ENDED.get(task_run.state, task_run.state.value)} after {duration(took)}"
