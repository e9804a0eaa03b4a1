"""Archiving: the points of a run that ended long ago move from the database into a file of their own.

First the file is written, and is on the disk; then one transaction puts it in its place and takes the data from the
segments that it covers. Whoever is killed in between leaves a file that the next one writes again, and points that are
in the database still. Of two that archive a run at once, the one whose file has fewer points leaves the other's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from dbnd_tracker._storage.bulk import chunks
from dbnd_tracker._storage.database import Database
from dbnd_tracker._storage.models import Attempt, MetricKey, MetricSeries, Run, TaskRun
from dbnd_tracker._storage.points.archive import ArchivedSeries, place_file, write_archive
from dbnd_tracker._storage.points.models import ARCHIVED, Segment
from dbnd_tracker._storage.points.reading import read_points
from dbnd_tracker._storage.writer import Writer


def archive_run(database: Database, folder: Path, run_uid: str, about: Callable[[Session, str], str]) -> int:
    """Move the points of a run into its file, and return how many went; 0 when all are there, or it has none.

    They must be sealed. ``about`` says of a run what the read API does, as JSON, which stays in the database, too.

    Raises:
        StorageError: The file cannot be written, or the database cannot be used.
    """
    covered: dict[int, int] = {}
    with database.read() as session:
        run = session.scalar(select(Run).where(Run.uid == run_uid))
        if run is None or not _has_sealed(session, run.id):
            return 0
        series = _series(session, run, covered)
        part = write_archive(folder, run.uid, run.start_time, series, about(session, run.uid))
    try:
        return database.write(partial(_take, run_uid, part, covered))
    finally:
        part.unlink(missing_ok=True)


def _has_sealed(session: Session, run_id: int) -> bool:
    """Whether any points of a run are sealed in the database."""
    of_run = select(MetricSeries.id).join(Attempt).where(Attempt.run_id == run_id)
    sealed = select(Segment.series_id).where(Segment.version != ARCHIVED).limit(1)
    parts = chunks(session.scalars(of_run).all())
    return any(session.scalar(sealed.where(Segment.series_id.in_(some))) is not None for some in parts)


def _series(session: Session, run: Run, covered: dict[int, int]) -> Iterator[ArchivedSeries]:
    """All series of a run with their points; how many these are is noted in ``covered``."""
    task = func.coalesce(TaskRun.task_af_id, TaskRun.name, TaskRun.uid)
    wanted = select(MetricSeries.id, MetricSeries.points, TaskRun.uid, task, MetricKey.name)
    wanted = wanted.join(Attempt, Attempt.id == MetricSeries.attempt_id).join(MetricKey)
    wanted = wanted.join(TaskRun, TaskRun.uid == Attempt.task_run_uid).where(Attempt.run_id == run.id)
    for series_id, count, *names in session.execute(wanted.order_by(MetricSeries.id)).all():
        points = read_points(session.connection(), series_id, 0, count)
        covered[series_id] = points.size
        yield ArchivedSeries((run.uid, run.name, run.job_name, *names), series_id, points)


def _take(run_uid: str, part: Path, covered: Mapping[int, int], writer: Writer) -> int:
    """Put the file in its place, and take the data from the segments that it covers."""
    session = writer.session
    if session.scalar(select(Run.id).where(Run.uid == run_uid).with_for_update()) is None:  # deleted meanwhile
        return 0
    end = Segment.first + Segment.points - 1
    archived = select(func.max(end)).where(Segment.version == ARCHIVED)
    ends = {series_id: session.scalar(archived.where(Segment.series_id == series_id)) or 0 for series_id in covered}
    # The part is gone where another process came first.
    if not part.exists() or any(ends[series_id] > count for series_id, count in covered.items()):
        return 0
    place_file(part, run_uid)
    moved = 0
    for series_id, count in covered.items():
        its = (Segment.series_id == series_id, end <= count, Segment.version != ARCHIVED)
        moved += int(session.scalar(select(func.sum(Segment.points)).where(*its)) or 0)
        change = update(Segment).where(*its).values(data=b"", version=ARCHIVED)
        session.execute(change, execution_options={"synchronize_session": False})
    return moved
