"""What was deleted: the uids of runs, task runs and attempts, so that what still comes for them is dropped."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from sqlalchemy import delete, insert, or_, select, update

from dbnd_tracker._storage.bulk import chunks
from dbnd_tracker._storage.models import Deleted

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from datetime import datetime

    from sqlalchemy.orm import Session


class DeletedUids:
    """The record of what was deleted, as one writing transaction uses it.

    It is asked only for what the database does not have (any more), so that it costs nothing while nothing is new.

    Args:
        session: The transaction.
        now: Its time.
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

    def forget(self, run_uid: str, uids: Collection[str]) -> None:
        """Let a run and what is in it be made again, because a person asks for it."""
        mine = or_(Deleted.run_uid == run_uid, Deleted.uid.in_(uids))
        self._session.execute(delete(Deleted).where(mine).execution_options(synchronize_session=False))
        self._runs.clear()

    def note(self) -> None:
        """Write down how many events were dropped."""
        for run_uid, events in sorted(self.dropped.items()):
            statement: Any = update(Deleted).where(Deleted.uid == run_uid).values(dropped=Deleted.dropped + events)
            self._session.execute(statement.execution_options(synchronize_session=False))
