"""Calls about task runs and their attempts."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from itertools import chain
from typing import Final

from sqlalchemy import select

from dbnd_tracker._ingest.logged import stable_uid
from dbnd_tracker._ingest.moves import current_runs, move, replace_parents
from dbnd_tracker._schemas import tasks as bodies
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
    linked_mlflow_run,
)
from dbnd_tracker._storage.states import FINAL_STATES, next_task_state
from dbnd_tracker._storage.writer import Writer

Infos = list[bodies.TaskRunInfo]

_INIT: Final = "init"
"""Operation on a target that is known before its task runs."""
_TASK_SOURCE: Final = "task"
"""Source of params that are arguments of the task."""
# What is said of definitions and task runs by the names of the columns that keep it.
_DEFINITION: Final = {"name", "type", "source", "source_hash", "module_source", "module_source_hash"}
_TASK_RUN: Final = (
    *("task_definition_uid", "name", "task_id", "task_af_id", "task_signature", "is_system", "is_skipped"),
    *("is_dynamic", "execution_date", "version", "command_line", "functional_call"),
)
# What TaskRunInfo says beyond the columns of a task run.
_FACTS: Final = {
    *("env", "output_signature", "target_date", "has_upstreams", "has_downstreams"),
    *("log_local", "log_remote"),
}


def add_task_runs(writer: Writer, body: bodies.AddTaskRuns) -> None:
    """Add task runs to a run; those that exist are brought up to date."""
    add_infos(writer, body.task_runs_info)


def add_infos(writer: Writer, infos: bodies.TaskRunsInfo) -> None:
    """Add task runs, their first attempts, definitions and relations.

    A task run that is known already and is now said to be in another run moves there (see ``moves.move``). Below a run
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
    attempts = {info.task_run_uid: info.task_run_attempt_uid for info in task_runs}
    # In one order everywhere, so that two transactions that add the same rows cannot wait for each other.
    _add_definitions(writer, sorted(infos.task_definitions, key=lambda info: info.task_definition_uid))
    moved = _add_task_runs(writer, sorted(task_runs, key=lambda info: info.task_run_uid), runs)
    for uid, (old, new) in moved.items():
        move(writer, uid, old, new)
    writer.link_attempts(attempts)
    _add_targets(writer, infos, attempts)
    replace_parents(writer, infos.parent_child_map)
    gone = {info.task_run_uid for info in infos.task_runs} - attempts.keys()
    arrows = {(CHILD, parent, child) for parent, child in infos.parent_child_map}
    arrows |= {(UPSTREAM, upstream, downstream) for downstream, upstream in infos.upstreams_map}
    rows = [
        {"kind": kind, "from_uid": start, "to_uid": end}
        for kind, start, end in sorted(arrows)
        if start not in gone and end not in gone
    ]
    writer.upsert(TaskRelation, rows, "kind", "from_uid", "to_uid")


def _without_deleted(writer: Writer, infos: Infos, runs: Mapping[str, str]) -> Infos:
    """Those of ``infos`` that are not, and do not lie below, what was deleted; the others are counted as dropped."""
    of = {info.task_run_uid: (runs[info.run_uid], info.task_run_uid, info.task_run_attempt_uid) for info in infos}
    gone = writer.deleted.find(chain.from_iterable(of.values()))
    kept: Infos = []
    for info in infos:
        owner = next((uid for uid in of[info.task_run_uid] if uid in gone), None)
        if owner is None:
            kept.append(info)
        else:
            writer.deleted.add((info.task_run_uid, info.task_run_attempt_uid), owner)
            writer.deleted.drop(owner)
    return kept


def _add_definitions(writer: Writer, infos: list[bodies.TaskDefinitionInfo]) -> None:
    known = set(writer.rows(TaskDefinition, (info.task_definition_uid for info in infos)))
    for info in infos:
        if info.task_definition_uid not in known:
            known.add(info.task_definition_uid)
            params = [param.model_dump() for param in info.task_param_definitions]
            facts = info.model_dump(include=_DEFINITION)
            writer.session.add(TaskDefinition(uid=info.task_definition_uid, params=params, **facts))


def _add_task_runs(writer: Writer, infos: Infos, runs: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Add task runs and their attempts; returns the old and the new run of those that were in another one, by uid.

    All rows are read at once, for a graph may have thousands of them.
    """
    moved: dict[str, tuple[str, str]] = {}
    task_runs = writer.rows(TaskRun, (info.task_run_uid for info in infos))
    attempts = writer.attempts(info.task_run_attempt_uid for info in infos)
    for info in infos:
        if info.task_run_uid not in task_runs:
            task_runs[info.task_run_uid] = TaskRun(uid=info.task_run_uid)
            writer.session.add(task_runs[info.task_run_uid])
    for info in infos:
        task_run = task_runs[info.task_run_uid]
        old, new = task_run.run_uid, runs[info.run_uid]
        if old is not None and old != new:
            moved[info.task_run_uid] = (old, new)
        task_run.run_uid = new
        task_run.is_root = info.is_root and new == info.run_uid
        _describe(task_run, attempts[info.task_run_attempt_uid], info)
    writer.session.flush()  # now attempts have ids
    params = {
        (attempts[info.task_run_attempt_uid].id, param.parameter_name): param
        for info in infos
        for param in info.task_run_params
    }
    rows = [
        {"attempt_id": each, "source": _TASK_SOURCE, "name": name, "value": param.value, "origin": param.value_origin}
        for (each, name), param in params.items()
    ]
    writer.upsert(Param, rows, "attempt_id", "source", "name")
    return moved


def _describe(task_run: TaskRun, attempt: Attempt, info: bodies.TaskRunInfo) -> None:
    for name in _TASK_RUN:
        setattr(task_run, name, getattr(info, name))
    task_run.is_reused = task_run.is_reused or info.is_reused
    task_run.facts = {**(task_run.facts or {}), **info.model_dump(mode="json", include=_FACTS)}
    attempt.task_run_uid = info.task_run_uid
    attempt.state = next_task_state(attempt.state, "success" if task_run.is_reused else info.state)
    attempt.start_time = attempt.start_time or info.start_date
    if attempt.state in FINAL_STATES:
        attempt.end_time = attempt.end_time or info.end_date
    attempt.log_path = info.log_local or info.log_remote or attempt.log_path
    _link(attempt, info.external_links)


def _link(attempt: Attempt, links: dict[str, object] | None) -> None:
    if links:
        attempt.external_links = {**(attempt.external_links or {}), **links}
        attempt.mlflow_run_id = linked_mlflow_run(attempt.external_links)


def _add_targets(writer: Writer, infos: bodies.TaskRunsInfo, attempts: Mapping[str, str]) -> None:
    """Note the inputs and outputs that are known before their tasks run; ``attempts`` are those of the task runs."""
    known = [(attempts[uid], info) for info in infos.targets if (uid := str(info.task_run_uid)) in attempts]
    ids = writer.attempt_ids({attempt_uid for attempt_uid, _ in known})
    rows = {}
    for attempt_uid, info in known:
        uid = stable_uid(attempt_uid, info.parameter_name, info.path, _INIT)
        facts = {"param_name": info.parameter_name, "path": info.path, "operation_type": _INIT}
        rows[uid] = {"uid": uid, "attempt_id": ids[attempt_uid], **facts}
    writer.upsert(Target, (rows[uid] for uid in sorted(rows)), "uid")


def update_task_run_attempts(writer: Writer, body: bodies.UpdateTaskRunAttempts) -> None:
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
        attempt.start_time = update.start_date or attempt.start_time
        if update.state:
            _change_state(attempt, update.state, update, writer.now)
    writer.link_attempts({update.task_run_uid for update in updates if update.task_run_attempt_uid in attempts})


def _change_state(attempt: Attempt, state: str, update: bodies.AttemptUpdate, now: datetime) -> None:
    time = update.timestamp or now
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
    return ended.state in FINAL_STATES and ended.end_time is not None and time is not None and time > ended.end_time


def set_task_reused(writer: Writer, body: bodies.SetTaskReused) -> None:
    """Mark a task run as reused, which is a success."""
    task_run = writer.row(TaskRun, body.task_run_uid)
    if task_run is None:
        if writer.deleted.find({body.task_run_uid}):
            writer.deleted.drop(body.task_run_uid)
            return
        task_run = TaskRun(uid=body.task_run_uid)
        writer.session.add(task_run)
    task_run.is_reused = True
    task_run.facts = {**(task_run.facts or {}), "output_signature": body.task_outputs_signature}
    for attempt in writer.session.scalars(select(Attempt).where(Attempt.task_run_uid == body.task_run_uid)):
        attempt.state = next_task_state(attempt.state, "success")


def save_task_run_log(writer: Writer, body: bodies.SaveTaskRunLog) -> None:
    attempt = writer.attempt(body.task_run_attempt_uid)
    if attempt is not None:
        attempt.log_body = body.log_body
        attempt.log_path = body.local_log_path or attempt.log_path


def save_external_links(writer: Writer, body: bodies.SaveExternalLinks) -> None:
    attempt = writer.attempt(body.task_run_attempt_uid)
    if attempt is not None:
        _link(attempt, body.external_links_dict)
