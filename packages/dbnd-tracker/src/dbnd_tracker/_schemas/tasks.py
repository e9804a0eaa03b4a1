"""Calls about task runs and their attempts: ``add_task_runs``, ``update_task_run_attempts``, ``set_task_reused``."""

from __future__ import annotations

from typing import Annotated, Any, Final

from pydantic import BeforeValidator, Field

from dbnd_tracker._schemas.fields import (
    Body,
    Day,
    Flag,
    Integer,
    JsonObject,
    Many,
    Name,
    Omittable,
    Source,
    TaskRunStateName,
    Text,
    Time,
    Timed,
    Uid,
    from_digits,
)

MAX_ATTEMPT: Final = 2**31 - 1


class TaskRunParam(Body):
    """An argument of a task run, as text."""

    parameter_name: Name
    value: Text | None
    value_origin: Text


class TaskRunInfo(Body):
    """A task run; what stands after its params is the Java client's."""

    task_run_uid: Uid
    task_run_attempt_uid: Uid
    task_definition_uid: Uid
    run_uid: Uid
    task_id: Name
    task_af_id: Name
    name: Name
    task_signature: Text
    output_signature: Text
    state: TaskRunStateName
    is_root: Flag
    is_system: Flag
    is_reused: Flag
    is_dynamic: Flag
    is_skipped: Flag
    has_upstreams: Flag
    has_downstreams: Flag
    env: Text
    command_line: Text
    functional_call: Text
    execution_date: Time | None
    target_date: Day | None
    version: Text
    log_local: Text | None
    log_remote: Text | None
    external_links: JsonObject | None = None
    task_run_params: Many[TaskRunParam]
    uid: Any = None
    start_date: Time | None = None
    end_date: Time | None = None
    latest_task_run_attempt_id: Any = None


class ParamDefinition(Body):
    """A parameter of a task; the text "NOTHING" is no default."""

    name: Omittable[Text] = None
    default: Text | None = None
    description: Omittable[Text] = None
    group: Omittable[Text] = None
    kind: Omittable[Text] = None
    load_on_build: Omittable[Flag] = None
    significant: Omittable[Flag] = None
    value_type: Omittable[Text] = None


class TaskDefinitionInfo(Body):
    """The definition that task runs of one family share."""

    task_definition_uid: Uid
    name: Text
    family: Text
    type: Text
    class_version: Text
    task_param_definitions: Many[ParamDefinition]
    module_source: Text | None = None
    module_source_hash: Text | None = None
    source: Text | None = None
    source_hash: Text | None = None


class TargetInfo(Body):
    """An input or output that is known before its task runs."""

    parameter_name: Text
    path: Text
    created_date: Time | None
    task_run_uid: Uid | None


class AirflowTaskContext(Body):
    """The task of Airflow that a run takes place in; without an instance's uid, the Python client sends null."""

    dag_id: Omittable[Text] = None
    task_id: Omittable[Text] = None
    execution_date: Omittable[Text] = None
    try_number: Annotated[Integer, BeforeValidator(from_digits)] | None = None
    airflow_instance_uid: Uid | None = None
    airflow_name: Text | None = None
    """Of the Java client."""


class TaskRunsInfo(Body):
    """Task runs that begin, with their definitions and relations."""

    run_uid: Omittable[Uid] = None
    root_run_uid: Omittable[Uid] = None
    task_run_env_uid: Omittable[Uid] = None
    task_runs: Many[TaskRunInfo] = Field(default_factory=list)
    task_definitions: Many[TaskDefinitionInfo] = Field(default_factory=list)
    targets: Many[TargetInfo] = Field(default_factory=list)
    parent_child_map: Many[tuple[Uid, Uid]] = Field(default_factory=list)
    """Pairs of parent and child."""
    upstreams_map: Many[tuple[Uid, Uid]] = Field(default_factory=list)
    """Pairs of downstream and upstream."""
    dynamic_task_run_update: Flag = False
    af_context: AirflowTaskContext | None = None
    parent_task_run_uid: Uid | None = None
    parent_task_run_attempt_uid: Uid | None = None
    source_context: JsonObject | None = None
    """Of the Java client."""
    recreate: Flag = False
    """Of imports: what was deleted of these is made again, because a person asks for it."""
    detached: Flag = False
    """The run was a task run of another one, and is a run of its own again."""


class AddTaskRuns(Body):
    """Body of ``add_task_runs``."""

    task_runs_info: TaskRunsInfo
    source: Source = None


class ErrorInfo(Body):
    """Why a task run failed."""

    msg: Text
    help_msg: Text | None
    exc_type: Text | None
    databand_error: Flag
    traceback: Text
    nested: Text | None
    user_code_traceback: Text
    show_exc_info: Flag


class AttemptUpdate(Timed):
    """A new state of an attempt; the time of receipt stands in for a missing timestamp."""

    task_run_uid: Uid
    task_run_attempt_uid: Uid
    state: TaskRunStateName | None
    error: ErrorInfo | None = None
    attempt_number: Annotated[Integer, Field(ge=0, le=MAX_ATTEMPT)] | None = None
    source: Source = None
    start_date: Time | None = None
    external_links_dict: JsonObject | None = None


class UpdateTaskRunAttempts(Body):
    """Body of ``update_task_run_attempts``."""

    task_run_attempt_updates: Many[AttemptUpdate]


class SetTaskReused(Body):
    """Body of ``set_task_reused``."""

    task_run_uid: Uid
    task_outputs_signature: Text


class SaveTaskRunLog(Body):
    """Body of ``save_task_run_log``: the whole log each time."""

    task_run_attempt_uid: Uid
    log_body: Text | None = None
    local_log_path: Text | None = None


class SaveExternalLinks(Body):
    """Body of ``save_external_links``."""

    task_run_attempt_uid: Uid
    external_links_dict: JsonObject
