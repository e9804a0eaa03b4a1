"""What released clients say about runs, call by call: every key that they send, in their forms and their order.

The values are our own. The conversations stand here as functions, because uids are new each time.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any

from kit.wire.calls import Call

Json = dict[str, Any]

_START = datetime(2025, 6, 1, 8, 0, 0, 250, tzinfo=timezone.utc)
_PYTHON_HEADERS = {
    "Accept": "application/json",
    "Content-Type": "application/json",
    "content-encoding": "gzip",
    "X-Databand-Version": "1.0.34.1",
    "X-Databand-Trace-ID": uuid.uuid4().hex,
}
_JAVA_HEADERS = {"Accept": "application/json", "Content-Type": "application/json; charset=UTF-8"}
_SCHEMA = {
    "type": "DataFrame",
    "columns": ["city", "sold"],
    "dtypes": {"city": "object", "sold": "int64"},
    "shape": [4, 2],
    "size.bytes": 8,
}
NOT_A_NUMBER = float("nan")


def _uid() -> str:
    return str(uuid.uuid1())


class Task:
    """A task run of a conversation."""

    def __init__(self, run: Client, name: str, af_id: str | None = None) -> None:
        self.name = name
        self.af_id = af_id or name
        self.id = f"{name}__{uuid.uuid4().hex[:10]}"
        self.uid = _uid()
        self.attempt = str(uuid.uuid5(uuid.UUID(run.uid), f"{run.dag_id}.{self.af_id}:1"))
        self.definition = _uid()


class Client:
    """The released Python client in a process that tracks one run.

    Args:
        job: Name of the job.
        dag_id: What the client calls the DAG; the job's name in a script.
        source: What the client calls the kind of its process.
        facts: What it says of the run beyond the ordinary.
    """

    def __init__(self, job: str, *, dag_id: str | None = None, source: str = "generic_tracking", **facts: Any) -> None:
        self.job = job
        self.dag_id = dag_id or job
        self.source = source
        self.facts = facts
        self.uid = _uid()
        self.environment = _uid()
        self.calls: list[Call] = []
        self._ticks = 0

    def now(self) -> str:
        """The client's clock, which moves with each look at it."""
        self._ticks += 1
        return (_START + timedelta(milliseconds=17 * self._ticks)).isoformat()

    def say(self, call: str, body: Json, reply: Any = None) -> None:
        """Add a call."""
        path = f"/api/v1/{call}" if call == "log_exception" else f"/api/v1/tracking/{call}"
        headers = {**_PYTHON_HEADERS, "X-Request-ID": uuid.uuid4().hex}
        self.calls.append(Call(path, body, headers, {} if reply is None else reply))

    def task_run(self, task: Task, params: list[Json], **facts: Any) -> Json:
        signature = task.id.rpartition("_")[2]
        return {
            "task_run_uid": task.uid,
            "task_run_attempt_uid": task.attempt,
            "task_definition_uid": task.definition,
            "run_uid": self.uid,
            "task_id": task.id,
            "task_af_id": task.af_id,
            "name": task.name,
            "task_signature": signature,
            "output_signature": signature,
            "state": "SCHEDULED",
            "is_root": False,
            "is_system": False,
            "is_reused": False,
            "is_dynamic": True,
            "is_skipped": False,
            "has_upstreams": False,
            "has_downstreams": True,
            "env": "",
            "command_line": "",
            "functional_call": "",
            "execution_date": _START.isoformat(),
            "target_date": "2025-06-01",
            "version": "20250601_080000",
            "log_local": None,
            "log_remote": None,
            "external_links": None,
            "task_run_params": params,
            **facts,
        }

    def task_definition(self, task: Task, *names: str) -> Json:
        return {
            "task_definition_uid": task.definition,
            "name": task.name,
            "family": task.name,
            "type": "python",
            "class_version": "",
            "task_param_definitions": [
                {
                    "name": name,
                    "default": "NOTHING",
                    "description": "",
                    "group": "user",
                    "kind": "task_output" if name == "result" else "task_input",
                    "load_on_build": True,
                    "significant": name != "result",
                    "value_type": "str",
                }
                for name in names
            ],
            "module_source": None,
            "module_source_hash": None,
            "source": None,
            "source_hash": None,
        }

    def task_runs_info(self, runs: list[Json], definitions: list[Json], **relations: Any) -> Json:
        return {
            "run_uid": self.uid,
            "root_run_uid": self.uid,
            "task_run_env_uid": self.environment,
            "task_runs": runs,
            "task_definitions": definitions,
            "targets": [],
            "parent_child_map": [],
            "upstreams_map": [],
            "dynamic_task_run_update": bool(relations),
            "af_context": None,
            "parent_task_run_uid": None,
            "parent_task_run_attempt_uid": None,
            **relations,
        }

    def init(self, root: Task, **of_root: Any) -> None:
        """``init_run`` with the root task run."""
        info = {
            "run_uid": self.uid,
            "job_name": self.job,
            "project_name": None,
            "name": "brave_noether",
            "user": "ada",
            "description": None,
            "state": "RUNNING",
            "start_time": self.now(),
            "end_time": None,
            "execution_date": _START.isoformat(),
            "target_date": "2025-06-01",
            "dag_id": self.dag_id,
            "cmd_name": "inplace_tracking",
            "version": "20250601_080000",
            "driver_name": "local",
            "cloud_type": "local",
            "env_name": "local",
            "task_executor": "",
            "trigger": "unknown",
            "is_archived": False,
            "sends_heartbeat": False,
            "root_run": {
                "root_run_uid": self.uid,
                "root_run_url": f"http://tracker.example.com/app/jobs/{self.job}/{self.uid}",
                "root_task_run_uid": None,
                "root_task_run_attempt_uid": None,
            },
            "scheduled_run": None,
            **self.facts,
        }
        args = {
            "run_uid": self.uid,
            "root_run_uid": self.uid,
            "driver_task_uid": root.uid,
            "task_run_env": {
                "uid": self.environment,
                "cmd_line": "/scripts/sales.py",
                "user": "ada",
                "machine": "",
                "databand_version": "1.0.34.1",
                "user_code_version": "None",
                "user_code_committed": True,
                "project_root": "/home/ada",
                "user_data": "None",
                "heartbeat": self.now(),
            },
            "task_runs_info": self.task_runs_info(
                [self.task_run(root, [], is_root=True, is_dynamic=False, **of_root)], [self.task_definition(root)]
            ),
            "new_run_info": info,
            "scheduled_run_info": None,
            "update_existing": False,
            "source": f"UpdateSource.{self.source}",
            "af_with_monitor": True,
            "af_context": None,
            "tracking_source": None,
            "tracking_source_uid": None,
        }
        self.say("init_run", {"init_args": args, "version": "1.0.34.1"})

    def started(self, parent: Task, name: str, **arguments: str) -> Task:
        """A task that is called within ``parent``: told of, and running."""
        task = Task(self, name)
        values = {**arguments, "result": f"memory://str:{task.id}.result"}
        params = [{"parameter_name": n, "value": v, "value_origin": f"_.{name}"} for n, v in values.items()]
        infos = self.task_runs_info(
            [self.task_run(task, params)],
            [self.task_definition(task, *values)],
            parent_child_map=[[parent.uid, task.uid]],
            upstreams_map=[[parent.uid, task.uid]],
        )
        self.say("add_task_runs", {"task_runs_info": infos, "source": self.source})
        self.update(task, "RUNNING")
        return task

    def update(self, task: Task, state: str, error: Json | None = None, *others: tuple[Task, str]) -> None:
        updates = [
            {
                "task_run_uid": each.uid,
                "task_run_attempt_uid": each.attempt,
                "state": new,
                "timestamp": self.now(),
                "error": error if each is task else None,
                "attempt_number": None,
                "source": f"UpdateSource.{self.source}",
                "start_date": None,
                "external_links_dict": None,
            }
            for each, new in ((task, state), *others)
        ]
        self.say("update_task_run_attempts", {"task_run_attempt_updates": updates})

    def metrics(self, task: Task, source: str | None = "user", /, **values: tuple[str, Any]) -> None:
        """Log metrics, each as the member that its value goes to, and the value."""
        infos = []
        for key, (member, value) in values.items():
            members = dict.fromkeys(("value_int", "value_float", "value_str", "value_json"))
            metric = {"key": key, "timestamp": self.now(), **members, member: value, "value": value, "source": source}
            infos.append({"task_run_attempt_uid": task.attempt, "metric": metric, "source": source})
        self.say("log_metrics", {"metrics_info": infos})

    def target(self, task: Task, param: str | None, path: str, operation: str = "write", **facts: Any) -> None:
        info = {
            "run_uid": self.uid,
            "task_run_uid": task.uid,
            "task_run_attempt_uid": task.attempt,
            "task_run_name": task.af_id,
            "target_path": path,
            "param_name": param,
            "task_def_uid": task.definition,
            "operation_type": operation,
            "operation_status": "OK",
            "value_preview": "north",
            "data_dimensions": None,
            "data_schema": '{"type": "str"}',
            "data_hash": uuid.uuid4().hex,
            **facts,
        }
        self.say("log_targets", {"targets_info": [info]})

    def dataset(self, task: Task, path: str, operation: str, **facts: Any) -> None:
        info = {
            "run_uid": self.uid,
            "task_run_uid": task.uid,
            "task_run_attempt_uid": task.attempt,
            "task_run_name": task.af_id,
            "operation_path": path,
            "operation_type": operation,
            "operation_status": "OK",
            "operation_error": None,
            "operation_source": "python_manual_logging",
            "timestamp": self.now(),
            "value_preview": None,
            "data_dimensions": None,
            "data_schema": None,
            "columns_stats": [],
            "query": None,
            "dataset_uri": None,
            "with_partition": None,
            **facts,
        }
        self.say("log_datasets", {"datasets_info": [info]})

    def log(self, task: Task, text: str, path: str | None = None) -> None:
        body = {"task_run_attempt_uid": task.attempt, "log_body": text, "local_log_path": path}
        self.say("save_task_run_log", body)

    def ended(self, state: str) -> None:
        self.say("set_run_state", {"run_uid": self.uid, "state": state, "timestamp": None})


def _error(kind: str, text: str) -> Json:
    return {
        "msg": text,
        "help_msg": "",
        "exc_type": f"<class '{kind}'>",
        "databand_error": False,
        "traceback": f"Traceback (most recent call last):\n{kind}: {text}\n",
        "nested": "",
        "user_code_traceback": f"\x1b[0;34mTraceback\x1b[m\n\x1b[1;31m{kind}\x1b[m: {text}\n",
        "show_exc_info": True,
    }


def plain() -> list[Call]:
    """A script with one task that succeeds."""
    client = Client("sales", project_name="shops")
    root = Task(client, "sales")
    client.init(root)
    client.update(root, "RUNNING")
    task = client.started(root, "load", region="north")
    client.metrics(task, rows=("value_int", 31))
    client.target(task, "result", f"memory://str:{task.id}.result")
    client.update(task, "SUCCESS")
    client.update(root, "SUCCESS")
    client.ended("SUCCESS")
    return client.calls


def failing() -> list[Call]:
    """A script whose inner task raises: every enclosing task fails, too, and the root for what stood above it."""
    client = Client("sales")
    root = Task(client, "sales")
    client.init(root)
    client.update(root, "RUNNING")
    outer = client.started(root, "report")
    inner = client.started(outer, "price", currency="EUR")
    error = _error("KeyError", "'EUR'")
    client.update(inner, "FAILED", error)
    client.update(outer, "FAILED", error)
    client.update(root, "UPSTREAM_FAILED")
    client.ended("FAILED")
    return client.calls


def _dbnd_run() -> tuple[Client, Task, Task, Task, Task]:
    """The beginning of ``dbnd run`` with a pipeline of two tasks."""
    client = Client(
        "nightly",
        dag_id="DBND_RUN.nightly",
        source="dbnd",
        cmd_name="run",
        sends_heartbeat=True,
        driver_name="local_machine_engine",
        task_executor="local",
    )
    driver = Task(client, "dbnd_driver", "dbnd_driver_RunExecutor_Task")
    client.init(driver, is_system=True, env="local", log_local="/data/log/driver.log")
    client.ended("RUNNING")
    client.update(driver, "RUNNING")
    pipeline, load, fit = (Task(client, name) for name in ("pipeline", "load", "fit"))
    infos = client.task_runs_info(
        [
            client.task_run(task, [{"parameter_name": "n", "value": "4", "value_origin": "cli"}], is_dynamic=False)
            for task in (pipeline, load, fit)
        ],
        [client.task_definition(task, "n", "result") for task in (pipeline, load, fit)],
        parent_child_map=[[driver.uid, pipeline.uid], [pipeline.uid, fit.uid], [pipeline.uid, load.uid]],
        upstreams_map=[[pipeline.uid, fit.uid], [fit.uid, load.uid]],
        targets=[
            {"parameter_name": "result", "path": "/data/load.txt", "created_date": None, "task_run_uid": load.uid},
            {"parameter_name": "result", "path": "/data/fit.bin", "created_date": None, "task_run_uid": fit.uid},
        ],
        dynamic_task_run_update=True,
    )
    client.say("add_task_runs", {"task_runs_info": infos, "source": "dbnd"})
    return client, driver, pipeline, load, fit


def dbnd_run() -> list[Call]:
    """A pipeline under ``dbnd run`` that succeeds: the driver ends after the run, and logs come last."""
    client, driver, pipeline, load, fit = _dbnd_run()
    for task, read, path in ((load, None, "/data/load.txt"), (fit, "/data/load.txt", "/data/fit.bin")):
        client.update(task, "RUNNING")
        if read:
            client.target(task, "data", read, "read")
        client.metrics(task, score=("value_float", 2.0))
        client.say("heartbeat", {"run_uid": client.uid}, "running")
        client.metrics(task, "system", marshalling_result=("value_float", 0.625))
        client.target(task, "result", path)
        artifact = {"task_run_attempt_uid": task.attempt, "name": "plan", "path": f"/data/{task.name}/artifacts/plan"}
        client.say("log_artifact", artifact)
        client.update(task, "SUCCESS")
        client.log(task, "one\r\n\x1b[1mtwo\x1b[m\r\n", f"/data/log/{task.name}.log")
    client.update(pipeline, "RUNNING")
    client.update(pipeline, "SUCCESS")
    client.log(pipeline, "Log truncated to empty", "/data/log/pipeline.log")
    client.ended("SUCCESS")
    client.update(driver, "SUCCESS")
    client.log(driver, "Log truncated to empty", "/data/log/driver.log")
    return client.calls


def dbnd_run_fails() -> list[Call]:
    """A pipeline under ``dbnd run`` whose first task fails; what depends on it never runs."""
    client, driver, pipeline, load, fit = _dbnd_run()
    client.update(load, "RUNNING")
    client.update(load, "FAILED", _error("OSError", "the disk is full"))
    client.log(load, "no space", "/data/log/load.log")
    client.update(fit, "UPSTREAM_FAILED", None, (pipeline, "FAILED"))
    client.update(driver, "FAILED", _error("DatabandRunError", "run failed"))
    client.log(driver, "Log truncated to empty", "/data/log/driver.log")
    client.ended("FAILED")
    late = {"run_uid": client.uid, "state": "FAILED", "timestamp": client.now()}
    client.say("set_unfinished_tasks_state", late)
    return client.calls


def values_and_datasets() -> list[Call]:
    """Metrics of every type, histograms, operations on datasets, links, logs and an error inside the client."""
    client = Client("sales")
    root = Task(client, "sales")
    client.init(root)
    client.update(root, "RUNNING")
    task = client.started(root, "values")
    client.metrics(
        task,
        negative=("value_int", -7),
        flag=("value_int", 1),
        whole=("value_int", 10**15),
        larger=("value_json", 10**15 + 1),
        real=("value_float", 0.1),
        text=("value_str", "grüße"),
        empty=("value_str", ""),
        nothing=("value_str", "None"),
        number_text=("value_json", 12.5),
        true_text=("value_json", True),
        some=("value_json", [1, "b", None]),
        facts=("value_json", {"a": {"b": 1}}),
        moment=("value_str", "2025-06-01T080000.000000"),
        long=("value_str", "x" * 4986 + "... (4986 of 6000)"),
    )
    client.metrics(
        task,
        not_a_number=("value_float", NOT_A_NUMBER),
        infinite=("value_float", float("inf")),
        minus_infinite=("value_float", float("-inf")),
    )
    for number in range(3):  # the same key again is another point
        client.metrics(task, "my_source", loss=("value_float", 1 / (1 + number)))
    client.update(task, "SUCCESS")
    client.log(task, "a line of the task")
    data = client.started(root, "frames")
    schema = json.dumps(_SCHEMA, sort_keys=True)
    client.target(data, "sold", "/data/in.csv", "read", data_dimensions=[4, 2], data_schema=schema, task_def_uid=None)
    histograms = {"city": [[3, 1], ["a", "b"]], "sold": [[2, 0, 2], [1.0, 1.5, 2.0, 2.5]]}
    for _ in range(2):  # the client sends them twice
        client.metrics(data, "histograms", **{"sold.histograms": ("value_json", histograms)})
    client.metrics(data, **{"sold.rows": ("value_int", 4), "sold.schema": ("value_json", _SCHEMA)})
    stats = {
        "column_name": "sold",
        "column_type": "int64",
        "records_count": 4,
        "distinct_count": 3,
        "null_count": 0,
        "non_null_count": 4,
        "null_percent": 0.0,
        "mean_value": 1.75,
        "min_value": 1.0,
        "max_value": 2.5,
        "std_value": 0.5,
        "quartile_1": 1.0,
        "quartile_2": 1.5,
        "quartile_3": 2.25,
    }
    path = "s3://shop/part=1/sold.csv"
    client.dataset(data, path, "read", data_dimensions=[4, 2], data_schema=_SCHEMA, columns_stats=[stats])
    failed = {"operation_status": "NOK", "operation_error": "the disk is full", "data_dimensions": [10, 2]}
    client.dataset(data, "s3://shop/report.csv", "write", **failed)
    client.dataset(data, "s3://shop/old.csv", "delete", data_dimensions=[1, None])
    trace = {
        "dbnd_version": "1.0.34.1",
        "source": "tracking-sdk",
        "stack_trace": "Traceback",
        "timestamp": client.now(),
    }
    client.say("log_exception", trace)
    links = {"task_run_attempt_uid": data.attempt, "external_links_dict": {"shop": "http://shop.example.com"}}
    client.say("save_external_links", links)
    client.update(data, "SUCCESS")
    client.log(data, "Log is empty")
    client.update(root, "SUCCESS")
    client.ended("SUCCESS")
    client.log(root, "a line of the task\r\n")
    return client.calls


PYTHON: dict[str, Callable[[], list[Call]]] = {
    found.__name__: found for found in (plain, failing, dbnd_run, dbnd_run_fails, values_and_datasets)
}


def java() -> list[Call]:
    """What the Java client says of the plain script: plain JSON, other keys, and all task runs again each time."""
    client = Client("sales", archived=False, target_date=_START.isoformat(), dag_id="", trigger="")
    client.facts["root_run"] = {"root_run_uid": client.uid, "root_run_url": ""}
    root, task = Task(client, "sales"), Task(client, "load")
    java_facts = {"uid": "", "start_date": None, "end_date": None, "latest_task_run_attempt_id": None}
    client.init(root, state="RUNNING", env="jvm", external_links={}, **java_facts)
    body = client.calls[0].body
    del body["version"]
    for key in ("update_existing", "scheduled_run_info", "af_with_monitor"):
        del body["init_args"][key]
    body["init_args"]["source"] = "generic_tracking"
    body["init_args"]["af_context"] = {
        "dag_id": "daily",
        "task_id": "load",
        "execution_date": "2025-06-01T00:00:00+00:00",
        "try_number": "2",
        "airflow_instance_uid": str(uuid.uuid4()),
        "airflow_name": "main",
    }
    del body["init_args"]["new_run_info"]["is_archived"]
    client.say("set_run_state", {"run_uid": client.uid, "state": "RUNNING", "time_stamp": client.now()})
    infos = body["init_args"]["task_runs_info"]
    for key in ("af_context", "parent_task_run_uid", "parent_task_run_attempt_uid"):
        del infos[key]
    infos["source_context"] = None
    _java_update(client, root, "RUNNING")
    params = [{"parameter_name": "region", "value": "north", "value_origin": ""}]
    known = client.task_run(task, params, state="QUEUED", env="jvm", external_links={}, **java_facts)
    added = {
        **infos,
        "task_runs": [*infos["task_runs"], known],
        "task_definitions": [*infos["task_definitions"], client.task_definition(task, "region")],
        "parent_child_map": [[root.uid, task.uid]],
        "upstreams_map": [[root.uid, task.uid]],
    }
    client.say("add_task_runs", {"task_runs_info": added})
    _java_update(client, task, "RUNNING")
    metric = {"key": "rows", "value": "31", "value_str": "31", "value_int": 31, "source": "user"}
    stamp = client.now().replace("+00:00", "Z")
    info = {"task_run_attempt_uid": task.attempt, "metric": {**metric, "timestamp": stamp}, "source": "user"}
    client.say("log_metrics", {"metrics_info": [info]})
    client.say("log_metric", {**info, "metric": {**metric, "key": "share", "value_float": 0.5, "timestamp": stamp}})
    _java_update(client, task, "SUCCESS")
    client.say("add_task_runs", {"task_runs_info": added})  # with the states that they had then
    client.log(task, "Log truncated to empty")
    _java_update(client, root, "SUCCESS")
    client.say("set_run_state", {"run_uid": client.uid, "state": "SUCCESS", "time_stamp": client.now()})
    return [Call(call.path, call.body, _JAVA_HEADERS, call.reply) for call in client.calls]


def _java_update(client: Client, task: Task, state: str) -> None:
    client.update(task, state)
    update = client.calls[-1].body["task_run_attempt_updates"][0]
    update["source"] = None
    update["start_date"] = _START.isoformat()
