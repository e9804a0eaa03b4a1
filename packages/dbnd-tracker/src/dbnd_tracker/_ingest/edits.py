"""What people change of runs afterwards: name, note and tags."""

from __future__ import annotations

import json
from collections.abc import Mapping

from sqlalchemy import delete, func, select

from dbnd.tracking import EDITED_TAG
from dbnd_tracker._errors import MissingError
from dbnd_tracker._storage.models import Attempt, Run, Tag, TaskRun
from dbnd_tracker._storage.writer import Writer


def edit_run(
    writer: Writer, run_uid: str, *, name: str | None, description: str | None, tags: Mapping[str, str | None]
) -> None:
    """Change a run; what is None stays, and a tag whose value is None goes. What was changed is noted in a tag.

    Tags are those of the latest attempt at its root task run, whose values are the run's own.

    Raises:
        MissingError: There is no such run, or no attempt to have the tags.
    """
    run = writer.row(Run, run_uid)
    if run is None:
        raise MissingError(f"There is no run {run_uid}.")
    before = run.name, run.description
    run.name = name or run.name
    run.description = run.description if description is None else description or None
    attempts = select(Attempt.id).join(TaskRun, TaskRun.uid == Attempt.task_run_uid).where(TaskRun.run_uid == run_uid)
    latest = (column.desc() for column in (func.coalesce(Attempt.number, 0), Attempt.id))
    own = attempts.order_by(TaskRun.is_root.desc(), TaskRun.id, *latest)
    attempt_id = writer.session.scalar(own.limit(1))
    if attempt_id is None:
        if not tags:
            return
        raise MissingError(f"The run {run_uid} has no task run yet that could have tags.")
    after = {"name": run.name, "description": run.description}
    edited = edited_of(writer, run_uid)
    edited |= {what for (what, value), old in zip(after.items(), before, strict=True) if value != old}
    edited |= {f"tags.{tag}" for tag in tags}
    tags = {**tags, EDITED_TAG: json.dumps(sorted(edited)) if edited else None}
    gone = [tag for tag, value in tags.items() if value is None]
    writer.session.execute(delete(Tag).where(Tag.attempt_id == attempt_id, Tag.name.in_(gone)))
    kept = [{"attempt_id": attempt_id, "name": tag, "value": value} for tag, value in tags.items() if value is not None]
    writer.upsert(Tag, kept, "attempt_id", "name")


def edited_of(writer: Writer, run_uid: str) -> set[str]:
    """What people have changed of a run: it stays, whatever is said of the run later."""
    attempts = select(Attempt.id).join(TaskRun, TaskRun.uid == Attempt.task_run_uid).where(TaskRun.run_uid == run_uid)
    found = writer.session.scalars(select(Tag.value).where(Tag.name == EDITED_TAG, Tag.attempt_id.in_(attempts)))
    return {name for text in found for name in _names(text)}


def _names(text: str | None) -> list[str]:
    """The names that the tag holds; none if a client has written something else there."""
    try:
        names = json.loads(text or "[]")
    except (ValueError, RecursionError):
        return []
    return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []
