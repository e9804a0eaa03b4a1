"""The states of runs and task runs: which of two wins when events arrive out of order, and which runs are lost."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Final

from sqlalchemy import ColumnElement, and_, or_
from sqlalchemy.orm import Session

from dbnd.tracking import TaskRunState
from dbnd_tracker._storage.models import Run

FINAL_STATES: Final = frozenset(state.value for state in TaskRunState if state.is_final)
"""States after which nothing runs any more, of runs and of task runs."""
LOST: Final = "lost"
"""What a run is shown as whose heartbeats have stopped; it is never stored."""
HEARTBEAT_TIMEOUT: Final = "dbnd_heartbeat_timeout"
"""Key of a session's ``info``: after how long a silence a run is lost, a ``timedelta``."""

_CORRECTIONS: Final = frozenset({"success", "failed"})
_TASK_RANKS: Final = {"scheduled": 1, "queued": 2, "running": 3}
_RUN_RANKS: Final = {"scheduled": 1, "running": 2, "shutdown": 3}
_TOP_RANK: Final = 4


def next_task_state(old: str | None, new: str) -> str:
    """The state of an attempt in state ``old`` after an event that says ``new``.

    A higher rank wins; of equal rank, success and failure correct what was there, and everything else is late.
    """
    return _winner(_TASK_RANKS, old, new)


def next_run_state(old: str | None, new: str) -> str:
    """The state of a run in state ``old`` after an event that says ``new``, by the same rule."""
    return _winner(_RUN_RANKS, old, new)


def _winner(ranks: dict[str, int], old: str | None, new: str) -> str:
    if old is None:
        return new
    old_rank, new_rank = ranks.get(old, _TOP_RANK), ranks.get(new, _TOP_RANK)
    return new if new_rank > old_rank or (new_rank == old_rank and new in _CORRECTIONS) else old


def shown_state(session: Session, run: Run) -> str | None:
    """The state of ``run`` as it is shown: found at reading, so that a run that reports again is lost no more."""
    is_silent = run.sends_heartbeat and run.last_heartbeat is not None and run.last_heartbeat < _silent_since(session)
    return LOST if is_silent and run.state not in FINAL_STATES else run.state


def lost(session: Session) -> ColumnElement[bool]:
    """The condition that a run is lost, in SQL."""
    is_open = or_(Run.state.is_(None), Run.state.not_in(sorted(FINAL_STATES)))
    return and_(Run.sends_heartbeat, Run.last_heartbeat < _silent_since(session), is_open)


def _silent_since(session: Session) -> datetime:
    timeout: timedelta = session.info[HEARTBEAT_TIMEOUT]
    return datetime.now(timezone.utc) - timeout
