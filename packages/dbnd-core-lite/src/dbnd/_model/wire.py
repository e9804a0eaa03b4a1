"""Bodies of the tracking calls, as a Databand server takes them.

The protocol's rules that matter here: every listed key is sent, null only where null is taken, enum *names* in upper
case, times as ISO-8601 with an offset, uids in lower case with dashes.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, Final

from dbnd._base import environment
from dbnd._base.clock import utc_now
from dbnd._model.addresses import page_url
from dbnd._model.error_info import ErrorInfo
from dbnd._model.run import Run, RunState, TaskDefinition, TaskRun, TaskRunState
from dbnd._model.values import MAX_PREVIEW, describe, masked

# The version of the wire protocol that this client speaks: servers compare it with those of the original client.
# Our own version stands in the User-Agent.
PROTOCOL_VERSION: Final = "1.0.34.1"
_SOURCE: Final = "generic_tracking"

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class DatasetOperation:
    """One read or write of a dataset.

    Args:
        path: Where the dataset is.
        operation: "read", "write" or "delete".
        source: What reported it, such as "mlflow".
        schema: Columns and types as a JSON object, or None when not known.
        rows: Number of rows, or None when not known.
        columns: Number of columns, or None when not known.
        preview: Text to show, or None.
        timestamp: When it took place.
        name: Its name, where that is not its path.
        digest: What tells its content at that time from another.
        context: What it is for, such as "training".
    """

    path: str
    operation: str
    source: str
    schema: Json | None
    rows: int | None
    columns: int | None
    preview: str | None
    timestamp: datetime
    name: str | None = None
    digest: str | None = None
    context: str | None = None


def _time(time: datetime) -> str:
    """``time`` as the protocol writes it."""
    return time.astimezone(timezone.utc).isoformat()


def init_run(run: Run, root: TaskRun, *, databand_url: str, detached: bool = False) -> Json:
    """Body of ``init_run``: a new run with its root task run, or a root task run of a run that exists.

    Args:
        run: The run.
        root: Its root task run.
        databand_url: The tracker, without credentials.
        detached: Whether it was a task run of another run. Only our tracker knows of that.
    """
    env: Json = {
        "uid": run.env_uid,
        "cmd_line": masked(environment.command_line(), MAX_PREVIEW),
        "user": run.user,
        "machine": os.environ.get("DBND__ENV_MACHINE", ""),
        "databand_version": PROTOCOL_VERSION,
        "user_code_version": environment.code_version() or "None",
        "user_code_committed": True,
        "project_root": environment.project_root(),
        "user_data": "None",
        "heartbeat": _time(utc_now()),
    }
    new_run: Json = {
        "run_uid": run.uid,
        "job_name": run.job_name,
        "project_name": run.project_name,
        "name": run.name,
        "user": run.user,
        "description": run.description,
        "state": run.state.name,
        "start_time": _time(run.start_time),
        "end_time": None,
        "execution_date": _time(run.start_time),
        "target_date": run.start_time.date().isoformat(),
        "dag_id": run.dag_id,
        "cmd_name": run.cmd_name,
        "version": run.version,
        **dict.fromkeys(("driver_name", "cloud_type", "env_name", "task_executor"), "local"),
        "trigger": "unknown",
        "is_archived": False,
        "sends_heartbeat": run.sends_heartbeat,
        "root_run": {
            "root_run_uid": run.root_run_uid,
            "root_run_url": page_url(databand_url, run.job_name, run.uid),
            "root_task_run_uid": run.parent and run.parent.task_run_uid,
            "root_task_run_attempt_uid": run.parent and run.parent.attempt_uid,
        },
        "scheduled_run": None,
    }
    args: Json = {
        "run_uid": run.uid,
        "root_run_uid": run.root_run_uid,
        "driver_task_uid": root.uid,
        "task_run_env": env,
        "task_runs_info": _task_runs_info(run, [root], dynamic=False),
        "new_run_info": None if run.is_attached else new_run,
        "update_existing": False,
        "source": f"UpdateSource.{_SOURCE}",
        "af_with_monitor": False,
        **dict.fromkeys(("scheduled_run_info", "af_context", "tracking_source", "tracking_source_uid")),
    }
    if detached:
        args["task_runs_info"]["detached"] = True
    if run.is_elsewhere:
        del args["task_run_env"]
    return {"init_args": args, "version": PROTOCOL_VERSION}


def add_task_runs(run: Run, task_runs: Iterable[TaskRun]) -> Json:
    """Body of ``add_task_runs``."""
    return {"task_runs_info": _task_runs_info(run, list(task_runs), dynamic=True), "source": _SOURCE}


def _task_runs_info(run: Run, task_runs: list[TaskRun], *, dynamic: bool) -> Json:
    pairs = [[task_run.parent.uid, task_run.uid] for task_run in task_runs if task_run.parent is not None]
    parent = run.parent
    if parent is not None:  # the root hangs below the task run that has started this run
        pairs += [[parent.task_run_uid, task_run.uid] for task_run in task_runs if task_run.is_root]
    definitions = {task_run.definition.uid: task_run.definition for task_run in task_runs}
    return {
        "run_uid": run.uid,
        "root_run_uid": run.root_run_uid,
        "task_run_env_uid": run.env_uid,
        "task_runs": [_task_run(task_run) for task_run in task_runs],
        "task_definitions": [_task_definition(definition) for definition in definitions.values()],
        "targets": [],
        "parent_child_map": pairs,
        # A parent waits for its children, so each child is an upstream of it: [downstream, upstream].
        "upstreams_map": [list(pair) for pair in pairs],
        "dynamic_task_run_update": dynamic,
        "af_context": None,
        "parent_task_run_uid": parent and parent.task_run_uid,
        "parent_task_run_attempt_uid": parent and parent.attempt_uid,
    }


def _task_run(task_run: TaskRun) -> Json:
    return {
        "task_run_uid": task_run.uid,
        "task_run_attempt_uid": task_run.attempt_uid,
        "task_definition_uid": task_run.definition.uid,
        "run_uid": task_run.run.uid,
        "task_id": task_run.task_id,
        "task_af_id": task_run.af_id,
        "name": task_run.name,
        "task_signature": task_run.signature,
        "output_signature": task_run.signature,
        "state": task_run.state.name,
        "is_root": task_run.is_root,
        "is_dynamic": not task_run.is_root,
        **dict.fromkeys(("is_system", "is_reused", "is_skipped", "has_upstreams"), False),
        "has_downstreams": task_run.parent is not None,
        **dict.fromkeys(("env", "command_line", "functional_call"), ""),
        "execution_date": _time(task_run.run.start_time),
        "target_date": task_run.run.start_time.date().isoformat(),
        "version": task_run.run.version,
        **dict.fromkeys(("log_local", "log_remote", "external_links")),
        "task_run_params": [
            {"parameter_name": name, "value": value, "value_origin": f"_.{task_run.name}"}
            for name, value in task_run.params.items()
        ],
    }


def _task_definition(definition: TaskDefinition) -> Json:
    params = [_param(p.name, "task_input", p.value_type, p.default) for p in definition.params]
    if definition.result_type is not None:
        params.append(_param("result", "task_output", definition.result_type, None))
    return {
        "task_definition_uid": definition.uid,
        "name": definition.name,
        "family": definition.name,
        "type": definition.kind,
        "class_version": "",
        "task_param_definitions": params,
        **dict.fromkeys(("module_source", "module_source_hash", "source", "source_hash")),
    }


def _param(name: str, kind: str, value_type: str, default: str | None) -> Json:
    return {
        "name": name,
        "default": "NOTHING" if default is None else default,
        "description": "",
        "group": "user",
        "kind": kind,
        "load_on_build": True,
        "significant": kind == "task_input",
        "value_type": value_type,
    }


def attempt_update(task_run: TaskRun, state: TaskRunState, timestamp: datetime, error: ErrorInfo | None) -> Json:
    """Body of ``update_task_run_attempts`` for one task run."""
    update: Json = {
        "task_run_uid": task_run.uid,
        "task_run_attempt_uid": task_run.attempt_uid,
        "state": state.name,
        "timestamp": _time(timestamp),
        "error": None if error is None else _error(error),
        "source": f"UpdateSource.{_SOURCE}",
        **dict.fromkeys(("attempt_number", "start_date", "external_links_dict")),
    }
    return {"task_run_attempt_updates": [update]}


def _error(error: ErrorInfo) -> Json:
    return {
        "msg": error.message,
        "help_msg": "",
        "exc_type": error.exception_type,
        "databand_error": False,
        "traceback": error.traceback,
        "nested": "",
        "user_code_traceback": error.traceback,
        "show_exc_info": True,
    }


def run_state(run_uid: str, state: RunState | TaskRunState, timestamp: datetime) -> Json:
    """Body of ``set_run_state``, and of ``set_unfinished_tasks_state``."""
    return {"run_uid": run_uid, "state": state.name, "timestamp": _time(timestamp)}


def result_target(task_run: TaskRun, value: object) -> Json:
    """Body of ``log_targets`` for what a task returned."""
    described, text = describe(value), masked(value, MAX_PREVIEW)
    target: Json = {
        "run_uid": task_run.run.uid,
        "task_run_uid": task_run.uid,
        "task_run_attempt_uid": task_run.attempt_uid,
        "task_run_name": task_run.af_id.lower(),
        "target_path": f"memory://{described['type']}:{task_run.task_id}.result",
        "param_name": "result",
        "task_def_uid": task_run.definition.uid,
        "operation_type": "write",
        "operation_status": "OK",
        "value_preview": text,
        "data_dimensions": described.get("shape"),
        "data_schema": json.dumps(described, sort_keys=True),
        "data_hash": hashlib.md5(text.encode("utf-8", "surrogatepass"), usedforsecurity=False).hexdigest(),
    }
    return {"targets_info": [target]}


def dataset_operation(task_run: TaskRun, operation: DatasetOperation) -> Json:
    """Body of ``log_datasets`` for one operation."""
    known = operation.rows is not None or operation.columns is not None
    body: Json = {
        "run_uid": task_run.run.uid,
        "task_run_uid": task_run.uid,
        "task_run_attempt_uid": task_run.attempt_uid,
        "task_run_name": task_run.af_id,
        "operation_path": operation.path,
        "operation_type": operation.operation,
        "operation_status": "OK",
        "operation_error": None,
        "operation_source": operation.source,
        "timestamp": _time(operation.timestamp),
        "value_preview": operation.preview,
        "data_dimensions": [operation.rows, operation.columns] if known else None,
        "data_schema": operation.schema,
        "columns_stats": [],
        **dict.fromkeys(("query", "dataset_uri", "with_partition")),
    }
    # Other trackers ignore these.
    ours = {"name": operation.name, "digest": operation.digest, "context": operation.context}
    return {"datasets_info": [body | {key: value for key, value in ours.items() if value is not None}]}


def external_links(attempt_uid: str, links: Mapping[str, str]) -> Json:
    """Body of ``save_external_links``."""
    return {"task_run_attempt_uid": attempt_uid, "external_links_dict": dict(links)}


def artifact(attempt_uid: str, name: str, path: str) -> Json:
    """Body of ``log_artifact``: a reference, never content."""
    return {"task_run_attempt_uid": attempt_uid, "name": name, "path": path}


def task_run_log(attempt_uid: str, text: str) -> Json:
    """Body of ``save_task_run_log``; the whole log, which replaces an earlier one."""
    return {"task_run_attempt_uid": attempt_uid, "log_body": text, "local_log_path": None}
