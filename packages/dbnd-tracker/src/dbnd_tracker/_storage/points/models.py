"""The tables of points.

Points of a series are numbered from one in the order in which they came. Fresh ones are rows of ``metrics``. The first
ones, up to ``MetricSeries.sealed``, are in ``segments``. The series is no foreign key of either, whose check would cost
more than the insertion; whoever adds points, or seals them, holds the row of the series.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import LargeBinary
from sqlalchemy.orm import Mapped, mapped_column

from dbnd_tracker._storage.base import Base, Id, Int16, Int64

SEGMENT: Final = 4_096
"""Points of a segment; the last one of a run that has ended may have fewer."""


ARCHIVE: Final = "dbnd_archive"
"""Option of a connection: the folder of the archive, or None."""
ARCHIVED: Final = 0
"""Version of a segment whose data is in the archive."""


class Metric(Base):
    """One point of a metric, narrow: there are hundreds of millions of them.

    The key is the only index. SQLite keeps the rows in it, so that a history is read from neighbouring pages.
    """

    __tablename__ = "metrics"
    __table_args__ = ({"sqlite_with_rowid": False},)

    series_id: Mapped[Id] = mapped_column(primary_key=True, autoincrement=False)
    number: Mapped[Int64] = mapped_column(primary_key=True, autoincrement=False)
    step: Mapped[Int64 | None]
    timestamp_us: Mapped[Int64]
    """Microseconds since the epoch."""
    value: Mapped[float | None]
    """NULL is NaN, or a value that is no number and stands in ``text``."""
    kind: Mapped[Int16]
    text: Mapped[str | None]


class Segment(Base):
    """Points of a series that follow one another: compressed, and what is asked of them most."""

    __tablename__ = "segments"
    __table_args__ = ({"sqlite_with_rowid": False},)

    series_id: Mapped[Id] = mapped_column(primary_key=True, autoincrement=False)
    first: Mapped[Int64] = mapped_column(primary_key=True, autoincrement=False)
    """Number of its first point."""
    points: Mapped[int]
    version: Mapped[Int16]
    """Of the format of ``data``: see ``points.segments``."""
    low_step: Mapped[Int64]
    """Smallest step; a point without one has the step 0 here."""
    high_step: Mapped[Int64]
    low_us: Mapped[Int64]
    """Earliest time, in microseconds since the epoch."""
    high_us: Mapped[Int64]
    stepless: Mapped[int]
    """How many points have no step."""
    texts: Mapped[int]
    """How many are no numbers."""
    finite: Mapped[int]
    """How many are finite numbers; of what else are numbers, some are NaN and some infinite."""
    low_value: Mapped[float | None]
    """Smallest finite value."""
    high_value: Mapped[float | None]
    mean: Mapped[float | None]
    """Of the finite values."""
    data: Mapped[bytes] = mapped_column(LargeBinary)
