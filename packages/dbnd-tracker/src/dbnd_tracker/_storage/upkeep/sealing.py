"""Sealing: the oldest points of a series, rows until now, become a segment.

What is sealed is read and compressed first, outside of any writing transaction, because points never change. Then one
transaction writes the segment, deletes the rows and moves the border between the two, if the border still is where it
was: so several processes may seal at once, be killed, and begin again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from functools import partial
from typing import Any, Final, NamedTuple, cast

from sqlalchemy import Table, delete, func, insert, or_, select, update
from sqlalchemy.orm import Session

from dbnd.plugins import console
from dbnd_tracker._errors import PayloadError, StorageError
from dbnd_tracker._storage.bulk import chunks
from dbnd_tracker._storage.database import Database
from dbnd_tracker._storage.models import Attempt, MetricSeries, Run
from dbnd_tracker._storage.points.models import SEGMENT, Metric, Segment
from dbnd_tracker._storage.points.reading import read_rows
from dbnd_tracker._storage.points.segments import VERSION, head, pack
from dbnd_tracker._storage.states import FINAL_STATES, lost
from dbnd_tracker._storage.writer import Writer

LEAST: Final = 16
"""Points below which the rest of a series, when its run has ended, stays rows: a segment would be no smaller."""
# How long after the end of a run its points are sealed: those of other processes may still come.
_SETTLED: Final = timedelta(minutes=1)
# Points, and runs, of one piece of work.
_POINTS: Final = SEGMENT
_RUNS: Final = 20
# Seconds between looks for work, when there was none.
_IDLE: Final = 5.0
# While others write, the sealer works this part of the time.
_SHARE: Final = 0.04

# Seconds between two pieces of work, at least.
_REST: Final = 0.01
# The number is any that no other program of a PostgreSQL server is likely to use; held until the transaction ends.
_TAKE_TURN: Final = select(func.pg_try_advisory_xact_lock(0x6462_6E65))

_SEGMENTS: Final = cast("Table", Segment.__table__)
_FRESH: Final = MetricSeries.points - MetricSeries.sealed


class _Stretch(NamedTuple):
    """Points that are to be a segment."""

    series_id: int
    sealed: int
    """How many points of the series were sealed when they were read."""
    row: dict[str, Any]


class _Work(NamedTuple):
    """What one transaction seals."""

    stretches: list[_Stretch]
    runs: Sequence[int]
    """Ids of runs that are sealed with it."""


def seal_full(database: Database) -> int:
    """Seal stretches of series that were found to have a whole one, and return how many points were sealed."""
    sealed = 0
    while database.full_series and not sealed:
        series_id = database.full_series.pop()
        with database.read() as session:
            work = _work(session, MetricSeries.id == series_id, _FRESH >= SEGMENT)
        sealed = _seal(database, work)
        if sealed:
            database.full_series.add(series_id)  # until nothing is found any more
    return sealed


def seal_ended(database: Database, settled: timedelta = _SETTLED) -> int | None:
    """Seal points of some runs that ended, and return how many; None when all such runs are sealed."""
    before = datetime.now(timezone.utc) - settled
    with database.read() as session:
        if database.path is None and not session.scalar(_TAKE_TURN):  # another process is at the same runs
            return 0
        ended = or_(Run.state.in_(sorted(FINAL_STATES)), lost(session))
        wanted = select(Run.id).where(~Run.is_sealed, ended, func.coalesce(Run.end_time, Run.start_time) < before)
        runs = session.scalars(wanted.order_by(Run.id).limit(_RUNS)).all()
        if not runs:
            return None
        attempts = select(Attempt.id).where(Attempt.run_id.in_(runs))
        work = _work(session, MetricSeries.attempt_id.in_(attempts), _FRESH >= LEAST, rest=True)
    if sum(stretch.row["points"] for stretch in work.stretches) < _POINTS:
        work = work._replace(runs=runs)
    return _seal(database, work)


def find_late(database: Database) -> None:
    """Let those runs be sealed once more to which points have come since; it looks at every series."""
    late = select(Attempt.run_id).join(MetricSeries).join(Run, Run.id == Attempt.run_id)
    with database.read() as session:
        runs = session.scalars(late.where(Run.is_sealed, _FRESH >= LEAST).distinct()).all()

    def change(writer: Writer) -> None:
        for some in chunks(runs):
            writer.connection.execute(update(Run).where(Run.id.in_(some)).values(is_sealed=False))

    if runs:
        database.write(change)


def fresh_points(database: Database) -> int:
    """How many points are rows; some of them are too few to be sealed."""
    with database.read() as session:
        return int(session.scalar(select(func.sum(_FRESH))) or 0)


def seal_all(database: Database, report: Callable[[int], None] = lambda _: None) -> int:
    """Seal all that can be sealed now, and return how many points were; ``report`` is told now and then."""
    total = 0
    find_late(database)
    while (sealed := seal_ended(database, timedelta())) is not None:
        total += sealed
        report(total)
    with database.read() as session:
        database.full_series.update(session.scalars(select(MetricSeries.id).where(_FRESH >= SEGMENT)))
    while sealed := seal_full(database):
        total += sealed
        report(total)
    return total


def _work(session: Session, *conditions: Any, rest: bool = False) -> _Work:
    """Stretches of series that meet the conditions; if ``rest``, also what fills no segment."""
    wanted = select(MetricSeries.id, MetricSeries.points, MetricSeries.sealed).where(*conditions)
    stretches: list[_Stretch] = []
    points = 0
    # More series than these are not looked at: each has as many points at least.
    for series_id, count, border in session.execute(wanted.order_by(MetricSeries.id).limit(-(-_POINTS // LEAST))):
        sealed = border
        while count - sealed >= (LEAST if rest else SEGMENT) and points < _POINTS:
            last = min(sealed + SEGMENT, count)
            part = read_rows(session.connection(), series_id, sealed, last)
            if part.size != last - sealed:  # rows were deleted by hand
                break
            place = {"series_id": series_id, "first": sealed + 1, "points": part.size, "version": VERSION}
            stretches.append(_Stretch(series_id, sealed, {**place, **head(part), "data": pack(part)}))
            sealed += part.size
            points += part.size
    return _Work(stretches, [])


def _seal(database: Database, work: _Work) -> int:
    return database.write(partial(_write, work)) if work.stretches or work.runs else 0


def _write(work: _Work, writer: Writer) -> int:
    """Write segments in place of rows, and return of how many points; what somebody else has sealed is passed over."""
    connection = writer.connection
    sealed = 0
    for series_id, before, row in work.stretches:
        last = before + row["points"]
        at_border = (MetricSeries.id == series_id, MetricSeries.sealed == before)
        if connection.execute(update(MetricSeries).where(*at_border).values(sealed=last)).rowcount == 1:
            connection.execute(insert(_SEGMENTS), row)
            connection.execute(delete(Metric).where(Metric.series_id == series_id, Metric.number <= last))
            sealed += row["points"]
    if work.runs:
        connection.execute(update(Run).where(Run.id.in_(work.runs)).values(is_sealed=True))
    return sealed


@contextmanager
def sealing(database: Database) -> Iterator[None]:
    """Seal in a thread during the block: half of the time while nobody else writes, else a small part of it."""
    stop = threading.Event()
    thread = threading.Thread(target=_keep_sealing, args=(database, stop), name="dbnd-sealer", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(_IDLE)


def _keep_sealing(database: Database, stop: threading.Event) -> None:
    warn = console.once_a_minute()
    pause = _IDLE
    written = database.written
    has_looked = False
    while not stop.wait(pause):
        is_alone = database.written == written
        started = time.perf_counter()
        try:
            if not has_looked:
                find_late(database)
                has_looked = True
            sealed = seal_full(database) or seal_ended(database)
        except (PayloadError, StorageError) as error:
            warn(f"Points could not be sealed, and stay rows for now: {error}")
            sealed = None
        took = time.perf_counter() - started
        written = database.written
        pause = _IDLE if sealed is None else max(_REST, took if is_alone else took / _SHARE)
