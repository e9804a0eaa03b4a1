"""What lists show of runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import select
from sqlalchemy.orm import Session

from dbnd_tracker._storage.models import Run
from dbnd_tracker._storage.states import shown_state
from dbnd_tracker._views import RunSummary

SUMMARY: Final = (
    Run.uid.label("run_uid"),
    *(getattr(Run, name).label(name) for name in RunSummary.model_fields if name != "run_uid"),
    Run.sends_heartbeat,
    Run.last_heartbeat,
)
"""What ``summary`` needs of a run, for lists, which are spared the rest."""


def summary(session: Session, row: Any) -> RunSummary:
    """What lists show of a run, from a row with the columns of ``SUMMARY``."""
    return RunSummary(**{**row._asdict(), "state": shown_state(session, row)})


def runs_by_uid(session: Session, uids: Sequence[str]) -> list[RunSummary]:
    """The runs with these uids, in their order; what does not exist is left out."""
    found = {row.run_uid: row for row in session.execute(select(*SUMMARY).where(Run.uid.in_(uids)))}
    return [summary(session, found[uid]) for uid in dict.fromkeys(uids) if uid in found]
