"""Calls about task runs and their attempts."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING

from sqlalchemy import select

from dbnd_tracker._ingest.places import current_runs, move, replace_parents
from dbnd_tracker._ingest.uids import target_uid
from dbnd_tracker._storage.models import (
    CHILD,
    UPSTREAM,
    Attempt,
    Param,
    Run,
    Target,
    TaskDefinition,
    TaskRelation,
    TaskRun,
)
from dbnd_tracker._storage.states import FINAL_STATES, next_task_state

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from dbnd_tracker._schemas.tasks import (
        AddTaskRuns,
        AttemptUpdate,
        SaveExternalLinks,
        SaveTaskRunLog,
        SetTaskReused,
        TaskDefinitionInfo,
        TaskRunInfo,
        TaskRunsInfo,
        UpdateTaskRunAttempts,
    )
    from dbnd_tracker._storage.writer import Writer

INIT = "init"
"""Operation on a target that is known before its task runs."""
# What TaskRunInfo says beyond the columns of a task run.
_FACTS = {"env", "output_signature", "target_date", "has_upstreams", "has_downstreams", "log_local", "log_remote"}
TASK_SOURCE = "task"
"""Source of params that are arguments of the task."""


def add_task_runs(writer: Writer, body: AddTaskRuns) -> object:
    """Add task runs to a run; those that exist are brought up to date."""
    add_infos(writer, body.task_runs_info)
    return {}


def add_infos(writer: Writer, infos: TaskRunsInfo) -> None:
    """Add task runs, their first attempts, definitions and relations.

    A task run that is known already and is now said to be in another run moves there (see ``places.move``). Below a run
    that was deleted nothing is added: what was started there counts as deleted with it. ``recreate`` says that a person
    wants the run and these task runs again, and is sent by imports only.
    """
    if infos.recreate and infos.run_uid is not None:
        uids = [uid for info in infos.task_runs for uid in (info.task_run_uid, info.task_run_attempt_uid)]
        writer.deleted.forget(infos.run_uid, uids)
    # The runs are locked, so that none is deleted before this transaction ends.
    writer.rows(Run, (info.run_uid for info in infos.task_runs))
    runs = current_runs(writer, {info.run_uid for info in infos.task_runs})
    task_runs = _without_deleted(writer, infos.task_runs, runs)
    if infos.task_runs and not task_runs:
        return
    known = {info.task_run_uid for info in task_runs}
    # In one order everywhere, so that two transactions that add the same rows cannot wait for each other.
    _add_definitions(writer, sorted(infos.task_definitions, key=lambda info: info.task_definition_uid))
    moved = _add_task_runs(writer, sorted(task_runs, key=lambda info: info.task_run_uid), runs)
    for uid, (old, new) in moved.items():
        move(writer, uid, old, new)
    writer.link_attempts(known)
    _add_targets(writer, infos, task_runs)
    gone = {info.task_run_uid for info in infos.task_runs} - known
    arrows = [(CHILD, parent, child) for parent, child in infos.parent_child_map]
    arrows += [(UPSTREAM, upstream, downstream) for downstream, upstream in infos.upstreams_map]
    rows = [
        {"kind": kind, "from_uid": start, "to_uid": end}
        for kind, start, end in sorted(set(arrows))
        if start not in gone and end not in gone
    ]
    replace_parents(writer, infos.parent_child_map)
    writer.upsert(TaskRelation, rows, "kind", "from_uid", "to_uid")


def _without_deleted(writer: Writer, infos: list[TaskRunInfo], runs: Mapping[str, str]) -> list[TaskRunInfo]:
    """Those of ``infos`` that are not, and do not lie below, what was deleted; the others are counted as dropped."""
    of = {info.task_run_uid: (runs[info.run_uid], info.task_run_uid, info.task_run_attempt_uid) for info in infos}
    gone = writer.deleted.find(chain.from_iterable(of.values()))
    kept: list[TaskRunInfo] = []
    for info in infos:
        owner = next((uid for uid in of[info.task_run_uid] if uid in gone), None)
        if owner is None:
            kept.append(info)
        else:
            writer.deleted.add((info.task_run_uid, info.task_run_attempt_uid), owner)
            writer.deleted.drop(owner)
    return kept


def _add_targets(writer: Writer, infos: TaskRunsInfo, task_runs: list[TaskRunInfo]) -> None:
    """Note the inputs and outputs that are known before their tasks run."""
    attempts = {info.task_run_uid: info.task_run_attempt_uid for info in task_runs}
    known = {
        target_uid(attempts[info.task_run_uid], info.parameter_name, info.path, INIT): info
        for info in infos.targets
        if info.task_run_uid in attempts
    }
    ids = writer.attempt_ids({attempts[str(info.task_run_uid)] for info in known.values()})
    rows = [
        {
            "uid": uid,
            "attempt_id": ids[attempts[str(info.task_run_uid)]],
            "param_name": info.parameter_name,
            "path": info.path,
            "operation_type": INIT,
        }
        for uid, info in sorted(known.items())
    ]
    writer.upsert(Target, rows, "uid")


def _add_definitions(writer: Writer, infos: list[TaskDefinitionInfo]) -> None:
    known = writer.rows(TaskDefinition, (info.task_definition_uid for info in infos))
    for info in infos:
        if info.task_definition_uid not in known:
            facts = info.model_dump(
                include={"name", "type", "source", "source_hash", "module_source", "module_source_hash"}
            )
            params = [param.model_dump() for param in info.task_param_definitions]
            known[info.task_definition_uid] = TaskDefinition(uid=info.task_definition_uid, params=params, **facts)
            writer.session.add(known[info.task_definition_uid])


def _add_task_runs(writer: Writer, infos: list[TaskRunInfo], runs: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Add task runs and their attempts: all rows are read at once, for a graph may have thousands of them.

    Returns:
        The old and the new run of those that were in another run before, by uid.
    """
    moved: dict[str, tuple[str, str]] = {}
    task_runs = writer.rows(TaskRun, (info.task_run_uid for info in infos))
    attempts = writer.attempts(info.task_run_attempt_uid for info in infos)
    for info in infos:
        if info.task_run_uid not in task_runs:
            task_runs[info.task_run_uid] = TaskRun(uid=info.task_run_uid, is_reused=False)
            writer.session.add(task_runs[info.task_run_uid])
    for info in infos:
        attempt, task_run = attempts[info.task_run_attempt_uid], task_runs[info.task_run_uid]
        old, new = task_run.run_uid, runs[info.run_uid]
        if old is not None and old != new:
            moved[info.task_run_uid] = (old, new)
        task_run.run_uid = new
        _describe(task_run, attempt, info)
        task_run.is_root = info.is_root and new == info.run_uid
    writer.session.flush()  # now attempts have ids
    params = {
        (attempts[info.task_run_attempt_uid].id, param.parameter_name): param
        for info in infos
        for param in info.task_run_params
    }
    rows = [
        {
            "attempt_id": attempt_id,
            "source": TASK_SOURCE,
            "name": name,
            "value": param.value,
            "origin": param.value_origin,
        }
        for (attempt_id, name), param in params.items()
    ]
    writer.upsert(Param, rows, "attempt_id", "source", "name")
    return moved


def _describe(task_run: TaskRun, attempt: Attempt, info: TaskRunInfo) -> None:
    task_run.task_definition_uid = info.task_definition_uid
    task_run.name = info.name
    task_run.task_id = info.task_id
    task_run.task_af_id = info.task_af_id
    task_run.task_signature = info.task_signature
    task_run.is_system = info.is_system
    task_run.is_reused = task_run.is_reused or info.is_reused
    task_run.is_skipped = info.is_skipped
    task_run.is_dynamic = info.is_dynamic
    task_run.execution_date = info.execution_date
    task_run.version = info.version
    task_run.command_line = info.command_line
    task_run.functional_call = info.functional_call
    task_run.facts = {**(task_run.facts or {}), **info.model_dump(mode="json", include=_FACTS)}

    attempt.task_run_uid = info.task_run_uid
    attempt.state = next_task_state(attempt.state, "success" if task_run.is_reused else info.state)
    attempt.start_time = attempt.start_time or info.start_date
    if attempt.state in FINAL_STATES:
        attempt.end_time = attempt.end_time or info.end_date
    attempt.log_path = info.log_local or info.log_remote or attempt.log_path
    _link(attempt, info.external_links)


def _task_run(writer: Writer, uid: str) -> TaskRun | None:
    """The task run with this uid, made when no event has named it before; of one that was deleted, None."""
    found = writer.row(TaskRun, uid)
    if found is None:
        if writer.deleted.find({uid}):
            writer.deleted.drop(uid)
            return None
        found = TaskRun(uid=uid, is_reused=False)
        writer.session.add(found)
    return found


def _link(attempt: Attempt, links: dict[str, object] | None) -> None:
    if links:
        attempt.external_links = {**(attempt.external_links or {}), **links}


def update_task_run_attempts(writer: Writer, body: UpdateTaskRunAttempts) -> object:
    """Change the states of attempts, in whatever order the changes arrive."""
    updates = body.task_run_attempt_updates
    gone = writer.deleted.find(update.task_run_uid for update in updates)
    for update in updates:
        if update.task_run_uid in gone:  # so is a further attempt of it
            writer.deleted.add((update.task_run_attempt_uid,), update.task_run_uid)
    attempts = writer.attempts(update.task_run_attempt_uid for update in updates)
    for update in updates:
        attempt = attempts.get(update.task_run_attempt_uid)
        if attempt is None:
            writer.deleted.drop(update.task_run_attempt_uid)
            continue
        attempt.task_run_uid = update.task_run_uid
        attempt.number = update.attempt_number or attempt.number
        _link(attempt, update.external_links_dict)
        if update.error:
            attempt.error = update.error.model_dump()
        if update.start_date:
            attempt.start_time = update.start_date
        if update.state:
            _change_state(attempt, update, update.timestamp or writer.now)
    writer.link_attempts({update.task_run_uid for update in updates if update.task_run_attempt_uid in attempts})
    return {}


def _change_state(attempt: Attempt, update: AttemptUpdate, time: datetime) -> None:
    assert update.state
    state = update.state
    # RUNNING that comes after the end still says when the attempt started.
    if state == "running" and (attempt.start_time is None or time < attempt.start_time):
        attempt.start_time = time
    if state == "running" and is_reopened(attempt, update.timestamp):
        attempt.state, attempt.end_time = state, None
    attempt.state = next_task_state(attempt.state, state)
    if attempt.state == state and state in FINAL_STATES:
        attempt.end_time = time


def is_reopened(ended: Attempt | Run, time: datetime | None) -> bool:
    """Whether what has ended runs again: it says so with a later time, as MLflow's ``start_run(run_id=…)`` does."""
    if ended.state not in FINAL_STATES or ended.end_time is None or time is None:
        return False
    return time > ended.end_time


def set_task_reused(writer: Writer, body: SetTaskReused) -> object:
    """Mark a task run as reused, which is a success."""
    task_run = _task_run(writer, body.task_run_uid)
    if task_run is None:
        return {}
    task_run.is_reused = True
    task_run.facts = {**(task_run.facts or {}), "output_signature": body.task_outputs_signature}
    for attempt in writer.session.scalars(select(Attempt).where(Attempt.task_run_uid == body.task_run_uid)):
        attempt.state = next_task_state(attempt.state, "success")
    return {}


def save_task_run_log(writer: Writer, body: SaveTaskRunLog) -> object:
    """Replace the log of an attempt."""
    attempt = writer.attempt(body.task_run_attempt_uid)
    if attempt is not None:
        attempt.log_body = body.log_body
        attempt.log_path = body.local_log_path or attempt.log_path
    return {}


def save_external_links(writer: Writer, body: SaveExternalLinks) -> object:
    """Add links to an attempt."""
    attempt = writer.attempt(body.task_run_attempt_uid)
    if attempt is not None:
        _link(attempt, body.external_links_dict)
    return {}
