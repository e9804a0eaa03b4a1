"""In which run a task run is: one that was a run of its own may be told to belong to another run later.

A process that knows an MLflow run only by its id takes it for a run of its own, with a task run of the same uid. When
another one says that the task run is in another run, it moves there, and what names the former run means the new one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any, Final

from sqlalchemy import Select, delete, or_, select, update

from dbnd_tracker._storage.bulk import chunks
from dbnd_tracker._storage.models import CHILD, UPSTREAM, Run, TaskRelation, TaskRun
from dbnd_tracker._storage.writer import Writer

_QUIET: Final = {"synchronize_session": False}


def current_runs(writer: Writer, uids: Collection[str]) -> dict[str, str]:
    """For each uid of a run that of the run in which it is now: itself, unless it has become a task run of another."""
    found = {uid: uid for uid in uids}
    asked: set[str] = set()
    while pending := set(found.values()) - asked:
        asked |= pending
        # Not locked: runs are locked before their task runs everywhere.
        above: dict[str, str] = {}
        for some in chunks(sorted(pending)):
            rows = writer.session.execute(select(TaskRun.uid, TaskRun.run_uid).where(TaskRun.uid.in_(some)))
            above.update((row.uid, row.run_uid) for row in rows if row.run_uid is not None)
        found = {uid: above.get(top, top) for uid, top in found.items()}
    return found


def move(writer: Writer, uid: str, old: str, new: str) -> None:
    """Move what is below a task run into the run that it is in now, with all attempts.

    A former run of its own goes when nothing is left in it. That is no deletion: what still names it is taken.
    """
    session = writer.session
    session.flush()
    below = session.scalars(_below(uid, old)).all()
    for some in chunks(below):
        session.execute(update(TaskRun).where(TaskRun.uid.in_(some)).values(run_uid=new), execution_options=_QUIET)
    writer.link_attempts({uid, *below})
    if old == uid and session.scalar(select(TaskRun.id).where(TaskRun.run_uid == old).limit(1)) is None:
        session.execute(update(Run).where(Run.root_run_uid == old).values(root_run_uid=new), execution_options=_QUIET)
        session.execute(delete(Run).where(Run.uid == old), execution_options=_QUIET)


def _below(uid: str, run_uid: str) -> Select[Any]:
    """The task runs below another one in a run; all others of a run that it was alone at the top of."""
    others = select(TaskRun.uid).where(TaskRun.run_uid == run_uid, TaskRun.uid != uid)
    if run_uid == uid:
        return others
    arrows = select(TaskRelation.to_uid).where(TaskRelation.kind == CHILD)
    top: Any = arrows.where(TaskRelation.from_uid == uid).cte("below", recursive=True)
    below = top.union(arrows.join(top, TaskRelation.from_uid == top.c.to_uid))
    return others.where(TaskRun.uid.in_(select(below.c.to_uid)))


def detach(writer: Writer, uid: str) -> None:
    """Let a task run that was a run of its own, of the same uid, be one again, with all that is below it."""
    old = writer.session.scalar(select(TaskRun.run_uid).where(TaskRun.uid == uid))
    if old is None or old == uid:
        return
    writer.rows(Run, {old, uid})  # runs are locked before their task runs everywhere
    writer.rows(TaskRun, {uid})[uid].run_uid = uid
    above = or_(
        (TaskRelation.kind == CHILD) & (TaskRelation.to_uid == uid),
        (TaskRelation.kind == UPSTREAM) & (TaskRelation.from_uid == uid),
    )
    writer.session.execute(delete(TaskRelation).where(above), execution_options=_QUIET)
    move(writer, uid, old, uid)


def replace_parents(writer: Writer, arrows: Iterable[tuple[str, str]]) -> None:
    """Remove former parents, where ``arrows`` say others: a task run hangs below one, the one that was said last."""
    said = set(arrows)
    former = select(TaskRelation.from_uid, TaskRelation.to_uid).where(TaskRelation.kind == CHILD)
    found: set[tuple[str, str]] = set()
    for some in chunks(sorted({child for _, child in said})):
        rows = writer.session.execute(former.where(TaskRelation.to_uid.in_(some)))
        found.update((row.from_uid, row.to_uid) for row in rows)
    for parent, child in sorted(found - said):
        below = (TaskRelation.kind == CHILD) & (TaskRelation.from_uid == parent) & (TaskRelation.to_uid == child)
        # A parent waits for its children.
        waits = (TaskRelation.kind == UPSTREAM) & (TaskRelation.from_uid == child) & (TaskRelation.to_uid == parent)
        writer.session.execute(delete(TaskRelation).where(or_(below, waits)), execution_options=_QUIET)
