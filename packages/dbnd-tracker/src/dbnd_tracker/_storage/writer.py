"""One writing transaction: its deadline, the integer ids that it needs, and what it must not make again."""

from __future__ import annotations

import threading
from collections import defaultdict
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Final, TypeVar

from sqlalchemy import delete, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite

from dbnd_tracker._errors import StorageError
from dbnd_tracker._storage.bulk import chunks, insert_rows, value_rows
from dbnd_tracker._storage.models import Attempt, Deleted, MetricKey, MetricSeries, Run, TaskDefinition, TaskRun
from dbnd_tracker._storage.points.repeats import Seen

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

    from sqlalchemy.orm import Session

    from dbnd_tracker._storage.base import Base

    Row = TypeVar("Row", Run, TaskRun, Attempt, TaskDefinition)
    A = TypeVar("A")
    T = TypeVar("T")

# Seconds between two attempts to stop what is read.
_PAUSE: Final = 0.1
# Ids of so many rows are remembered; past it all are forgotten and looked up again.
_REMEMBERED: Final = 200_000
# Points of which marks are kept, 8 bytes of each, before those of another series take their place.
_MARKS: Final = 2_000_000


class Deadline:
    """The end of a request's time: what has not begun to be committed by then never is, and what is read is stopped.

    So that whoever gives up on a request can say what became of it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.has_passed = False
        """Whether it is too late to begin anything."""
        self._commits = False
        self._stoppers: list[threading.Thread] = []

    @contextmanager
    def bounding(self, stop: Callable[[], None]) -> Iterator[None]:
        """Have ``stop`` called again and again from the end of the time to that of the block."""
        ended = threading.Event()

        def keep_stopping() -> None:
            while not ended.wait(_PAUSE):
                stop()

        stopper = threading.Thread(target=keep_stopping, daemon=True)
        with self._lock:
            self._stoppers.append(stopper)
            if self.has_passed:
                stopper.start()
        try:
            yield
        finally:
            with self._lock:
                self._stoppers.remove(stopper)
            ended.set()
            if stopper.ident is not None:  # nobody else gets what it may be stopping
                stopper.join()

    def begin_commit(self) -> bool:
        """Called before a commit; False when it is too late for one."""
        with self._lock:
            self._commits = not self.has_passed
            return self._commits

    def pass_by(self) -> bool:
        """Let it be too late from now on; False when something is committed, or is about to be."""
        with self._lock:
            self.has_passed = not self._commits
            for stopper in self._stoppers if self.has_passed else ():
                stopper.start()
            return self.has_passed


DEADLINE: Final[ContextVar[Deadline | None]] = ContextVar("dbnd_deadline", default=None)
"""That of the request which this thread or task works on."""


def in_time(items: Iterable[T]) -> Iterator[T]:
    """Many things that were read, as long as the time of the request lasts: the database alone is stopped by itself.

    Raises:
        StorageError: It has passed.
    """
    deadline = DEADLINE.get()
    for item in items:
        if deadline is not None and deadline.has_passed:
            raise StorageError("What was read is too much to be answered in time.")
        yield item


class StaleIdsError(Exception):
    """A row whose id was remembered is gone: another process has deleted it."""


class IdCache:
    """Ids that committed transactions have seen, of one database."""

    def __init__(self) -> None:
        self.ids: defaultdict[type[Base], dict[Any, int]] = defaultdict(dict)
        """By model, and by what names a row of it: uid, name, or a tuple of ids."""
        self.seen: dict[int, Seen] = {}
        """What is known of the points of series that had to be looked through, by id."""

    def clear(self) -> None:
        self.ids.clear()
        self.seen.clear()


class DeletedUids:
    """The record of what was deleted, as one writing transaction uses it.

    It is asked only for what the database does not have (any more), so that it costs nothing while nothing is new.
    """

    def __init__(self, session: Session, now: datetime) -> None:
        self._session = session
        self._now = now
        self._runs: dict[str, str] = {}
        self.dropped: defaultdict[str, int] = defaultdict(int)
        """How many events were dropped in this transaction, by the uid of the run that was deleted."""

    def find(self, uids: Iterable[str | None]) -> set[str]:
        """Those of these uids that were deleted."""
        wanted = {uid for uid in uids if uid is not None}
        for part in chunks(sorted(wanted)):
            found = self._session.execute(select(Deleted.uid, Deleted.run_uid).where(Deleted.uid.in_(part)))
            self._runs.update((row.uid, row.run_uid) for row in found)
        return wanted & self._runs.keys()

    def drop(self, uid: str, events: int = 1) -> None:
        """Count events that name ``uid``, if ``find`` has found it."""
        if uid in self._runs:
            self.dropped[self._runs[uid]] += events

    def add(self, uids: Collection[str], owner: str) -> None:
        """Note that ``uids``, started below ``owner``, which ``find`` has found, are deleted, too."""
        run_uid = self._runs[owner]
        new = sorted(set(uids) - self.find(uids))
        if new:
            rows = [{"uid": uid, "run_uid": run_uid, "deleted_at": self._now, "dropped": 0} for uid in new]
            self._session.execute(insert(Deleted), rows)
            self._runs.update(dict.fromkeys(new, run_uid))

    def forget(self, run_uid: str, uids: Sequence[str]) -> None:
        """Let a run and what is in it be made again, because a person asks for it."""
        for mine in (Deleted.run_uid == run_uid, *(Deleted.uid.in_(part) for part in chunks(uids))):
            self._session.execute(delete(Deleted).where(mine).execution_options(synchronize_session=False))
        self._runs.clear()

    def note(self) -> None:
        """Write down how many events were dropped."""
        for run_uid, events in sorted(self.dropped.items()):
            statement: Any = update(Deleted).where(Deleted.uid == run_uid).values(dropped=Deleted.dropped + events)
            self._session.execute(statement.execution_options(synchronize_session=False))


class Writer:
    """A transaction of ``Database.write``."""

    def __init__(self, session: Session, cache: IdCache) -> None:
        self.session = session
        self.connection = session.connection()
        """That of the session, which takes its time to find it."""
        self.now = datetime.now(timezone.utc)
        """Time of receipt, which stands in for missing timestamps."""
        self._cache = cache
        self._new: defaultdict[type[Base], dict[Any, int]] = defaultdict(dict)
        self.deleted = DeletedUids(session, self.now)
        self.full_series: set[int] = set()
        """Ids of series that have as many fresh points as make a segment."""
        self._insert = postgresql.insert if self.connection.dialect.name == "postgresql" else sqlite.insert

    def keep_ids(self) -> None:
        """Remember the ids of this transaction, which is committed."""
        if sum(map(len, tuple(self._cache.ids.values()))) > _REMEMBERED:
            self._cache.clear()
        for model, ids in self._new.items():
            self._cache.ids[model] |= ids

    def forget_ids(self) -> None:
        """Look all ids up again: those that are remembered may be of another database."""
        self._cache.clear()

    def row(self, model: type[Row], uid: str) -> Row | None:
        """The row of ``model`` with this uid, locked against other writers, or None."""
        return self.rows(model, (uid,)).get(uid)

    def rows(self, model: type[Row], uids: Iterable[str]) -> dict[str, Row]:
        """The rows of ``model`` with these uids, by uid, locked as by ``row`` in one order everywhere."""
        found: dict[str, Row] = {}
        for chunk in chunks(sorted(set(uids))):
            # KEY SHARE: rows that refer to these may be added meanwhile; locking those out leads to deadlocks.
            wanted = select(model).where(model.uid.in_(chunk)).order_by(model.uid).with_for_update(key_share=True)
            found.update((row.uid, row) for row in self.session.scalars(wanted))
        return found

    def attempt(self, uid: str) -> Attempt | None:
        """The attempt with this uid, made when no event has named it before; of one that was deleted, None."""
        found = self.attempts({uid}).get(uid)
        if found is None:
            self.deleted.drop(uid)
        return found

    def attempts(self, uids: Iterable[str]) -> Mapping[str, Attempt]:
        """The attempts with these uids, by uid; those that no event has named before are made, but no deleted ones.

        They are inserted with what is said of them before the next question, all at once.
        """
        wanted = set(uids)
        found = self.rows(Attempt, wanted)
        missing = wanted - found.keys()
        new = {uid: Attempt(uid=uid) for uid in sorted(missing - self.deleted.find(missing))}
        self.session.add_all(new.values())
        return {**found, **new}

    def attempt_ids(self, uids: Collection[str]) -> Mapping[str, int]:
        """Ids of attempts by uid; those that no event has named before get their rows, but no deleted ones."""
        return self._ids(Attempt, uids, "uid")

    def key_ids(self, names: Collection[str]) -> Mapping[str, int]:
        return self._ids(MetricKey, names, "name")

    def series_ids(self, pairs: Collection[tuple[int, int]]) -> Mapping[tuple[int, int], int]:
        return self._ids(MetricSeries, pairs, "attempt_id", "key_id")

    def _ids(self, model: type[Base], wanted: Collection[A], *names: str) -> Mapping[A, int]:
        """Ids of the rows of ``model`` with the wanted values in ``names``; those that are missing are made."""
        known, new = self._cache.ids[model], self._new[model]
        ids: dict[Any, int] = {value: one for value in wanted if (one := known.get(value) or new.get(value))}
        missing = [value for value in wanted if value not in ids]
        if missing:
            self.session.flush()  # a row may be one of its objects as yet
            found = self._look_up(model, names, missing)
            # In one order everywhere, so that two transactions cannot wait for each other.
            absent: list[Any] = sorted(set(missing) - found.keys())
            if absent and model is Attempt:
                gone = self.deleted.find(absent)
                absent = [uid for uid in absent if uid not in gone]
            if absent:
                self._insert_missing(model, names, absent)
                found |= self._look_up(model, names, absent)
            new |= found
            ids |= found
        return ids

    def _insert_missing(self, model: type[Base], names: tuple[str, ...], values: Sequence[Any]) -> None:
        columns = [column for column in model.__table__.columns if column.default is not None]
        defaults = {column.name: column.default.arg for column in columns}
        rows = [part for value in values for part in (*_parts(value), *defaults.values())]
        insert_rows(self.connection, model.__tablename__, (*names, *defaults), rows, "ON CONFLICT DO NOTHING")

    def _look_up(self, model: type[Base], names: tuple[str, ...], values: Sequence[Any]) -> dict[Any, int]:
        columns = ", ".join(f"known.{name}" for name in names)
        same = " AND ".join(f"known.{name} = wanted.column{place}" for place, name in enumerate(names, 1))
        ids: dict[Any, int] = {}
        for chunk in chunks(values):
            rows = value_rows(self.connection.dialect.name, len(names), len(chunk))
            # A join: SQLite reads the whole table for (a, b) IN (VALUES …).
            text = f"SELECT known.id, {columns} FROM ({rows}) AS wanted JOIN {model.__tablename__} AS known ON {same}"  # noqa: S608  our own
            found = self.connection.exec_driver_sql(text, tuple(part for value in chunk for part in _parts(value)))
            ids.update((row[1] if len(names) == 1 else tuple(row[1:]), row[0]) for row in found)
        return ids

    def seen(self, series_id: int) -> Seen:
        """What is known of the points of a series; forgotten when a transaction fails."""
        kept = self._cache.seen
        if series_id not in kept and sum(seen.size() for seen in tuple(kept.values())) > _MARKS:
            kept.clear()
        return kept.setdefault(series_id, Seen())

    def link_attempts(self, task_run_uids: Collection[str]) -> None:
        """Write into the attempts of these task runs the id of their run, where task run and run are known."""
        self.session.flush()
        of_task_run = select(Run.id).join(TaskRun, TaskRun.run_uid == Run.uid)
        run_id = of_task_run.where(TaskRun.uid == Attempt.task_run_uid).scalar_subquery()
        for chunk in chunks(sorted(task_run_uids)):
            unlinked = update(Attempt).where(Attempt.task_run_uid.in_(chunk), Attempt.run_id.is_distinct_from(run_id))
            self.session.execute(unlinked.values(run_id=run_id), execution_options={"synchronize_session": False})

    def upsert(self, model: type[Base], rows: Iterable[Mapping[str, object]], *key: str) -> None:
        """Insert rows of the same columns; where one with the same ``key`` stands, its other columns are replaced."""
        values = list(rows)
        if not values:
            return
        statement = self._insert(model)
        changed = {name: statement.excluded[name] for name in values[0] if name not in key}
        if changed:
            upsert = statement.on_conflict_do_update(index_elements=list(key), set_=changed)
        else:
            upsert = statement.on_conflict_do_nothing()
        self.session.execute(upsert, values)


def _parts(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)
