"""Which runs are lost: they send heartbeats, are in no final state, and have been silent for too long.

That is computed at reading, so that a run that reports again is at once what it reports.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Final

from sqlalchemy import ColumnElement, and_, or_

from dbnd_tracker._storage.models import Run
from dbnd_tracker._storage.states import FINAL_STATES, LOST

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

HEARTBEAT_TIMEOUT: Final = "dbnd_heartbeat_timeout"
"""Key of a session's ``info``: after how long a silence a run is lost, a ``timedelta``."""


def _silent_since(session: Session) -> datetime:
    timeout: timedelta = session.info[HEARTBEAT_TIMEOUT]
    return datetime.now(timezone.utc) - timeout


def shown_state(session: Session, run: Run) -> str | None:
    """The state of ``run`` as it is shown."""
    is_silent = run.sends_heartbeat and run.last_heartbeat is not None and run.last_heartbeat < _silent_since(session)
    return LOST if is_silent and run.state not in FINAL_STATES else run.state


def lost(session: Session) -> ColumnElement[bool]:
    """The condition that a run is lost, in SQL."""
    is_open = or_(Run.state.is_(None), Run.state.not_in(sorted(FINAL_STATES)))
    is_silent = and_(Run.last_heartbeat.is_not(None), Run.last_heartbeat < _silent_since(session))
    return and_(Run.sends_heartbeat, is_silent, is_open)
