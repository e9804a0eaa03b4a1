"""What clients send of a run, and trackers that take it."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from typing import Any

import requests

from dbnd_tracker._ingest import apply_call
from dbnd_tracker._queries.details import run_detail
from dbnd_tracker._queries.points.metrics import metric_history
from dbnd_tracker._storage.database import Database
from dbnd_tracker._view import MetricPoint
from dbnd_tracker._views import RunDetail, TaskRunView

Json = dict[str, Any]
NOW = "2026-03-04T05:06:07.000008+00:00"


def _uid() -> str:
    return str(uuid.uuid4())


@dataclass
class Task:
    """A task run of the payloads below."""

    run: Run
    name: str = "train"
    uid: str = field(default_factory=_uid)
    attempt: str = field(default_factory=_uid)
    definition: str = field(default_factory=_uid)

    def info(self, **changes: Any) -> Json:
        return {
            "task_run_uid": self.uid,
            "task_run_attempt_uid": self.attempt,
            "task_definition_uid": self.definition,
            "run_uid": self.run.uid,
            "task_id": f"{self.name}__0123456789",
            "task_af_id": self.name,
            "name": self.name,
            "task_signature": "0123456789",
            "output_signature": "0123456789",
            "state": "SCHEDULED",
            "is_root": False,
            "is_system": False,
            "is_reused": False,
            "is_dynamic": True,
            "is_skipped": False,
            "has_upstreams": False,
            "has_downstreams": False,
            "env": "",
            "command_line": "",
            "functional_call": "",
            "execution_date": NOW,
            "target_date": "2026-03-04",
            "version": "1",
            "log_local": None,
            "log_remote": None,
            "external_links": None,
            "task_run_params": [{"parameter_name": "lr", "value": "0.1", "value_origin": "default"}],
            **changes,
        }

    def update(self, state: str | None, timestamp: str | None = NOW, **changes: Any) -> Json:
        one = {"task_run_uid": self.uid, "task_run_attempt_uid": self.attempt, "state": state, "timestamp": timestamp}
        return {"task_run_attempt_updates": [{**one, **changes}]}

    def metric(self, key: str, source: str = "user", **value: Any) -> Json:
        members = dict.fromkeys(("value", "value_int", "value_float", "value_str", "value_json"))
        metric = {"key": key, "timestamp": NOW, **members, "source": source, **value}
        return {"task_run_attempt_uid": self.attempt, "metric": metric, "source": source}

    def metrics(self, *infos: Json) -> Json:
        return {"metrics_info": list(infos)}

    def floats(self, key: str, count: int) -> Json:
        return self.metrics(*(self.metric(key, value_float=float(i), step=i) for i in range(count)))


@dataclass
class Run:
    """A run of the payloads below."""

    name: str = "kind_turing"
    job: str = "nightly"
    uid: str = field(default_factory=_uid)
    root: Task = field(init=False)

    def __post_init__(self) -> None:
        self.root = Task(self, self.job)

    def infos(self, *tasks: Json, children: tuple[tuple[Task, Task], ...] = (), **changes: Any) -> Json:
        definitions = [
            {
                "task_definition_uid": info["task_definition_uid"],
                "name": info["name"],
                "family": info["name"],
                "type": "python",
                "class_version": "",
                "task_param_definitions": [],
                "source": None,
            }
            for info in tasks
        ]
        return {
            "run_uid": self.uid,
            "root_run_uid": self.uid,
            "task_run_env_uid": _uid(),
            "task_runs": list(tasks),
            "task_definitions": definitions,
            "targets": [],
            "parent_child_map": [[parent.uid, child.uid] for parent, child in children],
            "upstreams_map": [[parent.uid, child.uid] for parent, child in children],
            "dynamic_task_run_update": True,
            "af_context": None,
            "parent_task_run_uid": None,
            "parent_task_run_attempt_uid": None,
            **changes,
        }

    def init(self, **changes: Any) -> Json:
        info = {
            "run_uid": self.uid,
            "job_name": self.job,
            "project_name": "demo",
            "name": self.name,
            "user": "ada",
            "description": None,
            "state": "RUNNING",
            "start_time": NOW,
            "end_time": None,
            "execution_date": NOW,
            "target_date": "2026-03-04",
            "is_archived": False,
            "sends_heartbeat": False,
            **changes,
        }
        args = {
            "run_uid": self.uid,
            "root_run_uid": self.uid,
            "driver_task_uid": self.root.uid,
            "task_runs_info": self.infos(self.root.info(is_root=True, task_run_params=[])),
            "new_run_info": info,
            "source": "UpdateSource.generic_tracking",
        }
        return {"init_args": args, "version": "1.0.34.1"}

    def add(self, *tasks: Task, parent: Task | None = None) -> Json:
        pairs = tuple((parent or self.root, task) for task in tasks)
        return {
            "task_runs_info": self.infos(*(t.info() for t in tasks), children=pairs),
            "source": "generic_tracking",
        }

    def task(self, name: str = "train") -> Task:
        return Task(self, name)

    def state(self, state: str, timestamp: str | None = NOW) -> Json:
        return {"run_uid": self.uid, "state": state, "timestamp": timestamp}


@dataclass
class Tracker:
    """A database, written to and read from as clients do."""

    database: Database

    def call(self, name: str, body: Json) -> object:
        return apply_call(self.database, name, body).answer

    def started(self, **facts: Any) -> tuple[Run, Task]:
        """A run with one task besides its root."""
        run = Run(**facts)
        task = run.task()
        self.call("init_run", run.init())
        self.call("add_task_runs", run.add(task))
        return run, task

    def run(self, run: Run) -> RunDetail:
        with self.database.read() as session:
            found = run_detail(session, run.uid)
        assert found is not None
        return found

    def task(self, task: Task) -> TaskRunView:
        return next(view for view in self.run(task.run).task_runs if view.task_run_uid == task.uid)

    def history(self, task: Task, key: str, **limits: int) -> list[MetricPoint]:
        with self.database.read() as session:
            return metric_history(session, task.uid, key, **limits).data


@dataclass
class Server:
    """A server process' worth of tracker on a port of its own."""

    url: str
    session: requests.Session = field(default_factory=requests.Session)
    app: Any = None
    """The application, if it runs in this process."""

    def post(self, call: str, body: object = None, **options: Any) -> requests.Response:
        name = call if "/" in call or call == "log_exception" else f"tracking/{call}"
        given = options if "data" in options else {"json": body, **options}
        return self.session.post(f"{self.url}/api/v1/{name}", timeout=120, **given)

    def get(self, path: str, **options: Any) -> requests.Response:
        return self.session.get(f"{self.url}{path}", timeout=120, **options)
