"""Calls about runs."""

from __future__ import annotations

from typing import Final

from sqlalchemy import select

from dbnd.tracking import RunState
from dbnd_tracker._errors import MissingError
from dbnd_tracker._ingest.edits import edited_of
from dbnd_tracker._ingest.moves import current_runs, detach
from dbnd_tracker._ingest.tasks import add_infos, is_reopened
from dbnd_tracker._schemas import runs as bodies
from dbnd_tracker._storage.models import Attempt, Run, ScheduledJob, TaskRun
from dbnd_tracker._storage.states import FINAL_STATES, next_run_state, next_task_state
from dbnd_tracker._storage.writer import Writer

# What is said of a run by the names of the columns that keep it; what comes empty leaves what was there.
_COLUMNS: Final = ("job_name", "project_name", "name", "user", "execution_date")
# What RunInfo says beyond the columns of a run.
_FACTS: Final = {
    *("target_date", "dag_id", "cmd_name", "version", "driver_name", "cloud_type", "env_name", "task_executor"),
    *("trigger", "root_run", "scheduled_run"),
}


def _run(writer: Writer, uid: str) -> Run | None:
    """The run with this uid, made when no event has named it before; its time is that of receipt.

    Of a run that was deleted, and of one that has become a task run of another, None: there is none to be changed.
    """
    found = writer.row(Run, uid)
    if found is None:
        if writer.deleted.find({uid}) or current_runs(writer, {uid})[uid] != uid:
            return None
        orphans = writer.session.scalars(select(TaskRun.uid).where(TaskRun.run_uid == uid)).all()
        found = Run(uid=uid, start_time=writer.now)
        writer.session.add(found)
        if orphans:
            writer.link_attempts(orphans)
    return found


def init_run(writer: Writer, body: bodies.InitRun) -> None:
    """Make a run, or add to one that exists; said again it changes nothing, and what is said anew replaces the old.

    A run that has become a task run of another one (see ``moves``) stays that, unless it is ``detached``: only its
    task runs are described. A run that was deleted, and one that is started below such a run, is not made, unless
    ``recreate`` of its task runs says that a person wants it again.
    """
    args = body.init_args
    infos = args.task_runs_info
    if infos.recreate:
        writer.deleted.forget(args.run_uid, [args.run_uid])
    elif _is_below_deleted(writer, args):
        return
    if infos.detached:
        detach(writer, args.run_uid)
    run = _run(writer, args.run_uid)
    if run is not None:
        run.root_run_uid = args.root_run_uid
        run.driver_task_run_uid = args.driver_task_uid or run.driver_task_run_uid
        run.parent_task_run_uid = infos.parent_task_run_uid or run.parent_task_run_uid
        run.source = args.source or run.source
        if args.task_run_env:
            run.environment = args.task_run_env.model_dump(mode="json", exclude={"uid", "heartbeat"})
        if args.new_run_info:
            _describe(writer, run, args.new_run_info)
        facts = _facts(args)
        if facts:
            run.facts = {**(run.facts or {}), **facts}
    add_infos(writer, infos)


def _is_below_deleted(writer: Writer, args: bodies.InitArgs) -> bool:
    """Whether a run is deleted, or is new and was started below a deleted one, and so is deleted as well."""
    above = [args.run_uid, args.root_run_uid, args.task_runs_info.parent_task_run_uid]
    gone = writer.deleted.find(above)
    if not gone or writer.row(Run, args.run_uid) is not None:
        return False
    owner = next(uid for uid in above if uid in gone)
    infos = args.task_runs_info.task_runs
    uids = [uid for info in infos for uid in (info.task_run_uid, info.task_run_attempt_uid)]
    writer.deleted.add([args.run_uid, *uids], str(owner))
    writer.deleted.drop(str(owner))
    return True


def _describe(writer: Writer, run: Run, info: bodies.RunInfo) -> None:
    # A run that other events made first has no name yet, and a time that is only that of their receipt.
    is_first = run.job_name is None and run.name is None
    if info.start_time and (is_first or info.start_time < run.start_time):
        run.start_time = info.start_time
    said = {name: getattr(info, name) or getattr(run, name) for name in _COLUMNS}
    said["description"] = run.description if info.description is None else info.description
    changed = {name for name in ("name", "description") if said[name] != getattr(run, name)}
    edited = edited_of(writer, run.uid) if changed and not is_first else set()
    for name in said.keys() - edited:
        setattr(run, name, said[name])
    run.end_time = run.end_time or info.end_time
    run.is_archived = info.is_archived
    if info.sends_heartbeat:
        run.sends_heartbeat = True
        run.last_heartbeat = writer.now
    if info.state:
        run.state = next_run_state(run.state, info.state)


def _facts(args: bodies.InitArgs) -> dict[str, object]:
    facts = args.new_run_info.model_dump(mode="json", include=_FACTS, exclude_none=True) if args.new_run_info else {}
    extra = {
        "scheduled_run": args.scheduled_run_info and args.scheduled_run_info.model_dump(mode="json"),
        "af_context": args.af_context and args.af_context.model_dump(exclude_none=True),
        "tracking_source": args.tracking_source and args.tracking_source.model_dump(exclude_none=True),
    }
    return {**facts, **{name: value for name, value in extra.items() if value}}


def set_run_state(writer: Writer, body: bodies.SetRunState) -> None:
    """Change the state of a run; a final state ends it."""
    run = _run(writer, body.run_uid)
    if run is None:
        writer.deleted.drop(body.run_uid)
        return
    if current_runs(writer, {run.uid})[run.uid] != run.uid:
        return
    if body.state == RunState.RUNNING.value and is_reopened(run, body.timestamp):
        run.state, run.end_time = body.state, None
    run.state = next_run_state(run.state, body.state)
    if run.state == body.state and run.state in FINAL_STATES:
        run.end_time = body.timestamp or writer.now
        run.is_sealed = False


def set_unfinished_tasks_state(writer: Writer, body: bodies.SetUnfinishedTasksState) -> None:
    """Give every attempt of a run that is in no final state this one."""
    writer.deleted.find({body.run_uid})
    writer.deleted.drop(body.run_uid)
    unfinished = (
        select(Attempt).join(TaskRun, TaskRun.uid == Attempt.task_run_uid).where(TaskRun.run_uid == body.run_uid)
    )
    for attempt in writer.session.scalars(unfinished.with_for_update(of=Attempt, key_share=True)):
        if attempt.state not in FINAL_STATES:
            attempt.state = next_task_state(attempt.state, body.state)
            if attempt.state in FINAL_STATES:
                attempt.end_time = body.timestamp or writer.now


def init_scheduled_job(writer: Writer, body: bodies.InitScheduledJob) -> None:
    """Note a job that a scheduler runs; one that is known is changed only when the body says so."""
    args = body.scheduled_job_args
    known = select(ScheduledJob.id).where(ScheduledJob.uid == args.uid)
    if body.update_existing or writer.session.scalar(known) is None:
        row = {"uid": args.uid, "name": args.name, "facts": args.model_dump(mode="json")}
        writer.upsert(ScheduledJob, [row], "uid")


def heartbeat(writer: Writer, body: bodies.Heartbeat) -> object:
    """Note that a run is alive, and answer its state: a run that is to stop learns it this way."""
    run = writer.row(Run, body.run_uid)
    if run is None:  # deleted, or never announced: the process need not end because of that
        return RunState.RUNNING.value
    run.sends_heartbeat = True
    run.last_heartbeat = writer.now
    return run.state or RunState.RUNNING.value


def stop_runs(writer: Writer, uids: list[str]) -> dict[str, str]:
    """Ask runs to stop, by their next heartbeats, and return their states; a run that has ended stays what it is.

    Raises:
        MissingError: There is no such run; none of the others is stopped then.
    """
    states = {}
    for uid in sorted(set(uids)):  # in one order everywhere, so that two transactions cannot wait for each other
        run = writer.row(Run, uid)
        if run is None:
            raise MissingError(f"There is no run {uid}, so none of the {len(uids)} was stopped.")
        run.state = next_run_state(run.state, RunState.SHUTDOWN.value)
        states[uid] = run.state
    return states
