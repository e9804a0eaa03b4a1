"""Calls about runs: ``init_run``, ``set_run_state``, ``set_unfinished_tasks_state``, ``heartbeat``."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, AliasChoices, ConfigDict, Field

from dbnd_tracker._schemas.fields import (
    Body,
    Day,
    Flag,
    Integer,
    JsonObject,
    Name,
    Omittable,
    RunStateName,
    Source,
    TaskRunStateName,
    Text,
    Time,
    Timed,
    Uid,
)
from dbnd_tracker._schemas.tasks import AirflowTaskContext, TaskRunsInfo


class TaskRunEnv(Body):
    """Where a run takes place."""

    uid: Uid
    cmd_line: Text
    user: Text
    machine: Text
    databand_version: Text
    user_code_version: Text
    user_code_committed: Flag
    project_root: Text
    user_data: Text
    heartbeat: Time


class ScheduledRunInfo(Body):
    """The scheduled job that a run belongs to."""

    scheduled_job_uid: Uid | None = None
    scheduled_date: Time | None = None
    scheduled_job_dag_run_id: Text | None = None
    scheduled_job_name: Text | None = None


class RootRun(Body):
    """The run that started this one, and the task within it."""

    root_run_uid: Omittable[Uid] = None
    root_run_url: Text | None = None
    root_task_run_uid: Uid | None = None
    root_task_run_attempt_uid: Uid | None = None


class RunInfo(Body):
    """A run that begins; the Java client writes ``archived``."""

    run_uid: Omittable[Uid] = None
    job_name: Omittable[Name] = None
    project_name: Name | None = None
    name: Omittable[Name] = None
    user: Omittable[Name] = None
    description: Text | None = None
    state: Omittable[RunStateName] = None
    start_time: Omittable[Time] = None
    end_time: Time | None = None
    execution_date: Omittable[Time] = None
    target_date: Day | None = None
    dag_id: Omittable[Text] = None
    cmd_name: Text | None = None
    version: Text | None = None
    driver_name: Omittable[Text] = None
    cloud_type: Omittable[Text] = None
    env_name: Text | None = None
    task_executor: Text | None = None
    trigger: Omittable[Text] = None
    is_archived: Flag = Field(default=False, validation_alias=AliasChoices("is_archived", "archived"))
    sends_heartbeat: Flag | None = None
    root_run: Omittable[RootRun] = None
    scheduled_run: ScheduledRunInfo | None = None
    root_run_uid: Uid | None = None
    scheduled_job_name: Text | None = None
    scheduled_date: Time | None = None
    external_links: JsonObject | None = None


class TrackingSource(Body):
    """Where a run is tracked from; clients send null for what they do not know of it."""

    name: Omittable[Text] = None
    url: Text | None = None
    env: Text | None = None
    source_type: Source = None
    source_instance_uid: Uid | None = None


class InitArgs(Body):
    """What ``init_run`` says; ``new_run_info`` is missing when the run exists already."""

    run_uid: Uid
    root_run_uid: Uid
    driver_task_uid: Uid | None = None
    task_run_env: Omittable[TaskRunEnv] = None
    task_runs_info: TaskRunsInfo
    new_run_info: RunInfo | None = None
    scheduled_run_info: ScheduledRunInfo | None = None
    update_existing: Flag = False
    af_with_monitor: Omittable[Flag] = None
    source: Source = None
    af_context: AirflowTaskContext | None = None
    tracking_source: TrackingSource | None = None
    tracking_source_uid: Text | None = None


class InitRun(Body):
    """Body of ``init_run``."""

    init_args: InitArgs
    version: Text | None = None


class SetRunState(Timed):
    """Body of ``set_run_state``."""

    run_uid: Uid
    state: RunStateName


class SetUnfinishedTasksState(Timed):
    """Body of ``set_unfinished_tasks_state``."""

    run_uid: Uid
    state: TaskRunStateName


class ScheduledJobArgs(Body):
    """A job that a scheduler runs."""

    uid: Uid
    name: Name
    cmd: Text
    start_date: Time
    create_user: Text
    create_time: Time
    end_date: Time | None = None
    schedule_interval: Text | None = None
    catchup: Flag | None = None
    depends_on_past: Flag | None = None
    retries: Integer | None = None
    active: Flag | None = None
    update_user: Text | None = None
    update_time: Time | None = None
    from_file: Flag | None = None
    deleted_from_file: Flag | None = None
    list_order: Integer | None = None
    job_name: Text | None = None


class InitScheduledJob(Body):
    """Body of ``init_scheduled_job``: a job that a scheduler runs."""

    scheduled_job_args: ScheduledJobArgs
    update_existing: Flag = False


def _not_blank(name: str) -> str:
    if not name.strip():
        raise ValueError("a name that can be seen is needed")
    return name


class RunChange(Body):
    """What changes of a run: what is left out stays, an empty note goes, and so does a tag of null."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[Name, AfterValidator(_not_blank)] | None = None
    description: Text | None = None
    tags: Annotated[dict[Name, Text | None], Field(default_factory=dict, max_length=100)]


class Heartbeat(Body):
    """Body of ``heartbeat``."""

    run_uid: Uid
